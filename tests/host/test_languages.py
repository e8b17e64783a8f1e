"""Programs of each language run under the default policy, compilers too."""

import pytest

PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/go/bin"
HELLO_C = '#include <stdio.h>\nint main(void) { puts("hello"); }\n'
HELLO_CPP = '#include <iostream>\nint main() { std::cout << "hello" << std::endl; }\n'
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
    "javac": ("javac Hello.java && java Hello", {"Hello.java": HELLO_JAVA}),
    "go": ("go build hello.go && ./hello 2>&1", {"hello.go": HELLO_GO}),
    "gcc": ("gcc -O2 -o hello hello.c && ./hello", {"hello.c": HELLO_C}),
    "g++": ("g++ -O2 -o hello hello.cc && ./hello", {"hello.cc": HELLO_CPP}),
    "rustc": ("rustc -O hello.rs && ./hello", {"hello.rs": HELLO_RUST}),
    "bash": ("bash -c 'cat < <(echo hello)'", {}),
    "perl": ("perl -e 'print `echo hello`'", {}),
}


@pytest.mark.parametrize("language", JOBS)
def test_a_program_of_this_language_runs(jail, language):
    found = jail.sh(f"command -v {language}", env={"PATH": PATH})
    if found["status"] != "ok":
        pytest.skip(f"the host has no {language}")
    script, files = JOBS[language]
    result = jail.sh(
        script,
        files=files,
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
    )
    assert (result["stdout"]["text"], result["status"]) == ("hello\n", "ok"), result
