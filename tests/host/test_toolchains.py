"""Languages in real sandboxes: what the host has of each, and that it works as it is shipped."""

import asyncio
import json
import subprocess
import sys

import msgspec
import pytest

from jail.languages import definitions
from jail.languages.expansion import Source, expand, made
from jail.languages.requests import LanguageRequest, validate
from jail.languages.toolchains import Toolchains
from jail.spec import SpecError
from jail.steps.spec import TestRequest

SHIPPED = definitions.load()


@pytest.fixture(scope="module")
def toolchains(jail):
    return Toolchains(jail.engine, SHIPPED)


@pytest.fixture
def found(jail, toolchains):
    """Look a language up, which the host has."""

    def find(name):
        language = SHIPPED.find(name)
        if (lack := jail.do(toolchains.find(language, "host"))).problem:
            pytest.skip(f"the host has no {name}: {lack.problem}")
        return language

    return find


@pytest.fixture
def build(jail, found):
    """Compile a source as its language says; what comes back is the result, and the files of the run."""

    def compile_(name, source, **fields):
        language = found(name).language
        asked = msgspec.convert({"language": name, "source": source, **fields}, Source)
        expansion = expand(asked, SHIPPED, jail.engine.rules)
        source_name = fields.get("source_name", language.source)
        body = msgspec.to_builtins(expansion.compile) | {
            "files": msgspec.to_builtins(expansion.files),
            "outputs": [f"{path}?" for path in made(language, source_name)],
        }
        result = jail.run(body)
        files = {
            path: {"base64": output["base64"], "executable": bool(output["mode"] & 0o111)}
            for path, output in result["outputs"].items()
        }
        return result, msgspec.to_builtins(expansion.run) | {"files": files}

    return compile_


@pytest.mark.parametrize("name", SHIPPED.languages)
def test_the_smoke_program_works_as_it_is_shipped(jail, toolchains, found, name):
    told = jail.do(toolchains.tell(found(name), "host"))
    assert told.available, told.reason
    assert told.run.wall_ms > 0
    assert 0 < told.run.memory_peak_bytes < 64 << 20
    assert (told.compile is None) == (SHIPPED.languages[name].compile is None)


WORKS = {
    "pypy": """
import multiprocessing, subprocess, threading
with multiprocessing.Pool(2) as pool:
    assert pool.map(abs, [-1, 2]) == [1, 2]
thread = threading.Thread(target=subprocess.run, args=(["echo", "done"],))
thread.start()
thread.join()
""",
    "csharp": """
using System; using System.IO; using System.Threading; using System.Threading.Tasks;
class Program {
    static void Main() {
        Parallel.For(0, 99, each => GC.Collect());
        var thread = new Thread(() => File.WriteAllText("a", Task.Run(() => "done").Result));
        thread.Start();
        thread.Join();
        Console.WriteLine(File.ReadAllText("a"));
    }
}
""",
    "ruby": "Process.wait(fork { Thread.new { sleep 0.001 }.join; GC.start }); puts `echo done`",
    "php": '<?php $a = array_fill(0, 9000000, 1); if (ctype_upper("A")) echo `echo done`;',
    "perl": "use Time::HiRes 'sleep'; $p = fork or exit; waitpid $p, 0; sleep .001; print `echo done`",
    "lua": 'print(io.popen("echo done"):read("a"):sub(1, -2))',
    "haskell": """{-# OPTIONS_GHC -threaded -with-rtsopts=-N2 #-}
import Control.Concurrent
main = do
  done <- newEmptyMVar
  forkIO (threadDelay 1000 >> putMVar done "done")
  takeMVar done >>= putStrLn
""",
    "ocaml": 'let () = Gc.full_major (); if Sys.command "true" = 0 then print_endline "done"',
    "pascal": "{$mode objfpc}\nuses sysutils, classes;\nbegin\n  with TStringList.Create do Add('');\n"
    "  sleep(1);\n  writeln('done');\nend.",
    "bash": "cat < <(sleep 0.001 | echo done) & wait",
    "sql": "attach 'a.db' as a; begin; create table a.t (x); insert into a.t values ('done'); commit;\n"
    "select * from a.t;",
}
"""Programs that do more than most, and then say so. Those of other languages are in test_languages.py."""


@pytest.mark.parametrize("name", WORKS)
def test_what_programs_of_a_language_do_is_allowed_by_its_policy(jail, found, name):
    found(name)
    request = LanguageRequest(language=name, source=WORKS[name], tests=[TestRequest(expected="done\n")])

    async def one():
        return await jail.engine.submit(validate(request, SHIPPED, jail.engine.rules)).task

    result = jail.do(one())
    told = [part.stderr.text for part in (*result.steps.values(), *result.tests) if part.stderr]
    assert result.status == "ok", told


@pytest.mark.parametrize("name", sorted({*SHIPPED.languages} - {"sql"}))
def test_what_is_no_program_is_a_compile_error(jail, found, name):
    found(name)
    request = LanguageRequest(language=name, source="<?php (((\n", tests=[TestRequest()])

    async def one():
        return await jail.engine.submit(validate(request, SHIPPED, jail.engine.rules)).task

    assert jail.do(one()).status == "compile_error"


@pytest.mark.parametrize("variant", ["c99", "c11", "c17", "cpp11", "cpp14", "cpp17", "cpp20", "cpp23"])
def test_the_compiler_takes_every_standard_that_is_offered(jail, build, variant):
    meant = {"c99": 199901, "c11": 201112, "c17": 201710, "cpp11": 201103, "cpp14": 201402, "cpp17": 201703}
    macro = "__cplusplus" if variant.startswith("cpp") else "__STDC_VERSION__"
    source = f'#include <stdio.h>\nint main(void) {{ printf("%ld", {macro}); }}'.replace("(void)", "()")
    built, run = build(variant, source)
    assert built["status"] == "ok", built
    told = int(jail.run(run)["stdout"]["text"])
    assert told == meant.get(variant, told)
    assert told > {"cpp20": 201703, "cpp23": 202002}.get(variant, 0)


def test_a_public_class_runs_from_the_file_of_its_name(jail, build):
    source = 'public class Solver { public static void main(String[] a) { System.out.print("here"); } }'
    built, run = build("java", source, source_name="Solver.java")
    assert built["status"] == "ok", built
    assert jail.run(run)["stdout"]["text"] == "here"
    assert "should be declared in a file named Solver.java" in build("java", source)[0]["stderr"]["text"]


def test_a_java_program_has_all_of_its_memory_for_its_heap(jail, build):
    source = """
    public class Main {
        public static void main(String[] arguments) {
            byte[][] kept = new byte[200][];
            for (int i = 0; i < kept.length; i++) kept[i] = new byte[1 << 20];
            System.out.print(Runtime.getRuntime().maxMemory() >> 20);
        }
    }
    """
    _, run = build("java", source, limits={"memory_bytes": 256 << 20})
    result = jail.run(run)
    assert result["status"] == "ok", result
    # The collector keeps one of two halves free in which objects survive.
    assert 240 <= int(result["stdout"]["text"]) <= 256


def test_a_program_is_given_its_arguments_and_its_own_extension_decides(jail, found):
    found("javascript")
    source = Source(
        language="javascript",
        source="import fs from 'fs'; console.log(process.argv.slice(2).join());",
        source_name="main.mjs",
        args=["a", "b c"],
    )
    expansion = expand(source, SHIPPED, jail.engine.rules)
    result = jail.run(msgspec.to_builtins(expansion.run) | {"files": msgspec.to_builtins(expansion.files)})
    assert result["stdout"]["text"] == "a,b c\n"


def test_a_tool_that_the_image_lacks_is_not_offered(jail):
    lacking = msgspec.structs.replace(SHIPPED.languages["c"], version=("no-such-compiler", "--version"))
    toolchains = Toolchains(jail.engine, msgspec.structs.replace(SHIPPED, languages={"c": lacking}))
    told = jail.do(toolchains.tell(toolchains.definitions.find("c"), "host"))
    assert (told.available, told.version, told.run) == (False, None, None)
    assert told.reason == "there is no no-such-compiler"
    with pytest.raises(SpecError, match="'c' is not offered in 'host': there is no no-such-compiler"):
        jail.do(toolchains.require("c", "host"))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"smoke": "print('something else')"}, "its smoke program: wrong_answer"),
        ({"smoke": "import sys; sys.exit('in vain')"}, "its smoke program: nonzero_exit: in vain"),
        ({"version": ("false",)}, "false: nonzero_exit"),
    ],
)
def test_a_tool_that_does_not_work_is_not_offered(jail, changed, reason):
    broken = msgspec.structs.replace(SHIPPED.languages["python"], **changed)
    toolchains = Toolchains(jail.engine, msgspec.structs.replace(SHIPPED, languages={"python": broken}))
    told = jail.do(toolchains.tell(toolchains.definitions.find("python"), "host"))
    assert (told.available, told.reason) == (False, reason)


def test_an_image_that_is_not_there_is_refused(jail, toolchains):
    with pytest.raises(SpecError, match="image: 'nowhere' is not offered"):
        jail.do(toolchains.require("c", "nowhere"))


def test_a_tool_is_asked_once(jail):
    toolchains = Toolchains(jail.engine, SHIPPED)
    bash = SHIPPED.find("bash")

    async def many():
        return await asyncio.gather(*(toolchains.find(bash, "host") for _ in range(20)))

    submitted = []
    submit = jail.engine.submit
    jail.engine.submit = lambda job: submitted.append(job) or submit(job)
    try:
        answers = jail.do(many())
        jail.do(toolchains.find(bash, "host"))
    finally:
        del jail.engine.submit
    assert len(set(answers)) == len(submitted) == 1


def test_doctor_tries_every_language_and_tells_what_came_of_it(environment, state, tmp_path):
    python = SHIPPED.languages["python"]
    lacking = msgspec.structs.replace(python, version=("no-such-python",))
    broken = msgspec.structs.replace(python, smoke="1 / 0")
    status, told = _doctor(environment, state, tmp_path, {"python": python, "lacking": lacking})
    assert status == 0
    assert [(each["name"], each["available"]) for each in told] == [("python", True), ("lacking", False)]
    assert told[0]["version"].startswith("3.")
    status, told = _doctor(environment, state, tmp_path, {"broken": broken})
    assert status == 1
    assert told[0]["reason"].startswith("its smoke program: nonzero_exit: Traceback")


def _doctor(environment, state, tmp_path, languages):
    # As JSON, which is TOML as far as this goes, but for the outermost braces.
    told = msgspec.to_builtins(msgspec.structs.replace(SHIPPED, languages=languages))
    path = state / "languages.toml"
    path.write_text("\n".join(f"{name} = {_toml(value)}" for name, value in told.items()))
    path.chmod(0o644)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jail", "doctor", "--languages", "--json"],
        env={**environment, "JAIL_STATE": str(state), "JAIL_LANGUAGES": str(path)},
        capture_output=True,
        text=True,
        cwd="/",
        timeout=100,
        check=False,
    )
    return done.returncode, json.loads(done.stdout)


def _toml(value):
    if isinstance(value, dict):
        pairs = (f"{name} = {_toml(each)}" for name, each in value.items() if each is not None)
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
