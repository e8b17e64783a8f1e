"""`jail doctor`: what this host can promise, each gap with its cause and its cure.

`describe_host()` looks, `try_sandbox()` makes a real sandbox and runs a program in it, and `examine()`
is a pure function from what they found to a list of checks.
"""

from jail.doctor.checks import Check, examine, is_ready
from jail.doctor.description import Gap, Host, describe_host, has_session_manager
from jail.doctor.trial import Trial, try_sandbox

__all__ = [
    "Check",
    "Gap",
    "Host",
    "Trial",
    "describe_host",
    "examine",
    "has_session_manager",
    "is_ready",
    "try_sandbox",
]
