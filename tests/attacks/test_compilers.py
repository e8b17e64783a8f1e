"""Sources that attack their compiler: it ends by its limits, and shows nothing that a job could not see."""

import msgspec
import pytest

from jail.languages import definitions
from jail.languages.expansion import Source, expand

SHIPPED = definitions.load()
# Small, so that what goes on for ever ends soon. Each compiler has room for a program of some lines.
LIMITS = {"cpu_ms": 3000, "wall_ms": 30_000, "memory_bytes": 256 << 20}
PATH = "/usr/local/bin:/usr/bin:/bin"

DOUBLING = """
template <int N, int M> struct S {
	static const int value = S<N - 1, 2 * M>::value + S<N - 1, 2 * M + 1>::value;
};
template <int M> struct S<0, M> { static const int value = M; };
int main() { return S<28, 0>::value; }
"""
MACROS = "#define A(x) x x x x x x x x\nint main() { A(A(A(A(A(A(A(A(A(0;))))))))); }\n"
FIBONACCI = "const fn f(n: u64) -> u64 { if n < 2 { n } else { f(n - 1) + f(n - 2) } }\n"
NESTED = f"class Main {{ int a = {'(' * 100_000}1{')' * 100_000}; }}"

ENDLESS = {
    "c, an endless include": ("c", '#include "/dev/zero"\nint main(void) {}'),
    "c, an endless binary": ("c", 'asm(".incbin \\"/dev/zero\\"");\nint main(void) {}'),
    "c, a huge object": ("c", "int a[1 << 29] = {1};\nint main(void) {}"),
    "c, exponential macros": ("c", MACROS),
    "c, itself again and again": ("c", "#include __FILE__\n#include __FILE__\n"),
    "cpp, exponential templates": ("cpp", DOUBLING),
    "rust, an endless include": ("rust", 'static A: &[u8] = include_bytes!("/dev/zero");\nfn main() {}'),
    "rust, an endless constant": ("rust", f"{FIBONACCI}const A: u64 = f(60);\nfn main() {{}}"),
    "java, nested beyond its stack": ("java", NESTED),
}


@pytest.fixture
def compiled(jail):
    """Compile a source within LIMITS, where the host has the compiler."""

    def run(language, source):
        tool = SHIPPED.find(language).language.version[0]
        if jail.sh(f"command -v {tool}", env={"PATH": PATH})["status"] != "ok":
            pytest.skip(f"the host has no {tool}")
        asked = {"language": language, "source": source, "compile_limits": LIMITS}
        expansion = expand(msgspec.convert(asked, Source), SHIPPED, jail.engine.rules)
        files = msgspec.to_builtins(expansion.files)
        return jail.run(msgspec.to_builtins(expansion.compile) | {"files": files})

    return run


@pytest.mark.parametrize("attack", ENDLESS)
def test_a_compiler_that_is_given_no_end_ends_by_its_limits_or_refuses(compiled, attack):
    """Attack 159."""
    result = compiled(*ENDLESS[attack])
    assert result["status"] in ("nonzero_exit", "cpu_limit", "memory_limit"), result
    assert result["usage"]["cpu_ms"] < 1.5 * LIMITS["cpu_ms"]
    assert result["usage"]["memory_peak_bytes"] <= LIMITS["memory_bytes"]
    assert len(result["stderr"]["text"]) <= 65_536


@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/passwd", "/proc/1/environ", "/root/.profile"])
def test_a_file_of_the_system_that_is_included_shows_what_any_job_sees(compiled, jail, path):
    """Attack 160. Compilers quote lines of what they do not understand."""
    seen = jail.sh(f"cat {path} 2>/dev/null; true")["stdout"]["text"]
    source = f'asm(".incbin \\"{path}\\"");\n#include "{path}"\nint main(void) {{}}'
    result = compiled("c", source)
    assert result["status"] == "nonzero_exit"
    told = result["stderr"]["text"]
    quoted = [line.partition("|")[2].strip() for line in told.splitlines() if " | " in line]
    assert all(line.strip("^~ ") in seen + source for line in quoted), quoted
