"""What a job costs here, beside the least that a fresh sandbox can cost; scripts/bench runs this.

Rooms, from the bottom up:

figures     percentiles and medians of what was measured
client      a connection to the service that costs next to nothing
service     `jail serve`, started with settings and on processors of one's choice
load        one client, or several at once, and how long they waited
floor       native/floor.c: what this kernel takes for the same job
session     what every section is given: how much to measure, with what, and where progress is told
sections    the parts of the benchmark, in order; each is one module
row, report the table of all of them, with ratios and aims
record      all that one run found, as JSON
plots, page the same as SVG, and as docs/performance.md
options     what scripts/bench may be told

A section is a module with TITLE, IS_PLAIN (whether it is measured without --full), Figures (a frozen
struct: what it finds), `measure(session) -> Figures` and `rows(figures, floor) -> Iterator[Row]`. It
raises session.UnavailableError where this host lacks what it needs. Add it to sections.SECTIONS.

Times from two runs do not compare: a noisy neighbour doubles them. Ratios within one run do, so
whatever is compared is measured in turns.
"""
