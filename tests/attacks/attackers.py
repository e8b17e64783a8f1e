"""Post jobs to a service from many threads, in turn, until told to stop: attackers.py URL THREADS.

The first line of the input is a list of bodies; its end is the end. Then the answers are told, by status.
"""

import itertools
import json
import os
import sys
import threading
from collections import Counter

import httpx


def post(url: str, turn: "itertools.cycle[bytes]", stop: threading.Event, answers: Counter[str]) -> None:
    """Post what is next until `stop`, and count the answers."""
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        while not stop.is_set():
            answer = client.post("/v1/run", content=next(turn))
            answers[answer.json()["status"] if answer.status_code == 200 else str(answer.status_code)] += 1


def main() -> None:
    """Attack the service that the command line names, without taking the processors from it."""
    os.nice(19)
    turn = itertools.cycle([json.dumps(body).encode() for body in json.loads(sys.stdin.readline())])
    stop, answers = threading.Event(), Counter()
    threads = [
        threading.Thread(target=post, args=(sys.argv[1], turn, stop, answers))
        for _ in range(int(sys.argv[2]))
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    for thread in threads:
        thread.join()
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
