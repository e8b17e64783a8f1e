"""Jobs in steps, and their tests: compile once, judge many.

Each step is a process in a sandbox of its own; /box of one is what the next finds beneath its own, and so
does each of the tests, which run the last step with input of theirs. What is compared with an expected output
is compared as it is written, and not kept.

Modules: `spec`, what a caller may ask for; `lanes`, room for one process after the other; `run`, the job on
its way; `result`, what is told of it.
"""
