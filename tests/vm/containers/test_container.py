"""jail in a container, built and run as deploy/container has it: by podman, as root and as an ordinary user.

The machine has no network: the image is made from the machine's own Debian, where the packages of the
Containerfile are installed already, and from wheels. All else is as users have it: the options are those of
compose.yaml.
"""

import os
import subprocess
import tomllib
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
DEPLOY = CHECKOUT / "deploy" / "container"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["jail"]
CGROUPS = "unmask=/sys/fs/cgroup"
"""What Podman has in place of Docker's writable-cgroups=true, and systempaths=unconfined includes."""

IMAGE, BASE, NAME = "localhost/jail", "localhost/base", "jail"
SAVED = "/var/tmp/jail.tar"
USER = "someone"
KEY = "a key"
SECONDS = 600
"""How long one step may take on an emulated machine that shares its processors."""

WHEELS = "/opt/wheels"
NOT_IN_BASE = (
    # What is the machine's own, and what the Containerfile is to make itself.
    *(
        "boot/*",
        "dev/*",
        "home/*",
        "job",
        "lost+found",
        "opt/*",
        "proc/*",
        "run/*",
        "sys/*",
        "tmp/*",
        "var/tmp/*",
    ),
    *("etc/apt/sources.list", "etc/apt/sources.list.d/*", "usr/lib/modules", "var/lib/containers"),
    # Nothing of this is needed, and all of it would be read by an emulated processor, again and again.
    *("usr/bin/podman", "usr/lib/podman", "usr/sbin/runc", "usr/bin/crun", "usr/lib/udev", "usr/lib/systemd"),
    *("usr/lib/gcc/*/lto1", "usr/bin/*lto-dump*", "usr/lib/*san.so*", "usr/lib/python3*/config-*/*.a"),
    *("usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache/*/*", "var/lib/apt/lists/*"),
)


def security(without=None):
    """The security options of compose.yaml, as podman has them, but for one."""
    found = [option.replace("./", f"{DEPLOY}/") for option in COMPOSE["security_opt"]]
    found = [CGROUPS if option.startswith("${JAIL_CGROUPS") else option for option in found]
    return [f"--security-opt={option}" for option in found if not option.startswith(without or "no option")]


def options(without=None):
    """All that compose.yaml gives the container besides its port and its sizes, but for one."""
    added = [name for name in COMPOSE["cap_add"] if name != without]
    read_only = ["--read-only"] if COMPOSE["read_only"] else []
    dropped = [f"--cap-drop={name}" for name in COMPOSE["cap_drop"]]
    cgroups = f"--cgroupns={COMPOSE['cgroup']}"
    return [*security(without), cgroups, *dropped, f"--cap-add={','.join(added)}", *read_only]


class Container:
    """A container that is ready, or has ended; `said`, what it wrote until then.

    `process` is the engine's, and ends as the container does.
    """

    def __init__(self, engine, process, said):
        self.engine = engine
        self.process = process
        self.said = said

    @property
    def is_ready(self):
        return '"event":"ready"' in self.said

    def ask(self, path, **body):
        """The answer of its HTTP interface."""
        caller = {"Authorization": f"Bearer {KEY}"}
        address = f"http://127.0.0.1:8099{path}"
        with httpx.Client(headers=caller, timeout=SECONDS) as client:
            answer = client.post(address, json=body) if body else client.get(address)
        return answer.raise_for_status().json()

    def execute(self, *command):
        return self.engine.podman("exec", NAME, *command)


class Engine:
    """podman as one user; `prefix` is what makes a command that user's."""

    def __init__(self, *prefix):
        self.prefix = prefix

    def podman(self, *arguments, status=0):
        """What it wrote, errors included."""
        done = subprocess.run(
            [*self.prefix, "podman", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
            cwd="/tmp",
        )
        assert done.returncode == status, done.stdout
        return done.stdout

    @contextmanager
    def run(self, *arguments, command=()):
        """A container with those options, and no more after it."""
        key = f"--env=JAIL_KEYS_SHA256={sha256(KEY.encode()).hexdigest()}"
        process = subprocess.Popen(
            [*self.prefix, "podman", "run", "--rm", f"--name={NAME}", key, *arguments, IMAGE, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/tmp",
        )
        said = ""
        with process:
            try:
                for line in process.stdout:
                    said += line
                    if '"event":"ready"' in line:
                        break
                yield Container(self, process, said)
            finally:
                self.podman("rm", "--force", "--ignore", "--time=0", NAME)


ROOTFUL = Engine()
# podman's own processes live on when the one that started them has ended.
ROOTLESS = Engine(
    *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--user", "--machine", f"{USER}@.host"),
    *("-pKillMode=process", "-pWorkingDirectory=/tmp", "--"),
)


def run(*command, **more):
    subprocess.run(command, check=True, timeout=SECONDS, **more)


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """Build it as root, and hand it to an ordinary user."""
    place = tmp_path_factory.mktemp("image")
    base, settings = place / "base.tar", place / "pip.conf"
    run(
        "tar",
        "-C",
        "/",
        "--one-file-system",
        *(f"--exclude=./{name}" for name in NOT_IN_BASE),
        "-cf",
        base,
        ".",
    )
    ROOTFUL.podman("import", "--quiet", str(base), BASE)
    base.unlink()
    settings.write_text(f"[global]\nno-index = true\nfind-links = {WHEELS}\n")
    mounts = (f"--volume={settings}:/etc/pip.conf:ro", f"--volume={WHEELS}:{WHEELS}:ro")
    containerfile = f"--file={DEPLOY / 'Containerfile'}"
    ROOTFUL.podman(
        *("build", "--quiet", "--layers=false", "--network=none", f"--build-arg=BASE={BASE}", *mounts),
        *(f"--tag={IMAGE}", containerfile, str(CHECKOUT)),
    )


@pytest.fixture(scope="session")
def handed_over(image):
    """An ordinary user of a stock system, who has the image too."""
    run("useradd", "--create-home", "--uid=1234", USER)
    run("loginctl", "enable-linger", USER)
    delegate = Path("/etc/systemd/system/user@.service.d/delegate.conf")
    delegate.parent.mkdir(exist_ok=True)
    delegate.write_text((CHECKOUT / "deploy/systemd/user-delegate.conf").read_text())
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "user@1234.service")
    ROOTFUL.podman("save", "--quiet", "--output", SAVED, IMAGE)
    os.chmod(SAVED, 0o644)
    ROOTLESS.podman("load", "--quiet", "--input", SAVED)
    os.unlink(SAVED)


def test_no_compiler_nor_pip_comes_with_it():
    text = (DEPLOY / "Containerfile").read_text()
    _, last = text.split("FROM $BASE\n")
    assert "gcc" not in last
    assert "pip" not in last


def test_with_runc_it_needs_no_root_at_all(image):
    with ROOTFUL.run(*options("CHOWN"), "--runtime=runc", "--user=jail") as container:
        assert container.is_ready, container.said
        status = container.execute("cat", "/proc/1/status")
        assert "CapEff:\t0000000000000000\n" in status
        assert "CapAmb:\t0000000000000000\n" in status


MISSING = {
    "seccomp=": "seccomp=deploy/container/seccomp.json",
    "CHOWN": "--cap-add CHOWN",
    "SETUID": "CAP_SETUID",
    "SETGID": "CAP_SETGID",
    "apparmor=": "apparmor=unconfined",
}


@pytest.mark.parametrize("option", MISSING)
def test_without_an_option_it_is_named(image, option):
    if option == "apparmor=" and not Path("/sys/kernel/security/apparmor/profiles").exists():
        pytest.skip("AppArmor is off in this kernel")
    with ROOTFUL.run(*options(option)) as container:
        assert not container.is_ready
        assert MISSING[option] in container.said


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        # As it is without any.
        ([f"--security-opt={CGROUPS}"], "systempaths=unconfined"),
        (["--security-opt=unmask=/proc/sys"], "unmask=/sys/fs/cgroup"),
    ],
)
def test_what_is_covered_is_named(image, instead, said):
    given = [option for option in options("systempaths") if CGROUPS not in option]
    with ROOTFUL.run(*given, *instead) as container:
        assert not container.is_ready
        assert said in container.said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--security-opt=no-new-privileges"], "no-new-privileges"),
        (["--uidmap=0:300000:30000", "--gidmap=0:300000:30000"], "a range that the container has"),
        (["--cgroupns=host"], "--cgroupns=private"),
        (["--user=jail"], "as its root"),
    ],
)
def test_an_option_too_many_is_named(image, more, said):
    with ROOTFUL.run(*options(), *more) as container:
        assert not container.is_ready
        assert said in container.said


def test_without_a_key_it_does_not_listen(image):
    with ROOTFUL.run(*options(), "--env=JAIL_KEYS_SHA256=") as container:
        assert not container.is_ready
        assert "keys_sha256" in container.said


def test_the_wheels_to_build_it_are_there():
    wanted = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["build-system"]["requires"]
    names = [path.name.lower().replace("-", "_") for path in Path(WHEELS).iterdir()]
    for requirement in wanted:
        name = requirement.partition(">")[0].replace("-", "_")
        assert any(found.startswith(f"{name}_") for found in names)


@pytest.fixture(params=["rootful", "rootless"])
def engine(request):
    request.getfixturevalue("image" if request.param == "rootful" else "handed_over")
    return ROOTFUL if request.param == "rootful" else ROOTLESS


SIZES = ("--memory=1g", "--cpus=1.5")
PORT = f"--publish={COMPOSE['ports'][0]}"


def test_jobs_run_and_keep_their_limits(engine):
    with engine.run(*options(), *SIZES, PORT) as container:
        assert container.is_ready, container.said
        able = container.ask("/v1/capabilities")
        assert able["cgroup"] == "v2"
        assert able["degraded"] == []
        # Of what the container has, not of what the machine has.
        assert able["slots"] == 2
        assert able["memory_bytes"] == (3 << 30) // 4

        done = container.ask("/v1/run", argv=["python3", "-c", "print(6 * 7)"])
        assert (done["status"], done["stdout"]["text"]) == ("ok", "42\n")

        limits = {"memory_bytes": 64 << 20}
        hog = container.ask("/v1/run", argv=["python3", "-c", "bytearray(256 << 20)"], limits=limits)
        assert (hog["status"], hog["limit"]) == ("memory_limit", "memory_bytes")

        status = dict(
            line.split(":\t", 1) for line in container.execute("cat", "/proc/1/status").splitlines()
        )
        assert set(status["Uid"].split()) == {"1000"}
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        # What is asked after by an engine's health check is asked in the container.
        assert container.execute("id", "-u").strip() == "0"


def test_it_stops_by_itself_when_it_is_told_to(engine):
    with engine.run(*options()) as container:
        assert container.is_ready, container.said
        engine.podman("stop", "--time=60", NAME)
        # Killed, it would say 137, and leave its sandboxes to be swept.
        assert container.process.wait(SECONDS) == 0
