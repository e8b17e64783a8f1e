"""The README's request is answered as it says."""

import json
import re
from pathlib import Path

README = (Path(__file__).parents[2] / "README.md").read_text()
REQUEST = re.search(r"curl .*? -d '(?P<body>.*?)'\n", README, re.DOTALL)["body"]
ANSWER = json.loads(re.search(r"```json\n(?P<answer>.*?)```", README, re.DOTALL)["answer"])
# What is not the same twice.
MEASURED = ("id", "usage", "timing")


def test_the_request_of_the_readme_has_the_answer_of_the_readme(client):
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/run", content=REQUEST, headers=headers).json()

    assert list(answer) == list(ANSWER)
    assert answer["usage"].keys() == ANSWER["usage"].keys()
    assert answer["timing"].keys() == ANSWER["timing"].keys()
    assert {k: v for k, v in answer.items() if k not in MEASURED} == {
        k: v for k, v in ANSWER.items() if k not in MEASURED
    }
