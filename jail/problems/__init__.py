"""Problems in the ICPC and Kattis package layout: read, and turned into jobs. Nothing here runs anything.

Three versions of the format are read: legacy, 2023-07 and 2025-09, of which the last two are the same to us
(https://icpc.io/problem-package-format). A package is untrusted as a whole: its files (jail.problems.files),
its YAML (jail.problems.documents) and its programs, which run in sandboxes like any others.
"""
