"""What images are made of."""

import tomllib
from pathlib import Path

import msgspec

from vm.errors import VmError

HERE = Path(__file__).parent
ROOT = HERE / "root"
"""Copied into every image."""

MAKERS = tuple(HERE / name for name in ("build.py", "kernel.py", "suite.py"))
"""The code whose change changes images."""


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`images`: the packages of each besides `packages`. `kernels`: the suite that has each.

    `borrowed`: by the name of a suite, packages of it that every image has beneath /opt, not installed.
    `masked`: units that are not started. `size`: of the file system, as mke2fs(8) takes it.
    """

    size: str
    packages: tuple[str, ...]
    masked: tuple[str, ...]
    images: dict[str, tuple[str, ...]]
    kernels: dict[str, str]
    borrowed: dict[str, tuple[str, ...]]

    def packages_of(self, image: str) -> tuple[str, ...]:
        """All packages of an image. Raises VmError."""
        if image not in self.images:
            raise VmError(f"There is no image {image}, only {', '.join(self.images)}.")
        return (*self.packages, *self.images[image])

    def suite_of(self, kernel: str) -> str:
        """The suite of Debian that has a kernel. Raises VmError."""
        if kernel not in self.kernels:
            raise VmError(f"There is no kernel {kernel}, only {', '.join(self.kernels)}.")
        return self.kernels[kernel]


def load() -> Recipe:
    """The recipe beside this file."""
    return msgspec.convert(tomllib.loads((HERE / "recipe.toml").read_text()), Recipe)
