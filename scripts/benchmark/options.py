"""What scripts/bench may be told."""

import argparse

from benchmark import churn
from benchmark.sections import SECTIONS

EXPLAIN = ("explain", "calls")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; ends the process when they are wrong.

    Files are opened by scripts/bench, since the user who measures need not be able to write them:
    here they are numbers of descriptors. What is for a directory goes into one as a tar archive.
    """
    about = "What a job costs on this host, beside the least that a fresh sandbox can cost."
    parser = argparse.ArgumentParser(prog="scripts/bench", description=about)
    parser.add_argument("floor", help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", metavar="SECTION", choices=SECTIONS, help=", ".join(SECTIONS))
    parser.add_argument(
        "--explain",
        dest="only",
        action="store_const",
        const=EXPLAIN,
        help="only where the time of a job goes: " + ", ".join(EXPLAIN),
    )
    parser.add_argument("--full", action="store_true", help="all sections, and more rounds")
    parser.add_argument(
        "--churn", type=int, default=churn.SECONDS, metavar="SECONDS", help="of sustained churn (%(default)s)"
    )
    parser.add_argument("--runs", type=int, default=100, help="jobs of a kind in a round (%(default)s)")
    parser.add_argument("--json", type=int, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--write", type=int, metavar="DIRECTORY", help="write performance.md and its plots there"
    )
    parser.add_argument("--plots", type=int, metavar="DIRECTORY", help="write the plots alone there")
    parser.add_argument(
        "--from",
        dest="kept",
        type=int,
        metavar="FILE",
        help="measure nothing: show and write what --json kept",
    )
    return parser.parse_args(arguments)
