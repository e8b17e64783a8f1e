"""Self-made problem packages, one of a kind, each with submissions in several languages for every folder.

What is to be too slow never ends; what is in time does next to nothing. So there is no verdict that a busy
machine could change.
"""

import packages

_READ_C = "#include <stdio.h>\n#include <stdlib.h>\n#include <math.h>\n"


def c(body: str) -> str:
    return f"{_READ_C}int main(void) {{\n{body}\n}}\n"


def java(body: str, name: str = "Main") -> str:
    return (
        "import java.util.*;\n"
        f"public class {name} {{\n"
        "\tpublic static void main(String[] arguments) {\n"
        "\t\tScanner in = new Scanner(System.in).useLocale(Locale.ROOT);\n"
        f"{body}\n\t}}\n}}\n"
    )


SLOW = {
    "c": c("for (volatile unsigned n = 0;; n++) {}"),
    "py": "while True:\n    pass\n",
    "java": java("long n = 0; while (n >= 0) n = (n + 1) & 0xffffff;"),
}
CRASHES = {
    "c": c("abort();"),
    "py": "import sys\nsys.exit('no')\n",
    "java": java('throw new RuntimeException("no");'),
}
LIMITS = "limits:\n  memory: 256\n  validation_time: 20\n"


def submissions(accepted: dict[str, str], wrong: dict[str, str], **more: dict[str, str]) -> dict[str, str]:
    """By folder and extension: programs that are right, and that are wrong; those that are slow or crash."""
    folders = {
        "accepted": accepted,
        "wrong_answer": wrong,
        "time_limit_exceeded": SLOW,
        "run_time_error": CRASHES,
        **more,
    }
    return {
        # Java's class is called Main.
        f"submissions/{folder}/{'Main' if extension == 'java' else folder}.{extension}": text
        for folder, programs in folders.items()
        for extension, text in programs.items()
    }


def cases(place: str, pairs: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {
        f"data/{place}/{name}.{extension}": text
        for name, pair in pairs.items()
        for extension, text in zip(("in", "ans"), pair, strict=True)
    }


EXACT: packages.Content = {
    "problem.yaml": f"name: Sum\n{LIMITS}  time_multiplier: 5\n",
    ".timelimit": "0.5\n",
    **cases("sample", {"1": ("1 2\n", "3\n")}),
    **cases("secret", {f"{n:02}": (f"{n} {n * n}\n", f"{n + n * n}\n") for n in range(8)}),
    **submissions(
        accepted={
            "c": c('long a, b; if (scanf("%ld %ld", &a, &b) == 2) printf("%ld\\n", a + b);'),
            "py": "print(sum(map(int, input().split())))\n",
            "java": java("System.out.println(in.nextLong() + in.nextLong());"),
        },
        wrong={
            "c": c('long a, b; if (scanf("%ld %ld", &a, &b) == 2) printf("%ld\\n", a + b + (a > 5));'),
            "py": "a, b = map(int, input().split())\nprint(a + b if a < 5 else a - b)\n",
            "java": java("long a = in.nextLong(); System.out.println(a < 7 ? a + in.nextLong() : 0);"),
        },
    ),
}
"""The default validator, legacy, and a time limit as the reference tools keep it."""

TOLERANCE: packages.Content = {
    "problem.yaml": f"name: Root\nvalidator_flags: float_tolerance 1e-6\n{LIMITS}",
    ".timelimit": "0.5\n",
    **cases("sample", {"1": ("2\n", "1.4142135624\n")}),
    **cases("secret", {f"{n}": (f"{n * 1000}\n", f"{(n * 1000) ** 0.5:.10f}\n") for n in range(1, 5)}),
    **submissions(
        accepted={
            "c": c('double x; if (scanf("%lf", &x) == 1) printf("%.7e\\n", sqrt(x));'),
            "py": "print(float(input()) ** 0.5)\n",
            "java": java("System.out.println(Math.sqrt(in.nextDouble()));"),
        },
        wrong={
            "c": c('double x; if (scanf("%lf", &x) == 1) printf("%.3f\\n", sqrt(x));'),
            "py": "print(float(input()) ** 0.5 * 1.00001)\n",
            "java": java("System.out.println((float) Math.sqrt(in.nextDouble()) + 0.001);"),
        },
    ),
}
"""The default validator with a tolerance."""

CUSTOM: packages.Content = {
    "problem.yaml": (
        "problem_format_version: 2025-09\nname: Parts\nuuid: 5ca6ba5b-36d5-4eff-8aa7-d967cbc4375e\n"
        f"{LIMITS}  time_limit: 0.5\n"
    ),
    "output_validator/parts.cpp": """
// Two numbers, neither 0, whose sum is the input. A message for the judges.
#include <fstream>
#include <iostream>
#include <string>

int main(int argc, char **argv) {
	std::ifstream input(argv[1]);
	std::ofstream message(std::string(argv[3]) + "judgemessage.txt");
	long sum, a, b;
	std::string more;
	input >> sum;
	if (!(std::cin >> a >> b) || std::cin >> more) {
		message << "not two numbers";
		return 43;
	}
	message << a << " and " << b;
	return a && b && a + b == sum ? 42 : 43;
}
""",
    **cases("sample", {"1": ("5\n", "2 3\n")}),
    **cases("secret", {f"{n}": (f"{n}\n", "1 ?\n") for n in (0, 3, 100, -7)}),
    **submissions(
        accepted={
            "c": c('long s; if (scanf("%ld", &s) == 1) printf("%ld %ld\\n", s + 1000, -1000L);'),
            "py": "s = int(input())\nprint(s - 500)\nprint(500)\n",
            "java": java('long s = in.nextLong(); System.out.println((s - 99999) + " 99999");'),
        },
        wrong={
            "c": c('long s; if (scanf("%ld", &s) == 1) printf("%ld %ld\\n", s, 0L);'),
            "py": "print(1)\n",
            "java": java('System.out.println("many words, none of them a number");'),
        },
    ),
}
"""A validator of its own, in the format of 2025-09, with a time limit."""

_POINTS = {"a": 20, "b": 30, "c": 50}

GROUPS: packages.Content = {
    "problem.yaml": f"name: Largest\ntype: scoring\n{LIMITS}",
    ".timelimit": "0.5\n",
    "data/testdata.yaml": "on_reject: continue\nrange: 0 100\ngrader_flags: ignore_sample\n",
    "data/secret/testdata.yaml": (
        "on_reject: continue\nrange: 0 100\ngrader_flags: accept_if_any_accepted\n"
    ),
    **{
        f"data/secret/{name}/testdata.yaml": (
            f"accept_score: {points}\nrange: 0 {points}\ngrader_flags: min\n"
        )
        for name, points in _POINTS.items()
    },
    **cases("sample", {"1": ("3 1 2\n", "3\n")}),
    **cases("secret/a", {f"{n}": (f"{n} {n - 1}\n", f"{n}\n") for n in range(1, 4)}),
    **cases("secret/b", {f"{n}": (f"{n} {n + 1} {n - 7}\n", f"{n + 1}\n") for n in range(1, 4)}),
    **cases("secret/c", {f"{n}": (f"-{n} -{n + 9}\n", f"-{n}\n") for n in range(1, 4)}),
    **submissions(
        accepted={
            "c": c(
                'long most, next; if (scanf("%ld", &most) != 1) return 1;\n'
                'while (scanf("%ld", &next) == 1) if (next > most) most = next;\nprintf("%ld\\n", most);'
            ),
            "py": "print(max(map(int, input().split())))\n",
            "java": java(
                "long most = in.nextLong();\n"
                "while (in.hasNextLong()) most = Math.max(most, in.nextLong());\nSystem.out.println(most);"
            ),
        },
        wrong={"c": c('puts("0");'), "py": "print('none')\n", "java": java("System.out.println();")},
        partially_accepted={
            # The first number: right in a and c.
            "c": c('long first; if (scanf("%ld", &first) == 1) printf("%ld\\n", first);'),
            # None below 0: right in a and b.
            "py": "print(max(0, *map(int, input().split())))\n",
            "java": java("System.out.println(in.nextLong());"),
        },
        # One in each group runs until it is ended.
        time_limit_exceeded={"c": SLOW["c"], "py": SLOW["py"]},
    ),
}
"""Scoring, with groups of points."""

KINDS = {"exact": EXACT, "tolerance": TOLERANCE, "custom": CUSTOM, "groups": GROUPS}
