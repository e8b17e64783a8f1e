"""What scripts/test-vm may be told."""

import argparse
from collections.abc import Iterator

import msgspec

from vm import plan, recipe
from vm.plan import Place, Task

_ABOUT = "Run tests on a stock Debian, booted under qemu's emulation. What is not an option goes to pytest."


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and what is for pytest; ends the process when they are wrong.

    --json is the number of a descriptor: scripts/test-vm opens the file, which our user may not be able to.
    """
    known = recipe.load()
    parser = argparse.ArgumentParser(prog="scripts/test-vm", description=_ABOUT, allow_abbrev=False)
    parser.add_argument("wheel", help=argparse.SUPPRESS)
    parser.add_argument(
        "--kernel", action="append", choices=known.kernels, help="may be repeated (6.1)", dest="kernels"
    )
    parser.add_argument(
        "--selection",
        action="append",
        choices=(*plan.SELECTIONS, "all"),
        help="of the tests; may be repeated (short)",
        dest="selections",
    )
    parser.add_argument("--matrix", action="store_true", help=f"all, on {' and '.join(plan.MATRIX)}")
    parser.add_argument("--command", help="for sh -c, instead of tests")
    parser.add_argument("--image", choices=known.images, help="another than the tests are for")
    parser.add_argument("--user", choices=("root", "jail"), help="another than the tests are for")
    parser.add_argument(
        "--timeout", type=float, default=1800, metavar="SECONDS", help="of one machine (%(default)s)"
    )
    parser.add_argument("--json", type=int, metavar="FILE", help="write the figures there")
    return parser.parse_known_args(arguments)


def tasks(asked: argparse.Namespace, arguments: tuple[str, ...]) -> Iterator[Task]:
    """What is asked for, a machine each. Raises VmError."""
    kernels = asked.kernels or (plan.MATRIX if asked.matrix else ("6.1",))
    if asked.command:
        found = (Task("command", kernel, Place("plain", "root"), ()) for kernel in kernels)
    else:
        names = asked.selections or (["all"] if asked.matrix else [] if arguments else ["short"])
        found = plan.tasks(kernels, plan.ALL if "all" in names else names, arguments)
    for task in found:
        place = msgspec.structs.replace(
            task.place, image=asked.image or task.place.image, user=asked.user or task.place.user
        )
        yield msgspec.structs.replace(task, place=place)
