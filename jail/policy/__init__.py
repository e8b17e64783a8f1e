"""System call policies: text -> libseccomp -> BPF bytes.

    policy = load("default")
    program = compile_policy(policy)              # what seccomp(2) is given
    simulate(program, nr, args).verdict           # what the kernel would answer

A policy is an allow-list (`policies/*.toml`, format in `text`). A call of which it says
nothing answers EPERM; a call newer than the tables here answers ENOSYS, so that libc
falls back as on an older kernel; a call made by another architecture's entry kills. Calls that the
policy counts go to init and, in the filter's explained() form, those that it denies.
"""

from jail.policy.arguments import count as argument_count
from jail.policy.compiler import compile_policy, counted_calls, denials, explained, surface
from jail.policy.numbers import PolicyError, call_name
from jail.policy.simulate import Action, Verdict, cacheable, simulate
from jail.policy.text import Condition, Counted, Policy, Rule, load, names, shipped_directory

__all__ = [
    "Action",
    "Condition",
    "Counted",
    "Policy",
    "PolicyError",
    "Rule",
    "Verdict",
    "argument_count",
    "cacheable",
    "call_name",
    "compile_policy",
    "counted_calls",
    "denials",
    "explained",
    "load",
    "names",
    "shipped_directory",
    "simulate",
    "surface",
]
