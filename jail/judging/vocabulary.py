"""The words of other judges for our statuses, so that a front end needs no table of its own.

Derived: where another judge knows less, two of ours have one word; no word says more than we know.

clics: the judgement types of the CLICS Contest API (ccs-specs.icpc.io, "Known judgement types"). WTL is
beyond the wall clock while CPU time is not exceeded; IF is a function that is not allowed; JE is the
system's; CS is whatever is nothing else.
domjudge: the verdicts of DOMjudge (its etc/verdicts.php, and EXITCODES of its judgehost). It has dropped
presentation-error; what is its own is compare-error and internal-error.
kattis: what Kattis tells (open.kattis.com/help/judgements).
judge0: `id` and `description` of Judge0's statuses (app/enumerations/status.rb); the signal chooses among
its runtime errors.
codeforces: `verdict` of a Submission in the Codeforces API (codeforces.com/apiHelp/objects). It has no word
for output limits; what runs long and uses no CPU is IDLENESS_LIMIT_EXCEEDED there.
qduoj: `result` of the Qingdao University online judge (submission/models.py, class JudgeStatus).
go_judge: `status` of criyle/go-judge (docs.goj.ac/api); it runs programs and does not compare, so that
Accepted is what ended well.
"""

from collections.abc import Mapping
from signal import Signals

from jail.judging.shapes import Judged

Word = str | dict[str, int | str]

NAMES = ("clics", "domjudge", "kattis", "judge0", "codeforces", "qduoj", "go_judge")

WORDS: Mapping[Judged, tuple[str, str, str, int, str, int, str]] = {
    "ok": ("AC", "correct", "Accepted", 3, "OK", 0, "Accepted"),
    "compile_error": (
        *("CE", "compiler-error", "Compile Error", 6, "COMPILATION_ERROR", -2),
        "Nonzero Exit Status",
    ),
    "wrong_answer": ("WA", "wrong-answer", "Wrong Answer", 4, "WRONG_ANSWER", -1, "Accepted"),
    "presentation_error": ("PE", "wrong-answer", "Wrong Answer", 4, "PRESENTATION_ERROR", -1, "Accepted"),
    "cpu_limit": (
        *("TLE", "timelimit", "Time Limit Exceeded", 5, "TIME_LIMIT_EXCEEDED", 1),
        "Time Limit Exceeded",
    ),
    "wall_limit": (
        *("WTL", "timelimit", "Time Limit Exceeded", 5, "IDLENESS_LIMIT_EXCEEDED", 2),
        "Time Limit Exceeded",
    ),
    "memory_limit": (
        *("MLE", "memory-limit", "Memory Limit Exceeded", 12, "MEMORY_LIMIT_EXCEEDED", 3),
        "Memory Limit Exceeded",
    ),
    "output_limit": (
        *("OLE", "output-limit", "Output Limit Exceeded", 8, "RUNTIME_ERROR", 4),
        "Output Limit Exceeded",
    ),
    "nonzero_exit": ("RTE", "run-error", "Run Time Error", 11, "RUNTIME_ERROR", 4, "Nonzero Exit Status"),
    "signaled": ("RTE", "run-error", "Run Time Error", 12, "RUNTIME_ERROR", 4, "Signalled"),
    "syscall_denied": ("IF", "run-error", "Run Time Error", 12, "SECURITY_VIOLATED", 4, "Signalled"),
    "start_failed": ("RTE", "run-error", "Run Time Error", 14, "RUNTIME_ERROR", 4, "Internal Error"),
    "checker_error": ("JE", "compare-error", "Judge Error", 13, "FAILED", 5, "Internal Error"),
    "sandbox_error": ("JE", "internal-error", "Judge Error", 13, "FAILED", 5, "Internal Error"),
    "cancelled": ("CS", "internal-error", "Judge Error", 13, "SKIPPED", 5, "Internal Error"),
}
"""One row a status, one word a name; of judge0 and qduoj the number, whose word is in JUDGE0 and QDUOJ."""

JUDGE0: Mapping[int, str] = {
    3: "Accepted",
    4: "Wrong Answer",
    5: "Time Limit Exceeded",
    6: "Compilation Error",
    7: "Runtime Error (SIGSEGV)",
    8: "Runtime Error (SIGXFSZ)",
    9: "Runtime Error (SIGFPE)",
    10: "Runtime Error (SIGABRT)",
    11: "Runtime Error (NZEC)",
    12: "Runtime Error (Other)",
    13: "Internal Error",
    14: "Exec Format Error",
}

JUDGE0_SIGNALS: Mapping[int, int] = {
    Signals.SIGSEGV: 7,
    Signals.SIGXFSZ: 8,
    Signals.SIGFPE: 9,
    Signals.SIGABRT: 10,
}
"""The signals that have a status of their own there."""

QDUOJ: Mapping[int, str] = {
    -2: "COMPILE_ERROR",
    -1: "WRONG_ANSWER",
    0: "ACCEPTED",
    1: "CPU_TIME_LIMIT_EXCEEDED",
    2: "REAL_TIME_LIMIT_EXCEEDED",
    3: "MEMORY_LIMIT_EXCEEDED",
    4: "RUNTIME_ERROR",
    5: "SYSTEM_ERROR",
}


def words(status: Judged, signal: int | None = None) -> dict[str, Word]:
    """The word of each vocabulary for a status. signal: that ended the program, or None."""
    found: dict[str, Word] = dict(zip(NAMES, WORDS[status], strict=True))
    number = WORDS[status][NAMES.index("judge0")]
    if status == "signaled":
        number = JUDGE0_SIGNALS.get(signal, number)
    found["judge0"] = {"id": number, "description": JUDGE0[number]}
    result = WORDS[status][NAMES.index("qduoj")]
    found["qduoj"] = {"result": result, "name": QDUOJ[result]}
    return found
