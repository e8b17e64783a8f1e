"""Programs of each language: under the default policy with their compilers, under run without."""

import pytest

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/go/bin"
HELLO_JAVA = 'class Hello { public static void main(String[] a) { System.out.println("hello"); } }\n'
# Without fmt: the job has no cache, so that every package imported is compiled anew.
HELLO_GO = """package main

func main() {
	done := make(chan bool)
	go func() { println("hello"); done <- true }()
	<-done
}
"""
HELLO_RUST = 'fn main() { std::thread::spawn(|| println!("hello")).join().unwrap(); }\n'

JOBS = {
    "python3": ("python3 -c 'import threading, json, subprocess; print(\"hello\")'", {}),
    "node": ("node hello.js", {"hello.js": "setTimeout(() => console.log('hello'), 1)"}),
    "java": ("java Hello.java", {"Hello.java": HELLO_JAVA}),
    "bash": ("bash -c 'cat < <(echo hello)'", {}),
    "perl": ("perl -e 'print `echo hello`'", {}),
}

WORK_C = """#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void *nothing(void *argument) { return argument; }

int main(void) {
	pthread_t thread;
	FILE *file = fopen("data", "w+");
	if (!file || fputs("data", file) < 0 || fclose(file) || remove("data")) return 1;
	if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL)) return 2;
	if (!fork()) _exit(0);
	if (wait(NULL) < 0 || system("true")) return 3;
	puts("hello");
}
"""
WORK_CPP = """#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <iostream>
#include <thread>

int main() {
	auto answer = std::async(std::launch::async, [] { return 42; });
	std::ofstream("data") << answer.get();
	std::filesystem::copy_file("data", "copy");
	std::this_thread::sleep_for(std::chrono::milliseconds(1));
	std::cout << "hello" << std::endl;
}
"""
WORK_PYTHON = """
import asyncio, multiprocessing, pathlib, shutil, socket, subprocess, threading

async def call():
    process = await asyncio.create_subprocess_exec("true")
    await asyncio.gather(process.wait(), asyncio.to_thread(len, ""))

thread = threading.Thread(target=print, args=("hello",))
thread.start()
thread.join()
subprocess.run("true | true", shell=True, check=True, capture_output=True)
asyncio.run(call())
with multiprocessing.Pool(2) as pool, multiprocessing.Manager() as manager:
    assert pool.map(abs, [-1, 2]) == list(manager.list([1, 2]))
pathlib.Path("a").write_text("a")
shutil.copy2("a", "b")
"""
WORK_NODE = """
const { Worker } = require('worker_threads');
const { execFileSync, spawn } = require('child_process');
require('fs').copyFileSync('hello.js', 'copy.js');
execFileSync('true');
spawn('cat', { stdio: 'pipe' }).on('close', () => {
    new Worker('1', { eval: true }).on('exit', () => console.log('hello'));
}).stdin.end('x');
"""
WORK_JAVA = """import java.nio.file.*;
import java.util.stream.IntStream;

class Hello {
    public static void main(String[] arguments) throws Exception {
        IntStream.range(0, 1000).parallel().sum();
        Files.copy(Files.writeString(Path.of("a"), "a"), Path.of("b"));
        new ProcessBuilder("true").start().waitFor();
        System.gc();
        System.out.println("hello");
    }
}
"""

WORKS = {
    "gcc": ("gcc -O2 -pthread -o hello hello.c", {"hello.c": WORK_C}, ["hello"], "./hello"),
    "g++": ("g++ -O2 -std=c++17 -pthread -o hello hello.cc", {"hello.cc": WORK_CPP}, ["hello"], "./hello"),
    "go": ("go build hello.go", {"hello.go": HELLO_GO}, ["hello"], "./hello 2>&1"),
    "rustc": ("rustc -O hello.rs", {"hello.rs": HELLO_RUST}, ["hello"], "./hello"),
    "javac": ("javac Hello.java", {"Hello.java": WORK_JAVA}, ["Hello.class"], "java -cp . Hello"),
    "python3": ("true", {"hello.py": WORK_PYTHON}, ["hello.py"], "python3 hello.py"),
    "node": ("true", {"hello.js": WORK_NODE}, ["hello.js"], "node hello.js"),
}
"""How each is compiled, of what, into which files, and how it runs then."""


@pytest.fixture
def shell(jail):
    """Run a script in a job with room for a compiler, where the host has that command."""

    def run(command, script, **body):
        if jail.sh(f"command -v {command}", env={"PATH": PATH})["status"] != "ok":
            pytest.skip(f"the host has no {command}")
        return jail.sh(
            script,
            env={"PATH": PATH, "GOCACHE": "/tmp/go", "GOFLAGS": "-p=2", "GOTELEMETRY": "off"},
            limits={
                "cpu_ms": 120_000,
                "wall_ms": 120_000,
                "memory_bytes": 2 << 30,
                "cpus": 2,
                "pids": 256,
                "disk_bytes": 512 << 20,
                "files": 20_000,
                "open_files": 1024,
            },
            **body,
        )

    return run


@pytest.mark.parametrize("language", JOBS)
def test_a_program_of_this_language_runs(shell, language):
    script, files = JOBS[language]
    result = shell(language, script, files=files)
    assert (result["stdout"]["text"], result["status"]) == ("hello\n", "ok"), result


def test_python_compiles_no_module_of_its_own_anew(jail):
    result = jail.run({"argv": ["python3", "-v", "-c", "import asyncio, json, subprocess"]})
    assert result["status"] == "ok"
    assert "matches" in result["stderr"]["text"]
    assert "stale" not in result["stderr"]["text"]
    assert "could not create" not in result["stderr"]["text"]


@pytest.mark.parametrize("language", WORKS)
def test_a_program_compiled_under_default_runs_under_every_policy(shell, language):
    build, files, products, script = WORKS[language]
    built = shell(language, build, files=files, outputs=products)
    assert built["status"] == "ok", built
    program = {
        name: {"base64": content["base64"], "executable": True} for name, content in built["outputs"].items()
    }
    for policy in ("default", "run"):
        result = shell(language, script, files=program, policy=policy)
        assert (result["stdout"]["text"], result["status"]) == ("hello\n", "ok"), (policy, result)
        assert result["stderr"]["text"] == ""
