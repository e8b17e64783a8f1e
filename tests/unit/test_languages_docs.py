"""docs/languages.md tells what languages.toml says."""

from pathlib import Path

import msgspec
import pytest

from jail.languages import definitions
from jail.limits import MIB, Limits

PAGE = (Path(__file__).parents[2] / "docs" / "languages.md").read_text()
SHIPPED = definitions.load()
DEFAULTS = Limits()


def beyond(limits):
    """The limits that are not the defaults, in words."""
    found = []
    for name, value in msgspec.structs.asdict(limits).items():
        if value is None or value == getattr(DEFAULTS, name):
            continue
        if name.endswith("_bytes"):
            found.append(f"{name.removesuffix('_bytes')} {value // MIB} MiB")
        elif name.endswith("_ms"):
            found.append(f"{name.removesuffix('_ms')} {value // 1000} s")
        else:
            found.append(f"{name} {value}")
    return ", ".join(found)


def row(name, language):
    """A language's row of the table."""
    variants = [f"`{one}`{' (default)' if one == language.variant else ''}" for one in language.variants]
    extra = f"memory + {language.memory_extra_bytes // MIB} MiB" if language.memory_extra_bytes else ""
    cells = (
        f"`{name}`" + (f": {', '.join(variants)}" if variants else ""),
        " ".join(f"`{each}`" for each in language.extensions),
        f"`{language.compile.argv[0]}`" if language.compile else "",
        beyond(language.compile.limits) if language.compile else "",
        f"`{language.run.argv[0].format(stem='main')}`",
        ", ".join(filter(None, (beyond(language.run.limits), extra))),
        f"`{language.run.policy}`",
    )
    return f"| {' | '.join(cells)} |".replace("  ", " ")


@pytest.mark.parametrize("name", SHIPPED.languages)
def test_a_languages_row_is_as_it_is_shipped(name):
    assert row(name, SHIPPED.languages[name]) in PAGE


def test_no_language_is_told_of_that_is_not_there():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(rows) == 2 * len(SHIPPED.languages)
    assert {line.split("`")[1] for line in rows} == set(SHIPPED.languages)
