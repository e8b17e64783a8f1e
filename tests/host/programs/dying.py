"""Imports that are killed at one step after the other, each looked at by the next who opens the store.

    python dying.py STORE ARCHIVE

Steps are what Python tells its auditors of (PEP 578): files opened, directories made, links and so on. Each
import dies one later than the one before, until one comes to its end. Prints, a line of JSON for each, the
step's event, what a reader found before anything was swept, and what was there after.
"""

import itertools
import json
import os
import signal
import sys
from contextlib import closing
from pathlib import Path

from jail.images import archive
from jail.images.store import Store
from jail.images.unpacker import Unpacker
from jail.namespace import OuterNamespace

# What leaves everything as it is.
_HARMLESS = ("os.listdir", "os.scandir", "os.listxattr", "os.putenv", "os.fork", "os.kill")


def die_at(step: int, told: int) -> None:
    """Kill this process before the event of this number that may change something, and tell which it is."""
    left = step

    def count(event: str, arguments: tuple) -> None:
        nonlocal left
        if not changes_something(event, arguments):
            return
        left -= 1
        # Not below: killing is an event as well.
        if left == -1:
            os.write(told, event.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def changes_something(event: str, arguments: tuple) -> bool:
    """Whether somebody else could tell that it has happened."""
    if event == "open":
        return bool(arguments[2] & (os.O_ACCMODE | os.O_CREAT))
    return event.startswith(("os.", "fcntl.", "subprocess.", "socket.send")) and event not in _HARMLESS


def bring_in(place: Path, namespace: int, path: str) -> None:
    """What `jail image import` does."""
    with (
        Store(place) as store,
        closing(Unpacker(namespace, store.layers)) as unpacker,
        open(path, "rb") as file,
    ):
        store.sweep(unpacker)
        archive.import_file(store, unpacker, file, "dying:1")


def looked_at(place: Path, namespace: int, path: str) -> dict:
    """What is there for a reader, what is left by a sweep, and whether a next import comes to its end."""
    with Store(place) as store, closing(Unpacker(namespace, store.layers)) as unpacker:
        found = {"visible": [image.digest for image in store.stored()]}
        store.sweep(unpacker)
        found["layers"] = sorted(path.name for path in store.layers.iterdir())
        found["linked"] = sorted(
            os.path.basename(layer) for image in store.stored() for layer in image.layers
        )
        found["strays"] = [each.name for each in (place / "chains").glob("*.new")]
        for image in store.stored():
            store.remove(image.digest, unpacker)
        store.prune(unpacker)
        found["bytes"] = store.usage_bytes()
    found["rest"] = sorted(str(each.relative_to(place)) for each in place.rglob("*") if each.is_file())
    return found


def main(place: Path, path: str) -> None:
    """Do so until one import is not killed any more."""
    namespace = OuterNamespace()
    for step in itertools.count():
        read, write = os.pipe()
        child = os.fork()
        if not child:
            die_at(step, write)
            bring_in(place, namespace.descriptor, path)
            os._exit(0)
        os.close(write)
        status = os.waitpid(child, 0)[1]
        with open(read) as events:
            event = events.read()
        if os.WIFEXITED(status):
            print(json.dumps({"exit": os.WEXITSTATUS(status)}), flush=True)  # noqa: T201
            return
        found = looked_at(place, namespace.descriptor, path)
        print(json.dumps({"step": step, "event": event} | found), flush=True)  # noqa: T201


main(Path(sys.argv[1]), sys.argv[2])
