"""Which tests run where, and as whom."""

from collections.abc import Iterator, Sequence

import msgspec

from vm.errors import VmError


class Place(msgspec.Struct, frozen=True):
    """On which image something runs, as whom, and with which drop-ins: see job.Job."""

    image: str
    user: str
    drop_ins: tuple[str, ...] = ()


class Task(msgspec.Struct, frozen=True):
    """What one machine is for: `arguments` are for pytest, `name` is for people."""

    name: str
    kernel: str
    place: Place
    arguments: tuple[str, ...]


_WITH_EGRESS = Place("tests", "jail", ("egress.conf",))

PLACES = {
    "tests/vm/containers": Place("containers", "root"),
    "tests/vm": Place("plain", "root"),
    "tests/attacks/test_egress.py": _WITH_EGRESS,
    "tests/host/test_egress.py": _WITH_EGRESS,
    "tests/network/test_egress.py": _WITH_EGRESS,
    "tests": Place("tests", "jail"),
}
"""By the folder that tests are in, the innermost first."""

SELECTIONS: dict[str, tuple[str, ...]] = {
    "short": (
        "tests/host/test_barriers.py",
        "tests/host/test_cgroup.py",
        "tests/host/test_doctor.py",
        "tests/host/test_limits_table.py",
    ),
    "install": ("tests/vm/test_install.py",),
    # The first left out make containers of their own, for which the unit leaves its processes too little.
    "host": (
        "tests/host",
        "tests/network",
        "--ignore=tests/host/test_doctor_in_containers.py",
        # Selections of their own.
        "--ignore=tests/host/test_egress.py",
        "--ignore=tests/network/test_egress.py",
        "--ignore-glob=tests/host/test_images*.py",
        "--ignore=tests/host/test_unpacker.py",
    ),
    "images": (
        "tests/host/test_unpacker.py",
        "tests/host/test_images.py",
        "tests/host/test_images_pull.py",
        "tests/host/test_images_snapshot.py",
    ),
    "attacks": ("tests/attacks", "--ignore=tests/attacks/test_egress.py"),
    # Of both the others, what the shipped unit lets nobody do without that drop-in.
    "egress": ("tests/network/test_egress.py", "tests/host/test_egress.py", "tests/attacks/test_egress.py"),
    "deploy": ("tests/vm", "--ignore=tests/vm/containers"),
    "containers": ("tests/vm/containers",),
}
"""What is given to pytest: what depends on the host, and not what passes alike everywhere.

`short` is what another host would break first.
"""

ALL = ("host", "images", "attacks", "egress", "deploy", "containers")
"""The selections that have every test between them."""

MATRIX = ("6.1", "newest")
"""The kernels that all of them pass on."""


def place_of(arguments: Sequence[str]) -> Place:
    """Where tests run that are given to pytest: where the first of them does. Raises VmError."""
    named = next((word for word in arguments if word.startswith("tests")), "tests")
    path = named.partition("::")[0].rstrip("/")
    for folder, place in PLACES.items():
        if path == folder or path.startswith(f"{folder}/"):
            return place
    raise VmError(f"{named} is not beneath tests.")


def tasks(kernels: Sequence[str], selections: Sequence[str], arguments: tuple[str, ...]) -> Iterator[Task]:
    """A machine for each selection on each kernel; without selections one a kernel, for the arguments.

    Arguments are added to what is selected. Raises VmError.
    """
    chosen = {name: (*SELECTIONS[name], *arguments) for name in selections} or {"chosen": arguments}
    for kernel in kernels:
        for name, words in chosen.items():
            yield Task(name, kernel, place_of(words), words)
