"""What ends scripts/test-vm with a sentence instead of a traceback."""


class VmError(Exception):
    """The machine that we are on lacks something, or what was asked for does not exist."""
