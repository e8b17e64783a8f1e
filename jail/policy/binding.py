"""The door to libseccomp: Debian's `seccomp`, its own binding, or PyPI's `pyseccomp`, alike."""

from functools import cache
from importlib import import_module
from types import ModuleType

from jail.errors import HostError


@cache
def libseccomp() -> ModuleType:
    """The binding. Raises HostError when neither it nor the library is there."""
    for name in ("seccomp", "pyseccomp"):
        try:
            return import_module(name)
        except ImportError:
            continue
        except (RuntimeError, OSError):
            break
    cure = "As root: apt-get install libseccomp2 (Fedora: dnf install libseccomp)"
    raise HostError("libseccomp is not installed.", cure)
