"""A package as a whole: everything that a judge has to know before a submission comes."""

import msgspec

from jail.problems import metadata, testdata, validator
from jail.problems.comparison import compare
from jail.problems.files import Files
from jail.problems.metadata import Metadata
from jail.problems.programs import Program
from jail.problems.testdata import Group


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What its package says. validator: None when the default one judges, by comparison."""

    metadata: Metadata
    data: Group
    validator: Program | None


def read(files: Files) -> Problem:
    """Read a package but for its submissions. Raises PackageError."""
    found = metadata.read(files)
    problem = Problem(
        metadata=found, data=testdata.read(files, found), validator=validator.find(files, found)
    )
    if problem.validator is None:
        # Flags that are wrong are so for every submission.
        for flags in {case.validator_args for case in problem.data.cases}:
            compare((*found.validator_flags, *flags))
    return problem
