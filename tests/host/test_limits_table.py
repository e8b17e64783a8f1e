"""limits.json: jobs at their limits and just within them, and what is told of each, on every kind of host.

The file is read, not translated: `job` is a body of POST /v1/run, and goes to a service as it stands.
"""

import json
from pathlib import Path

import httpx
import pytest

TABLE = json.loads(Path(__file__).with_name("limits.json").read_text())
ROWS = {f"{kind}: {row['name']}": row for kind, rows in TABLE.items() for row in rows}


def test_every_limit_has_a_job_that_it_stops_and_one_that_it_does_not():
    assert set(TABLE) == {"cpu", "wall", "memory", "pids", "disk", "output"}
    assert len(ROWS) == sum(map(len, TABLE.values()))
    for rows in TABLE.values():
        ends = {row["told"]["exit_code"] for row in rows}
        assert ends & {0, 3}
        assert ends - {0, 3}


@pytest.mark.parametrize("name", ROWS)
def test_a_job_at_a_limit_is_told_of_as_the_table_says(service, name):
    row = ROWS[name]
    answer = httpx.post(f"{service.url}/v1/run", json=row["job"], timeout=60)
    assert answer.status_code == 200, answer.text
    result = answer.json()
    assert {field: result[field] for field in row["told"]} == row["told"], result
