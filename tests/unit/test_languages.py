"""Languages: what their file may say, and what a source becomes."""

import re
from base64 import b64encode
from itertools import pairwise

import msgspec
import pytest

from jail import limits
from jail.languages import definitions, requests
from jail.languages.definitions import LanguageError
from jail.languages.expansion import SOURCE_BYTES_MAX, Source, allow, expand, made
from jail.languages.requests import LanguageRequest
from jail.limits import CEILINGS, MIB, Limits, LimitsRequest
from jail.spec import Content, FileContent, ImageOffer, Rules, SpecError

SHIPPED = definitions.load()
NAMED = [
    *("c", "cpp", "python", "pypy", "java", "kotlin", "javascript", "typescript", "go", "rust", "csharp"),
    *("ruby", "php", "perl", "lua", "haskell", "ocaml", "pascal", "bash", "sql"),
]
FROM_SOURCE = {"python", "pypy", "javascript", "ruby", "php", "perl", "lua", "bash", "sql"}


class OneImage:
    """Nothing but `host`."""

    def names(self):
        return ["host"]

    def find(self, name):
        return ImageOffer() if name == "host" else None

    def obstacle(self, offer, target):
        return None


def rules(**changed):
    usual = Rules(
        defaults=Limits(),
        ceilings=CEILINGS,
        images=OneImage(),
        policies=("default", "run"),
        processes=1,
        memory_bytes=CEILINGS.memory_bytes,
    )
    return msgspec.structs.replace(usual, **changed)


def expanded(language, source="x", changed=None, **fields):
    return expand(Source(language=language, source=source, **fields), SHIPPED, changed or rules())


def refused(language="cpp", source="x", **fields):
    with pytest.raises(SpecError) as caught:
        expanded(language, source, **fields)
    return caught.value.field


def test_every_language_that_was_asked_for_is_there():
    assert list(SHIPPED.languages) == NAMED


@pytest.mark.parametrize("name", NAMED)
def test_what_a_language_runs_with_is_within_what_an_operator_allows_by_default(name):
    found = expanded(name)
    for program in filter(None, (found.compile, found.run)):
        limits.resolve(program.limits, Limits(), CEILINGS)
        assert not any("{" in argument for argument in program.argv)


def test_a_limit_above_the_defaults_has_its_reason_on_the_line_above():
    lines = definitions.SHIPPED.read_text().splitlines()
    above = [
        before for before, line in pairwise(lines) if re.match(r"(limits|\w+_bytes|cpu_factor) = ", line)
    ]
    assert len(above) >= 8
    assert [line for line in above if not line.startswith("# ")] == []


@pytest.mark.parametrize("name", NAMED)
def test_what_is_compiled_runs_without_its_source(name):
    found = expanded(name)
    source = SHIPPED.languages[name].source
    assert found.compile is None or source in found.compile.argv
    assert any(source in argument for argument in found.run.argv) == (name in FROM_SOURCE)


def test_a_source_becomes_a_compilation_and_a_run():
    found = expanded("cpp", "int main() {}", stdin="1", args=["-v"], outputs=["out"])
    assert found.files == {"main.cpp": FileContent(text="int main() {}")}
    assert found.compile.argv[0] == "g++"
    assert "-std=gnu++20" in found.compile.argv
    assert (found.run.argv, found.run.stdin, found.run.outputs) == (["./program", "-v"], "1", ["out"])
    assert (found.compile.stdin, found.compile.outputs) == ("", [])


def test_what_runs_from_its_source_is_tried_before():
    found = expanded("python", "print()")
    assert found.compile.argv == ["python3", "-m", "py_compile", "main.py"]
    assert found.run.argv == ["python3", "main.py"]


def test_a_language_without_a_compiler_has_no_compilation():
    assert expanded("sql").compile is None


@pytest.mark.parametrize("standard", ["11", "14", "17", "20", "23"])
def test_a_variant_is_asked_for_by_its_name(standard):
    assert f"-std=gnu++{standard}" in expanded(f"cpp{standard}").compile.argv


def test_messages_of_a_compiler_that_go_on_and_on_are_cut():
    found = expanded("cpp")
    assert (found.compile.on_output_limit, found.run.on_output_limit) == ("truncate", "kill")


def test_the_name_of_a_source_decides_what_runs():
    found = expanded("java", source_name="Solver.java")
    assert list(found.files) == ["Solver.java"]
    assert found.compile.argv[-1] == "Solver.java"
    assert found.run.argv[-1] == "Solver"


@pytest.mark.parametrize(
    "name",
    [
        *("", ".cpp", "-o.cpp", "@a.cpp", "a/b.cpp", "../a.cpp", "a b.cpp", "a\n.cpp", "ä.cpp", "a.cpp/"),
        *("a.py", "a.cpp\0", "$(id).cpp", "main", f"{'a' * 125}.cpp"),
    ],
)
def test_a_name_that_is_none_is_refused(name):
    assert refused(source_name=name) == "source_name"


@pytest.mark.parametrize("name", ["a.cpp", "a.cc", "A_1.b-c+d.cxx", f"{'a' * 124}.cpp"])
def test_a_name_of_a_source_is_taken(name):
    assert name in expanded("cpp", source_name=name).compile.argv


def test_what_a_language_brings_lies_beside_the_source_and_is_not_to_be_replaced():
    assert sorted(expanded("typescript").files) == ["main.ts", "node.d.ts"]
    assert refused("typescript", files={"node.d.ts": ""}) == "files.node.d.ts"
    assert refused("typescript", source_name="node.d.ts") == "source_name"


@pytest.mark.parametrize("path", ["main.cpp", "main.cpp/x", "program", "program/x"])
def test_a_file_where_the_source_or_what_is_made_of_it_goes_is_refused(path):
    assert refused(files={path: ""}) == f"files.{path}"


def test_a_file_of_a_generated_name_of_another_language_is_taken():
    found = expanded("python", files={"program": "1", "Main.class": "2"})
    assert sorted(found.files) == ["Main.class", "main.py", "program"]


def test_what_a_compilation_leaves_is_named_after_its_source():
    assert made(SHIPPED.languages["haskell"], "a.hs") == ["program", "a.hi", "a.o"]


@pytest.mark.parametrize(
    "content",
    ["x" * (SOURCE_BYTES_MAX + 1), "ä" * (SOURCE_BYTES_MAX // 2 + 1), "x" * 50 * MIB],
    ids=["one byte", "one byte of UTF-8", "50 MiB"],
)
def test_a_source_that_is_too_long_is_refused(content):
    assert refused(source=content) == "source"
    encoded = Content(base64=b64encode(content.encode()).decode())
    assert refused(source=encoded) == "source"


@pytest.mark.parametrize("size", [SOURCE_BYTES_MAX, SOURCE_BYTES_MAX + 1])
def test_a_stored_source_is_taken_up_to_the_same_length(size):
    digest = f"sha256:{'a' * 64}"

    class Stored:
        def find(self, found, owner):
            return size if found == digest else None

    told, source = rules(files=Stored()), Content(file=digest)
    if size > SOURCE_BYTES_MAX:
        with pytest.raises(SpecError, match="source: 1048577 bytes"):
            expanded("c", source, told)
    else:
        assert expanded("c", source, told).files["main.c"] == FileContent(file=digest)
    assert refused(source=Content(file=digest)) == "source"


@pytest.mark.parametrize("source", [Content(), Content(text="", base64=""), Content(base64="%"), "\ud800"])
def test_a_source_that_is_no_content_is_refused(source):
    assert refused(source=source) == "source"


def test_the_longest_source_is_taken():
    for content in ("x" * SOURCE_BYTES_MAX, Content(base64=b64encode(bytes(SOURCE_BYTES_MAX)).decode())):
        assert "main.cpp" in expanded("cpp", content).files


def test_an_unknown_language_is_refused_and_the_known_are_named():
    with pytest.raises(SpecError, match="'cobol' is not known; known: c, c99, c11, c17, cpp, cpp11"):
        expanded("cobol")


def test_limits_are_of_the_program_and_what_its_runtime_takes_comes_on_top():
    found = expanded("java", limits=LimitsRequest(memory_bytes=256 * MIB, cpu_ms=1500))
    assert found.run.limits.memory_bytes == (256 + 64) * MIB
    assert "-Xmx256m" in found.run.argv
    assert found.run.limits.cpu_ms == 1500
    assert expanded("c", limits=LimitsRequest(memory_bytes=256 * MIB)).run.limits.memory_bytes == 256 * MIB


def test_a_limit_that_is_omitted_is_the_operators_default():
    found = expanded("java", changed=rules(defaults=Limits(memory_bytes=100 * MIB, stack_bytes=32 * MIB)))
    assert found.run.limits.memory_bytes == 164 * MIB
    assert {"-Xmx100m", "-Xss32m"} <= set(found.run.argv)


def test_what_a_language_takes_by_itself_is_kept_below_the_ceilings():
    low = msgspec.structs.replace(CEILINGS, memory_bytes=300 * MIB, pids=70, cpu_ms=20_000)
    found = expanded("kotlin", changed=rules(ceilings=low, defaults=Limits(memory_bytes=290 * MIB)))
    assert (found.compile.limits.memory_bytes, found.compile.limits.pids) == (300 * MIB, 70)
    assert found.compile.limits.cpu_ms == 20_000
    assert (found.run.limits.memory_bytes, found.run.limits.pids) == (300 * MIB, 70)
    assert "-Xmx236m" in found.run.argv


def test_what_a_caller_asks_for_above_the_ceiling_stays_to_be_refused():
    asked = LimitsRequest(memory_bytes=CEILINGS.memory_bytes + 1, cpu_ms=CEILINGS.cpu_ms + 1)
    found = expanded("java", limits=asked, compile_limits=LimitsRequest(pids=CEILINGS.pids + 1))
    assert found.run.limits.memory_bytes == CEILINGS.memory_bytes + 1
    assert found.run.limits.cpu_ms == CEILINGS.cpu_ms + 1
    assert found.compile.limits.pids == CEILINGS.pids + 1


def test_times_are_multiplied_and_limits_that_are_not_set_stay_so():
    slow = msgspec.structs.replace(SHIPPED.languages["python"], cpu_factor=2.5, memory_extra_bytes=MIB)
    assert allow(LimitsRequest(cpu_ms=100, pids=5), slow, CEILINGS) == LimitsRequest(cpu_ms=250, pids=5)
    assert allow(LimitsRequest(wall_ms=101), slow, CEILINGS) == LimitsRequest(wall_ms=252)
    assert allow(LimitsRequest(), slow, CEILINGS) == LimitsRequest()
    most = LimitsRequest(cpu_ms=CEILINGS.cpu_ms, memory_bytes=CEILINGS.memory_bytes)
    assert allow(most, slow, CEILINGS) == most


def test_limits_of_the_compilation_are_asked_for_by_themselves():
    found = expanded("cpp", compile_limits=LimitsRequest(cpu_ms=77), limits=LimitsRequest(pids=3))
    assert (found.compile.limits.cpu_ms, found.compile.limits.wall_ms) == (77, 60_000)
    assert (found.compile.limits.pids, found.run.limits.pids) == (None, 3)


def test_variables_and_policy_of_the_caller_win():
    found = expanded("go", env={"GOMAXPROCS": "1", "A": "b"}, policy="strict", image="other")
    assert found.compile.env["GOMAXPROCS"] == "1"
    assert found.compile.env["GOCACHE"] == "/tmp/go"
    assert found.run.env == {"GOMAXPROCS": "1", "A": "b"}
    assert (found.compile.policy, found.run.policy) == ("strict", "strict")
    assert (found.compile.image, found.run.image) == ("other", "other")


def job(language, source="x", **fields):
    asked = msgspec.convert({"language": language, "source": source, **fields}, LanguageRequest)
    return requests.validate(asked, SHIPPED, rules())


def test_a_language_in_a_body_becomes_the_steps_of_a_job():
    found = job("cpp", "int main() {}", tests=[{"stdin": "1", "expected": "2", "args": ["-v"]}])
    assert [(step.process.name, step.compiles) for step in found.steps] == [("compile", True), ("run", False)]
    assert [file.path for file in found.steps[0].process.files] == ["main.cpp"]
    assert found.steps[1].process.files == ()
    assert (found.tests[0].process.argv, found.tests[0].process.stdin) == (("./program", "-v"), b"1")
    assert found.tests[0].expected == b"2"


def test_what_is_not_compiled_is_one_step():
    (step,) = job("sql", files={"data": "1"}).steps
    assert (step.process.name, step.compiles) == ("run", False)
    assert [file.path for file in step.process.files] == ["data", "main.sql"]


def test_the_limits_of_a_test_are_the_programs_own_too():
    tests = [{"limits": {"memory_bytes": 100 * MIB}}, {"limits": {"cpu_ms": 5}}]
    first, second = (test.process.limits for test in job("java", tests=tests).tests)
    assert (first.memory_bytes, first.cpu_ms) == (164 * MIB, 10_000)
    assert (second.memory_bytes, second.cpu_ms) == (576 * MIB, 5)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"files": {"/a": ""}}, "files./a"),
        ({"limits": {"memory_bytes": 1 << 50}}, "limits.memory_bytes"),
        ({"compile_limits": {"memory_bytes": 1 << 50}}, "compile_limits.memory_bytes"),
        ({"policy": "none"}, "policy"),
        ({"image": "nowhere"}, "image"),
        ({"outputs": ["/"]}, "outputs[0]"),
        ({"tests": [{"limits": {"memory_bytes": 1 << 50}}]}, "tests[0].limits.memory_bytes"),
        ({"tests": [{"group": "a"}]}, "tests[0].group"),
        ({"source_name": "-o"}, "source_name"),
    ],
)
@pytest.mark.parametrize("language", ["c", "sql"])
def test_what_is_refused_is_named_as_the_caller_wrote_it(language, fields, field):
    if language == "sql" and "compile_limits" in fields:
        return
    with pytest.raises(SpecError) as caught:
        job(language, **fields)
    assert caught.value.field == field


LEAST = """
smoke = { stdin = "", expected = "" }
[languages.a]
title = "A"
extensions = [".a"]
source = "main.a"
version = ["a"]
run = { argv = ["a", "{source}"] }
smoke = ""
"""


@pytest.fixture
def loaded(tmp_path):
    def load(text):
        (tmp_path / "languages.toml").write_text(text)
        return definitions.load(str(tmp_path / "languages.toml"))

    return load


def test_a_file_of_the_operators_own_takes_the_place_of_the_shipped(loaded):
    assert loaded(LEAST).names() == ["a"]


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ("[languages.a]", "[languages.A]", "matching regex"),
        ('source = "main.a"', 'source = "main.b"', "none of its extensions"),
        ('"{source}"', '"{sauce}"', "no place for sauce"),
        ('"{source}"', '"{source"', "expected '}'"),
        ('version = ["a"]', "version = []", "length >= 1"),
        ('title = "A"', 'title = "A"\ncolour = 1', "unknown field `colour`"),
        ('title = "A"', 'title = "A"\nmakes = ["main.a"]', "its own source"),
        ('title = "A"', 'title = "A"\nvariants = { b = [] }', "variant '' is none"),
        ('title = "A"', 'title = "A"\nvariant = "a"\nvariants = { a = [] }', "a is the name of two"),
        ('title = "A"', 'title = "A"\ncpu_factor = 0.5', ">= 1"),
        ('{ argv = ["a", "{source}"] }', '{ argv = ["a"], limits = { cpu = 1 } }', "unknown field `cpu`"),
        ("[languages.a]", "[languages.a", "line"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_reason(loaded, good, bad, why):
    assert good in LEAST
    with pytest.raises(LanguageError, match=re.escape(why)):
        loaded(LEAST.replace(good, bad))


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(LanguageError, match="/nowhere: "):
        definitions.load("/nowhere")
