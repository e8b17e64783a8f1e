"""System call policies: text -> libseccomp -> BPF bytes.

    policy = load("default")
    program = compile_policy(policy)              # what seccomp(2) is given
    simulate(program, nr, args).verdict           # what the kernel would answer

A policy is an allow-list (`policies/*.toml`, format in `text`). A call of which it says
nothing answers EPERM; a call newer than the tables here answers ENOSYS, so that libc
falls back as on an older kernel; a call made by another architecture's entry kills.
"""

from jail.policy.compiler import compile_policy, surface
from jail.policy.numbers import PolicyError
from jail.policy.simulate import Action, Verdict, cacheable, simulate
from jail.policy.text import Condition, Policy, Rule, load, names, shipped_directory

__all__ = [
    "Action",
    "Condition",
    "Policy",
    "PolicyError",
    "Rule",
    "Verdict",
    "cacheable",
    "compile_policy",
    "load",
    "names",
    "shipped_directory",
    "simulate",
    "surface",
]
