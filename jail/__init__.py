"""jail runs code that nobody trusts: one fresh, rootless sandbox for every job.

`jail.engine` runs jobs, `jail.http` serves them, `jail.cli` is the command line. How the parts
fit is told in SECURITY.md and in the head of each module.
"""

from importlib.metadata import version

__version__ = version("jail")
