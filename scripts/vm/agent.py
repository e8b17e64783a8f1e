"""Within the machine: run the job that was handed over, and answer.

/job                           what was handed over: job.json, checkout/, wheels/, and this file
/dev/virtio-ports/output       what the job writes, as it comes
/dev/virtio-ports/answer       in the end, a tar archive: answer.json, and out/, what the job left there
"""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import BinaryIO

JOB = Path("/job")
OUT = JOB / "out"
CHECKOUT = JOB / "checkout"
OUTPUT, ANSWER = "/dev/virtio-ports/output", "/dev/virtio-ports/answer"

UNITS = CHECKOUT / "deploy/systemd"
ACCOUNT = "jail"
SUBORDINATE = "200000-265535"

OWN = ("Type", "Exec", "Restart", "Watchdog", "Notify", "Environment", "Timeout", "Standard")
"""How the names begin that a unit says of its service, and not of what its processes may do."""

PIP = ("/opt/tests/bin/pip", "install", "-q", "--no-index", "--no-deps", "--only-binary=:all:")
ENVIRONMENT = {
    "PATH": "/opt/tests/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONDONTWRITEBYTECODE": "1",
    # Plugins that come with packages take long to load, and the tests here need none.
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
}


def settings(unit: str) -> list[str]:
    """The lines of a unit's [Service] that hold for any program in its place."""
    section, found = "", []
    for line in unit.replace("\\\n", " ").splitlines():
        if line.startswith("["):
            section = line.strip()
        elif section == "[Service]" and "=" in line and not line.startswith(("#", ";", *OWN)):
            found.append(line.strip())
    return found


def add_account() -> None:
    """The unit's user, with subordinate ids; it may leave things in OUT."""
    subprocess.run(["systemd-sysusers", UNITS / "jail.sysusers"], check=True)
    ids = (f"--add-subuids={SUBORDINATE}", f"--add-subgids={SUBORDINATE}")
    subprocess.run(["usermod", *ids, ACCOUNT], check=True)
    shutil.chown(OUT, ACCOUNT)


def command(job: dict) -> list[str]:
    """What runs the job's command: for the unit's user, in a unit with the shipped one's settings."""
    if job["user"] == "root":
        return job["command"]
    units = ("jail.service", *job["drop_ins"])
    lines = [line for unit in units for line in settings((UNITS / unit).read_text())]
    given = [f"-p{line}" for line in (*lines, f"ReadWritePaths={OUT}")]
    named = [f"-E{name}={value}" for name, value in ENVIRONMENT.items()]
    options = ("--quiet", "--wait", "--pipe", "--collect", "--unit=jail-tests", "--same-dir")
    return ["systemd-run", *options, *given, *named, "--", *job["command"]]


def run(words: list[str | Path], output: BinaryIO) -> int:
    """Run a command in the checkout; its exit status."""
    return subprocess.run(
        words,
        cwd=CHECKOUT,
        env={**ENVIRONMENT, "HOME": "/root"},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        check=False,
    ).returncode


def uptime() -> float:
    """Seconds since the machine was switched on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def work(output: BinaryIO) -> dict[str, float]:
    """Install the wheel and run the job; what to answer, which is what job.Answer is of."""
    booted = uptime()
    OUT.mkdir()
    job = json.loads((JOB / "job.json").read_text())
    if job["user"] != "root":
        add_account()
    status = run([*PIP, *JOB.glob("wheels/*.whl")], output)
    installed = uptime()
    output.write(f"up after {booted:.0f} s, jail installed in {installed - booted:.0f} s\n".encode())
    status = status or run(command(job), output)
    return {"status": status, "boot_s": booted, "install_s": installed - booted}


def main() -> None:
    """Do it, and answer."""
    with open(OUTPUT, "wb", buffering=0) as output:
        told = work(output)
    (JOB / "answer.json").write_text(json.dumps(told))
    with open(ANSWER, "wb", buffering=0) as answer:
        subprocess.run(["tar", "-c", "-C", JOB, "answer.json", "out"], check=True, stdout=answer)


if __name__ == "__main__":
    main()
