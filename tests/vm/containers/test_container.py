"""jail in a container, built and run as deploy/container has it, by podman as root and as an ordinary user.

The machine has no network: the image is made from the machine's own Debian instead of an engine's, with the
packages that the Containerfile installs there already, and from wheels. Everything else is as users have it.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).parents[3]
DEPLOY = CHECKOUT / "deploy" / "container"
IMAGE, BASE = "localhost/jail", "localhost/base"
KEY = "a key"
CALLER = {"Authorization": f"Bearer {KEY}"}
SECONDS = 120
"""How long one step of an emulated machine may take."""

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["jail"]
CGROUPS = "unmask=/sys/fs/cgroup"
"""What podman has in place of Docker's writable-cgroups=true."""

NO_SYSTEM = ("boot", "dev", "job", "lost+found", "opt", "proc", "run", "sys", "tmp", "usr/lib/modules")
NO_SYSTEM += (
    "var/lib/containers",
    "home",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d",
    "usr/bin/podman",
)

AS_JAIL = ("systemd-run", "-q", "--wait", "--pipe", "--collect", "--user", "-M", "jail@.host")
AS_JAIL += ("-p", "KillMode=process", "-p", "WorkingDirectory=/tmp", "--")


def security(without=""):
    """The options of compose.yaml, as podman has them, but for those that begin with a text."""
    found = [option.replace("./", f"{DEPLOY}/") for option in COMPOSE["security_opt"]]
    found = [CGROUPS if option.startswith("${") else option for option in found]
    return [f"--security-opt={option}" for option in found if not without or not option.startswith(without)]


def options(without=""):
    """All that compose.yaml gives the container besides its port."""
    added = [name for name in COMPOSE["cap_add"] if name != without]
    return [
        *security(without),
        f"--cgroupns={COMPOSE['cgroup']}",
        "--cap-drop=ALL",
        f"--cap-add={','.join(added)}",
        "--read-only",
    ]


class Engine:
    """podman, as root or as the user jail."""

    def __init__(self, name, prefix):
        self.name = name
        self._prefix = prefix

    def __repr__(self):
        return self.name

    def podman(self, *arguments, check=True, **more):
        """Run it, and return what it wrote, errors included."""
        done = subprocess.run(
            [*self._prefix, "podman", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=10 * SECONDS,
            check=False,
            cwd="/tmp",
            **more,
        )
        text = done.stdout.decode() if isinstance(done.stdout, bytes) else done.stdout
        assert not check or not done.returncode, text
        return text

    def said(self, name):
        """What the container has logged so far."""
        return self.podman("logs", name)

    def state(self, name):
        return json.loads(self.podman("inspect", "--format", "{{json .State}}", name))


ENGINES = [Engine("rootful", ()), Engine("rootless", AS_JAIL)]


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    """Build it as root, from the machine's own system, and hand it to the ordinary user."""
    rootful, rootless = ENGINES
    place = tmp_path_factory.mktemp("image")
    excluded = [f"--exclude=./{name}" for name in NO_SYSTEM]
    with (place / "base.tar").open("wb") as file:
        subprocess.run(["tar", "-C", "/", "--one-file-system", *excluded, "-c", "."], stdout=file, check=True)
    rootful.podman("import", "-q", str(place / "base.tar"), BASE)
    (place / "base.tar").unlink()
    (place / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /opt/wheels\n")
    mounts = [f"--volume={place}/pip.conf:/etc/pip.conf:ro", "--volume=/opt/wheels:/opt/wheels:ro"]
    containerfile = f"--file={DEPLOY}/Containerfile"
    rootful.podman(
        "build",
        "-q",
        "--network=none",
        f"--build-arg=BASE={BASE}",
        *mounts,
        f"--tag={IMAGE}",
        containerfile,
        CHECKOUT,
    )
    rootful.podman("save", "-q", "-o", "/var/tmp/jail.tar", IMAGE)
    os.chmod("/var/tmp/jail.tar", 0o644)
    rootless.podman("load", "-q", "-i", "/var/tmp/jail.tar")
    return IMAGE
