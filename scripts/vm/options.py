"""What scripts/test-vm may be told."""

import argparse

from vm import plan, recipe

_ABOUT = "Run tests on a stock Debian, booted under qemu's emulation. What is not an option goes to pytest."


def parse(arguments: list[str]) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """The options, and what is for pytest; ends the process when they are wrong.

    --json is the number of a descriptor: scripts/test-vm opens the file, which our user may not be able to.
    """
    known = recipe.load()
    parser = argparse.ArgumentParser(prog="scripts/test-vm", description=_ABOUT, allow_abbrev=False)
    parser.add_argument("wheel", help=argparse.SUPPRESS)
    parser.add_argument("--kernel", default="6.1", help=f"{', '.join(known.kernels)} (%(default)s)")
    parser.add_argument("--selection", choices=(*plan.SELECTIONS, "all"), help="of the tests (short)")
    parser.add_argument(
        "--matrix", action="store_true", help=f"all, on the kernels {' and '.join(plan.MATRIX)}"
    )
    parser.add_argument("--command", metavar="COMMAND", help="for sh -c, instead of tests")
    parser.add_argument("--image", help=f"{', '.join(known.images)}: another than these tests are for")
    parser.add_argument("--user", choices=("root", "jail"), help="another than these tests are for")
    parser.add_argument(
        "--timeout", type=float, default=1800, metavar="SECONDS", help="of one machine (%(default)s)"
    )
    parser.add_argument("--json", type=int, metavar="FILE", help="write the figures there")
    return parser.parse_known_args(arguments)
