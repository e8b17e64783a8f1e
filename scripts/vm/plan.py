"""Which tests run where, and as whom."""

from collections.abc import Sequence

import msgspec

from vm.errors import VmError


class Place(msgspec.Struct, frozen=True):
    """On which image tests run, and as whom: see job.Job."""

    image: str
    user: str


PLACES = {
    "tests/vm/containers": Place("containers", "root"),
    "tests/vm/delegated": Place("tests", "jail"),
    "tests/vm": Place("plain", "root"),
    "tests": Place("tests", "jail"),
}
"""By the folder that tests are in, the innermost first."""

SELECTIONS: dict[str, tuple[str, ...]] = {
    "short": ("tests/host/test_barriers.py", "tests/host/test_limits.py", "tests/host/test_ends.py"),
    "host": ("tests/host", "tests/vm/delegated"),
    "attacks": ("tests/attacks",),
    "deploy": ("tests/vm", "--ignore=tests/vm/containers", "--ignore=tests/vm/delegated"),
    "containers": ("tests/vm/containers",),
}
"""What is given to pytest. What depends on the host, and not what passes alike everywhere."""

ALL = ("host", "attacks", "deploy", "containers")
"""The selections that have every test between them."""

MATRIX = ("6.1", "newest")
"""The kernels that all selections pass on."""


def place_of(arguments: Sequence[str]) -> Place:
    """Where tests run that are given to pytest: where the first of them does. Raises VmError."""
    named = next((word for word in arguments if word.startswith("tests")), "tests")
    path = named.partition("::")[0].rstrip("/")
    for folder, place in PLACES.items():
        if path == folder or path.startswith(f"{folder}/"):
            return place
    raise VmError(f"{named} is not beneath tests.")
