"""Jobs that judge: what of a package goes where, and that nothing of it leads anywhere else."""

import io
import tarfile
from base64 import b64decode

import msgspec
import offered
import packages
import pytest

from jail import spec
from jail.errors import PackageError
from jail.languages import definitions
from jail.limits import CEILINGS, Limits, LimitsRequest
from jail.problems import job, metadata, package, sources, submissions, validator
from jail.problems.sources import Limits as Asked
from jail.steps import spec as steps

RULES = spec.Rules(
    defaults=Limits(),
    ceilings=CEILINGS,
    images=offered.Offered(),
    policies=("default", "run"),
    processes=1,
    memory_bytes=CEILINGS.memory_bytes,
)
DEFINITIONS = definitions.load()
MODERN = "problem_format_version: 2025-09\n"


def made(held: packages.Package) -> sources.Sources:
    return sources.Sources(files=held, metadata=metadata.read(held), definitions=DEFINITIONS, rules=RULES)


def parsed(content: packages.Content, name: str, checker: dict | None = None) -> steps.StepsSpec:
    """The job that judges a submission, by the rules that all jobs are read by."""
    held = packages.Package({**packages.ECHO, **content})
    problem = package.read(held)
    found = {one.name: one for one in submissions.read(held, problem.metadata)}
    asked = job.limits(problem.metadata, problem.metadata.time_limit_ms or 1500, RULES)
    program = made(held).submission(found[name].program, asked)
    body = job.body(problem, program, asked, checker, lambda path: {"text": held.read(path).decode()}, "job")
    return steps.parse(msgspec.json.encode(body), RULES)


def test_a_script_is_a_job_with_a_test_for_each_case():
    found = parsed({"problem.yaml": "limits: {memory: 100, output: 2}"}, "accepted/echo.py")

    tried, step = found.steps
    limits = step.process.limits
    assert tried.compiles
    assert step.process.argv == ("python3", "echo.py")
    assert [file.content for file in tried.process.files] == [b"print(input())\n"]
    assert (limits.cpu_ms, limits.wall_ms, limits.stdout_bytes) == (1500, 9500, 2 << 20)
    assert limits.memory_bytes == 100 << 20
    assert [(one.name, one.process.stdin, one.expected) for one in found.tests] == [
        ("sample/1", b"1\n", b"1\n"),
        ("secret/1", b"7\n", b"7\n"),
    ]
    assert {one.compare.mode for one in found.tests} == {"tokens"}
    assert found.fail_fast == "job"


def test_sources_of_a_compiled_language_are_compiled_together():
    found = parsed(
        {
            "submissions/accepted/two/main.c": "int main(void) {}",
            "submissions/accepted/two/more.c": "",
            "submissions/accepted/two/more.h": "",
        },
        "accepted/two",
    )

    compiling, running = found.steps
    assert compiling.compiles
    assert [one for one in compiling.process.argv if one.endswith(".c")] == ["main.c", "more.c"]
    assert {file.path for file in compiling.process.files} == {"main.c", "more.c", "more.h"}
    assert running.process.argv == ("./program",)
    assert running.process.files == ()


def test_every_language_has_the_time_limit_of_the_package():
    content = {"problem.yaml": f"{MODERN}limits: {{time_limit: 2.5}}", "submissions/accepted/Main.java": ""}

    assert parsed(content, "accepted/Main.java").steps[-1].process.limits.cpu_ms == 2500
    assert parsed(content, "accepted/echo.py").steps[-1].process.limits.cpu_ms == 2500


def test_cases_have_arguments_files_and_flags_of_their_own():
    content = {
        "problem.yaml": MODERN,
        "data/secret/1.yaml": "args: [a, b]\noutput_validator_args: [float_tolerance, '0.5']",
        "data/secret/1.files/data.txt": "data",
    }
    sample, secret = parsed(content, "accepted/echo.py").tests

    assert secret.process.argv == ("python3", "echo.py", "a", "b")
    assert {file.path: file.content for file in secret.process.files}["data.txt"] == b"data"
    assert (secret.compare.mode, secret.compare.absolute) == ("numbers", 0.5)
    assert (sample.compare.mode, sample.process.argv) == ("tokens", ("python3", "echo.py"))


def test_included_files_stand_beside_and_over_those_of_a_submission():
    content = {
        "problem.yaml": f"{MODERN}constants: {{n: 7}}",
        "include/default/all.txt": "{{n}}",
        "include/python3/helper.py": "theirs",
        "include/c/helper.h": "not this",
        "submissions/accepted/two/main.py": "import helper",
        "submissions/accepted/two/helper.py": "own",
    }
    first, _ = parsed(content, "accepted/two").steps

    told = {file.path: file.content for file in first.process.files}
    assert told == {"main.py": b"import helper", "helper.py": b"theirs", "all.txt": b"7"}


def test_what_is_longer_than_the_package_allows_is_refused():
    content = {"problem.yaml": "limits: {code: 1}", "submissions/accepted/echo.py": "#" * 1025}

    with pytest.raises(PackageError, match=r"echo.py has 1025 bytes; limits.code allows 1024"):
        parsed(content, "accepted/echo.py")


def test_what_is_longer_than_is_to_be_in_memory_is_refused(monkeypatch):
    monkeypatch.setattr(sources, "READ_BYTES_MAX", 10)
    with pytest.raises(PackageError, match="its files have 15 bytes; the maximum is 10"):
        parsed({}, "accepted/echo.py")
    monkeypatch.setattr(sources, "READ_BYTES_MAX", 20)
    with pytest.raises(PackageError, match="its files have 21 bytes; the maximum is 20"):
        parsed({"include/python3/long.txt": 21 * "x"}, "accepted/echo.py")


def test_flags_of_the_default_validator_are_read_before_anything_is_judged():
    with pytest.raises(PackageError, match="'wrong' is no flag"):
        package.read(packages.Package({**packages.ECHO, "problem.yaml": "validator_flags: wrong"}))


def test_given_sources_are_in_a_language_that_may_be_used():
    held = packages.Package({**packages.ECHO, "problem.yaml": f"{MODERN}languages: [c, python3]"})
    asked = sources.Source(language="python", source="print(1)")

    found = made(held).given(asked)
    assert found.run.argv == ["python3", "main.py"]
    with pytest.raises(spec.SpecError, match="'cpp' may not solve this problem; these may: c, python3"):
        made(held).given(sources.Source(language="cpp", source=""))


def test_given_sources_are_no_longer_than_the_package_allows():
    held = packages.Package({**packages.ECHO, "problem.yaml": "limits: {code: 1}"})

    with pytest.raises(spec.SpecError, match="source: 1025 bytes; the problem allows 1024"):
        made(held).given(sources.Source(language="python", source="#" * 1025))


def recipe(content: packages.Content) -> validator.Recipe:
    held = packages.Package({**packages.ECHO, **content})
    problem = package.read(held)
    return validator.recipe(made(held), problem.validator)


def test_a_validator_in_one_file_is_built_and_run():
    found = recipe({"problem.yaml": MODERN, "output_validator/check.py": "x"})

    assert found.build.argv[-4:] == ["python3", "-m", "py_compile", "check.py"]
    assert (found.run.argv, list(found.files)) == (["python3", "check.py"], ["check.py"])


def test_a_validator_may_be_in_a_directory_of_its_own():
    content = {
        "problem.yaml": MODERN,
        "output_validator/mine/check.cpp": "",
        "output_validator/mine/a/b.h": "",
    }
    found = recipe(content)

    assert found.build.argv[-1] == "check.cpp"
    assert found.build.files.keys() == {"check.cpp", "a/b.h"}


def test_a_legacy_validator_is_one_of_one():
    custom = {"problem.yaml": "validation: custom"}

    assert recipe({**custom, "output_validators/a/run": "x"}).run.argv == ["./run"]
    with pytest.raises(PackageError, match="has 0 programs"):
        recipe(custom)
    with pytest.raises(PackageError, match="has 2 programs"):
        recipe({**custom, "output_validators/a.py": "", "output_validators/b.py": ""})


def test_without_custom_validation_legacy_validators_are_not_asked():
    held = packages.Package({**packages.ECHO, "output_validators/a.py": ""})

    assert package.read(held).validator is None


def test_what_validators_may_use_is_the_packages_to_say_up_to_the_ceilings():
    limits = "limits: {validation_time: 7, validation_memory: 100, compilation_time: 100000}"
    found = recipe({"problem.yaml": f"validation: custom\n{limits}", "output_validators/a/build": "x"})

    assert (found.run.limits.cpu_ms, found.run.limits.wall_ms) == (7000, 14_000)
    assert found.run.limits.memory_bytes == 100 << 20
    assert found.build.limits.cpu_ms == CEILINGS.cpu_ms
    assert found.build.argv[:2] == ["sh", "-c"]
    assert found.build.argv[-1] == "./build"
    assert found.build.files["build"].executable


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def member(name: str, content: bytes = b"", **about: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in about.items():
        setattr(info, key, value)
    return info, content


def test_what_a_build_left_is_brought_home():
    found = validator.unpacked(
        packed(
            member("./run", b"#!", mode=0o755), member("./lib/x", b"x", mode=0o644), member("d", type=b"5")
        )
    )

    assert {name: (b64decode(one.base64), one.executable) for name, one in found.items()} == {
        "run": (b"#!", True),
        "lib/x": (b"x", False),
    }


def test_links_and_devices_of_a_build_are_left():
    links = [member("a", type=kind, linkname="/etc/passwd") for kind in (b"1", b"2", b"3", b"6")]

    assert validator.unpacked(packed(*links)) == {}


def test_paths_that_lead_out_are_refused_as_those_of_any_job():
    files = validator.unpacked(packed(member("../../etc/passwd", b"x")))
    checker = {"argv": ["a"], "files": msgspec.to_builtins(files), "convention": "icpc"}

    with pytest.raises(spec.SpecError, match=r"checker.files.*component"):
        parsed({}, "accepted/echo.py", checker)


def test_holes_of_a_build_are_not_filled():
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    content = b"1\n1099511627775\n1\n".ljust(512, b"\0") + b"x"
    hole = packed(member("./run", content, pax_headers=headers))

    with pytest.raises(PackageError, match="longer ones than there are bytes"):
        validator.unpacked(hole)


@pytest.mark.parametrize("content", [b"", b"x" * 511, b"\xff" * 1024])
def test_what_is_no_archive_is_told(content):
    with pytest.raises(PackageError, match="left nothing that can be read"):
        validator.unpacked(content)


def test_time_is_asked_for_within_the_ceilings():
    asked = job.limits(metadata.read(packages.Package(packages.ECHO)), CEILINGS.cpu_ms, RULES)

    assert asked.run == LimitsRequest(cpu_ms=CEILINGS.cpu_ms, wall_ms=CEILINGS.wall_ms)
    assert asked == Asked(run=asked.run)


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"checker": {"argv": ["check"], "convention": "icpc"}}, "checker.argv[1]"),
        ({}, "tests[0].checker_args"),
    ],
)
def test_arguments_for_a_checker_are_what_a_program_can_be_given(more, field):
    body = {"steps": [{"name": "run", "argv": ["a"]}], "tests": [{"checker_args": ["a\0b"]}], **more}

    with pytest.raises(spec.SpecError) as caught:
        steps.parse(msgspec.json.encode(body), RULES)
    assert caught.value.field == field
