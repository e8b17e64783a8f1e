"""Control groups: one for every sandbox, made before it and removed after it.

Two kinds of host are first class: cgroup v2 (`v2`), and cgroup v1 or hybrid (`v1`). `find()` looks
at the host and answers with a Hierarchy; nobody else needs to know which it is.
"""

from jail.cgroup.find import find
from jail.cgroup.interface import Cgroup, Counters, Hierarchy, Limits, Pressure

__all__ = ["Cgroup", "Counters", "Hierarchy", "Limits", "Pressure", "find"]
