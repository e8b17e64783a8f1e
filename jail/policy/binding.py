"""The door to libseccomp: Debian's `seccomp`, its own binding, or PyPI's `pyseccomp`, alike."""

try:
    import seccomp
except ImportError:
    import pyseccomp as seccomp

__all__ = ["seccomp"]
