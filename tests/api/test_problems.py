"""Problem packages over HTTP: sent once, and submissions judged by their id."""

import io
import socket
import zipfile
from urllib.parse import urlsplit

import httpx
import packages
import problems
import pytest

RIGHT = {"language": "python", "source": "print(sum(map(int, input().split())))"}
WRONG = {"language": "python", "source": "print(0)"}
SLOW = {"language": "c", "source": problems.SLOW["c"]}


def zipped(content: packages.Content) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in content.items():
            archive.writestr(f"problem/{path}", text)
    return made.getvalue()


@pytest.fixture
def sent(client):
    """Sends packages, whose ids come back, and takes them away in the end."""
    known = []

    def send(content: packages.Content) -> str:
        answer = client.put("/v1/problems", content=zipped(content))
        assert answer.status_code == 201, answer.text
        known.append(answer.json()["id"])
        return known[-1]

    yield send
    for each in client.get("/v1/files").json()["files"]:
        client.delete(f"/v1/files/{each['file']}")


@pytest.fixture
def judge(client):
    def judged(problem: str, submission: dict, status: int = 200) -> dict:
        answer = client.post(f"/v1/problems/{problem}/judge", json=submission)
        assert answer.status_code == status, answer.text
        return answer.json()

    return judged


def test_a_package_is_sent_once_and_submissions_are_judged_by_its_id(sent, judge):
    problem = sent(problems.EXACT)

    right, wrong = judge(problem, RIGHT), judge(problem, WRONG)
    assert (right["verdict"], right["failed"], len(right["tests"])) == ("AC", None, 9)
    assert (wrong["verdict"], wrong["failed"]) == ("WA", "sample/1")
    assert judge(problem, {"language": "c", "source": "int main(void) { return 1; }"})["verdict"] == "RTE"
    broken = judge(problem, {"language": "c", "source": "int main(void) { return x; }"})
    assert broken["verdict"] == "CE"
    assert "main.c:1" in broken["detail"]


def test_the_answer_tells_what_was_read(client, sent):
    answer = client.put("/v1/problems", content=zipped(problems.GROUPS))
    told = answer.json()

    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/problems/{told['id']}"
    assert told == {
        "id": told["id"],
        "tests": 10,
        "groups": ["sample", "secret/a", "secret/b", "secret/c"],
        "scoring": True,
        "validator": "default",
        "time_limit_ms": 500,
        "memory_bytes": 256 << 20,
    }
    assert client.put("/v1/problems", content=zipped(problems.GROUPS)).status_code == 200


def test_scores_are_told(sent, judge):
    found = judge(sent(problems.GROUPS), {"language": "python", "source": "print(input().split()[0])"})

    assert (found["verdict"], found["score"]) == ("AC", 70)
    assert found["groups"]["secret/b"]["verdict"] == "WA"


def test_a_validator_is_built_once_for_all_submissions(sent, judge, client, jobs_counted):
    problem = sent(problems.CUSTOM)
    submission = {"language": "python", "source": "s = int(input())\nprint(s - 9, 9)"}
    before = jobs_counted(client)

    assert judge(problem, submission)["verdict"] == "AC"
    assert jobs_counted(client) == before + 2
    assert judge(problem, WRONG)["verdict"] == "WA"
    assert jobs_counted(client) == before + 3


def test_a_time_limit_that_is_not_said_is_found_once(sent, judge, client, jobs_counted):
    problem = sent(packages.ECHO)
    before = jobs_counted(client)

    assert judge(problem, {"language": "python", "source": "print(input())"})["verdict"] == "AC"
    assert judge(problem, WRONG)["verdict"] == "WA"
    assert jobs_counted(client) == before + 3


def test_what_was_removed_is_not_there(client, sent, judge):
    problem = sent(problems.EXACT)

    assert client.delete(f"/v1/problems/{problem}").status_code == 204
    assert client.delete(f"/v1/problems/{problem}").status_code == 404
    assert judge(problem, RIGHT, 404)["detail"].startswith(f"There is no problem {problem}")
    assert judge("sha256:x", RIGHT, 404)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "neither a directory nor a zip archive"),
        (b"PK\5\6" + bytes(18), "there is no problem.yaml"),
        (zipped({**packages.ECHO, "problem.yaml": "type: interactive"}), "not supported yet"),
        (zipped({**packages.ECHO, "problem.yaml": "validation: custom interactive"}), "not supported yet"),
        (zipped({**packages.ECHO, "problem.yaml": "a: &a b\nc: *a"}), "aliases are not read"),
        (zipped({**packages.ECHO, "data/secret/2.in": ""}), "has no answer"),
        (zipped({**packages.ECHO, "data/secret/../../../x.in": ""}), "has the name '..' in it"),
    ],
)
def test_a_package_that_cannot_be_used_is_told_and_nothing_of_it_is_kept(client, content, told):
    before = client.get("/v1/files").json()
    answer = client.put("/v1/problems", content=content)

    assert answer.status_code == 422
    assert answer.json()["field"] == "body"
    assert told in answer.json()["detail"]
    assert client.get("/v1/files").json() == before


@pytest.mark.parametrize(
    ("submission", "field"),
    [
        ({"language": "cobol", "source": ""}, "language"),
        ({"language": "c", "source": "", "source_name": "../x.c"}, "source_name"),
        ({"language": "c", "source": {"base64": "?"}}, "source"),
        ({"language": "c", "source": {"file": f"sha256:{64 * '0'}"}}, "source"),
        ({"language": "c"}, "body"),
        ({"language": "c", "source": "", "limits": {}}, "body"),
    ],
)
def test_a_submission_that_cannot_be_meant_is_refused_by_its_field(sent, judge, submission, field):
    assert judge(sent(problems.EXACT), submission, 422)["field"] == field


def test_a_stored_file_that_is_no_package_is_told(client, sent, judge):
    stored = client.put("/v1/files", content=b"just a file").json()["file"]

    assert judge(stored, RIGHT, 422)["field"] == "id"


def test_a_client_that_goes_away_ends_the_judging(service, sent, client, counted, eventually):
    problem = sent({**problems.EXACT, ".timelimit": "300"})
    body = httpx.Request("POST", service.url, json=SLOW).content
    where = urlsplit(service.url)
    with socket.create_connection((where.hostname, where.port)) as gone:
        head = f"POST /v1/problems/{problem}/judge HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        gone.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        eventually(lambda: counted(client)["jail_running"])
    eventually(lambda: not counted(client)["jail_running"])


def test_packages_and_submissions_take_a_key(serve, state):
    key = "6a204bd89f3c8348afd5c77c717a097adf27a12f2f24e2e0f7a5e4ac7ef5cf77"
    service = serve(JAIL_KEYS_SHA256=key, JAIL_STATE=str(state), JAIL_READY_MIN="0", JAIL_READY_MAX="0")
    with httpx.Client(base_url=service.url) as stranger:
        asked = [
            stranger.put("/v1/problems", content=b""),
            stranger.post(f"/v1/problems/sha256:{key}/judge", json=RIGHT),
            stranger.delete(f"/v1/problems/sha256:{key}"),
        ]
    assert [answer.status_code for answer in asked] == [401, 401, 401]
