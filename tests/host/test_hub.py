"""What the keeper makes of a fork that is to be the network hub or the program of images.

Shown by a program in their place.
"""

import asyncio
import errno
import json
import os
import signal
import socket
import sys
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest
from jail._protocol import lib

import jail
from jail import sandbox
from jail.errors import HostError, SandboxError
from jail.keeper import Keeper, module_command
from jail.namespace import OuterNamespace
from jail.sandbox import HUB
from jail.stock import HOST
from jail.supervisor import MOUNT_PLACE, Supervisor

PROGRAM = Path(__file__).parent / "programs" / "hub.py"

COMMAND = [sys.executable, "-I", "-c", PROGRAM.read_text(), "a word"]

SECONDS = 60


class Hub:
    """One that was started: our end of its socket, and what the keeper says of it."""

    def __init__(self, keeper, kind="hub"):
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.kept = getattr(keeper, f"start_{kind}")(theirs)
        self.socket.setblocking(False)

    async def hear(self):
        """The next packet; empty, when it has ended."""
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 1 << 20), SECONDS)

    async def about(self):
        return json.loads(await self.hear())

    async def ended(self):
        return await asyncio.wait_for(asyncio.shield(self.kept.ended), SECONDS)


@pytest.fixture
def with_keeper(state):
    """Run a scene, which takes a keeper and the outer namespace's descriptor; nothing of it stays."""

    @asynccontextmanager
    async def kept(command, images):
        (state / MOUNT_PLACE).mkdir(exist_ok=True)
        with ExitStack() as stack:
            namespace = OuterNamespace()
            stack.callback(namespace.close)
            keeper = Keeper(namespace, state, (MOUNT_PLACE, "/usr"), command, images)
            stack.callback(keeper.close)
            yield keeper, namespace

    def run(scene, command=COMMAND, images=()):
        async def within():
            async with kept(command, images) as (keeper, namespace):
                return await scene(keeper, namespace)

        return asyncio.run(within())

    return run


@pytest.fixture
def about(with_keeper):
    async def scene(keeper, namespace):
        hub = Hub(keeper)
        with closing(hub.socket):
            user = os.stat(namespace.descriptor).st_ino
            return {**await hub.about(), "outer": f"user:[{user}]"}

    return with_keeper(scene)


def test_it_is_root_of_the_outer_namespace_and_of_nothing_else(about):
    assert about["ids"] == [[0, 0, 0], [0, 0, 0], []]
    for told, own in zip(about["maps"], (os.getuid(), os.getgid()), strict=True):
        assert told[:3] == ["0", str(own), "1"]
    assert about["namespaces"]["user"] == about["outer"] != os.readlink("/proc/self/ns/user")
    assert int(about["capabilities"], 16).bit_count() > 30
    assert about["no_new_privs"] == "1"


@pytest.fixture
def about_images(with_keeper):
    async def scene(keeper, namespace):
        program = Hub(keeper, "images")
        with closing(program.socket):
            outer = f"user:[{os.stat(namespace.descriptor).st_ino}]"
            return {**await program.about(), "outer": outer}

    return with_keeper(scene, command=(), images=COMMAND)


def test_the_program_of_images_is_the_services_user_in_the_hosts_namespaces(about_images):
    assert about_images["ids"][:2] == [list(os.getresuid()), list(os.getresgid())]
    assert int(about_images["capabilities"], 16) == 0
    for kind, name in about_images["namespaces"].items():
        assert name == os.readlink(f"/proc/self/ns/{kind}")


def test_the_program_of_images_has_its_socket_and_the_outer_namespace_and_nothing_else(about_images):
    assert about_images["descriptors"].keys() == {"0", "1", "2"}
    assert about_images["descriptors"]["0"].startswith("socket:")
    assert about_images["descriptors"]["1"] == about_images["outer"]
    assert about_images["environment"] == []
    assert about_images["directory"] == "/"


def test_the_program_of_images_begins_as_the_hub_does(about_images):
    assert about_images["no_new_privs"] == "1"
    assert int(about_images["blocked"], 16) == 0
    assert about_images["session"]
    assert about_images["deadly"] == signal.SIGKILL
    assert about_images["arguments"] == COMMAND


@pytest.mark.parametrize("kind", ["hub", "images"])
def test_what_has_no_command_cannot_be_started(with_keeper, kind):
    async def scene(keeper, _namespace):
        program = Hub(keeper, kind)
        with closing(program.socket):
            await asyncio.wait_for(keeper.lost.wait(), SECONDS)
            return await program.hear()

    assert with_keeper(scene, command=()) == b""


@pytest.mark.parametrize("kind", ["net", "mnt", "pid", "ipc", "uts", "cgroup"])
def test_its_other_namespaces_are_the_hosts(about, kind):
    assert about["namespaces"][kind] == os.readlink(f"/proc/self/ns/{kind}")


def test_it_has_its_socket_and_no_other_descriptor(about):
    assert about["descriptors"].keys() == {"0", "1", "2"}
    assert about["descriptors"]["0"].startswith("socket:")
    assert about["descriptors"]["1"] == "/dev/null"
    assert about["descriptors"]["2"] == os.readlink("/proc/self/fd/2")


def test_it_has_no_environment(about):
    assert about["environment"] == []
    assert about["directory"] == "/"


def test_it_begins_with_no_signal_blocked_in_a_session_of_its_own(about):
    assert int(about["blocked"], 16) == 0
    assert about["session"]
    assert about["deadly"] == signal.SIGKILL


def test_its_command_is_what_the_keeper_was_told(about):
    assert about["arguments"] == COMMAND


def test_no_job_sees_the_command(settled):
    shown = settled.sh("cat /proc/1/cmdline; cat /proc/1/environ")["stdout"]["text"]
    assert shown.startswith("jail-supervisor\0keep\0")
    assert "python" not in shown
    assert HUB not in shown


def test_the_end_of_its_socket_tells_it_to_stop_and_its_end_is_told(with_keeper):
    async def scene(keeper, _namespace):
        hub = Hub(keeper)
        await hub.about()
        assert await hub.kept.started > 0
        hub.socket.close()
        return await hub.ended()

    assert with_keeper(scene) == 0


@pytest.mark.parametrize(
    ("words", "status"),
    [("raise SystemExit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)],
)
def test_how_it_ended_is_told_and_there_can_be_another(with_keeper, words, status):
    async def scene(keeper, _namespace):
        told = []
        for _ in range(2):
            hub = Hub(keeper)
            with closing(hub.socket):
                await hub.about()
                hub.socket.send(words.encode())
                # Its end is that of its socket as well.
                assert await hub.hear() == b""
                told.append(await hub.ended())
        return told

    assert with_keeper(scene) == [status, status]


def test_it_dies_with_the_keeper(with_keeper, processes):
    async def scene(keeper, _namespace):
        hub = Hub(keeper)
        with closing(hub.socket):
            await hub.about()
            # It is not the end of its socket that tells it.
            os.kill(keeper.pid, signal.SIGKILL)
            processes.wait_for_end([await hub.kept.started])
            await asyncio.wait_for(keeper.lost.wait(), SECONDS)
            return await hub.ended(), Hub(keeper)

    ended, another = with_keeper(scene)
    another.socket.close()
    assert ended == 0
    with pytest.raises(SandboxError) as refused:
        another.kept.started.result()
    assert refused.value.stage == "keeper"


def test_supervisors_and_hubs_are_told_apart(with_keeper):
    async def scene(keeper, _namespace):
        first, supervisor, second = Hub(keeper), Supervisor(keeper), Hub(keeper)
        with closing(first.socket), closing(second.socket):
            pids = {await supervisor.started()}
            for hub in (first, second):
                await hub.about()
                pids.add(await hub.kept.started)
            await supervisor.close()
            second.socket.send(b"raise SystemExit(2)")
            first.socket.send(b"raise SystemExit(1)")
            return len(pids), await first.ended(), await second.ended()

    assert with_keeper(scene) == (3, 1, 2)


def test_a_program_that_is_not_there_is_told_as_its_end(with_keeper):
    async def scene(keeper, _namespace):
        hub = Hub(keeper)
        with closing(hub.socket):
            return await hub.ended()

    assert with_keeper(scene, command=["/nowhere/python"]) == errno.ENOENT


@pytest.mark.parametrize(
    ("packet", "descriptors"),
    [
        # Another command; kinds that there are not; no socket; too many.
        (b"/bin/sh\0-c\0true\0", []),
        (b"/bin/sh\0", [0]),
        (b"\0", [0]),
        (bytes([lib.KINDS]), [0]),
        # There is no command of that kind.
        (bytes([lib.KIND_IMAGES]), [0]),
        (bytes([lib.KIND_HUB]), []),
        (bytes([lib.KIND_HUB]), [0, 0]),
    ],
)
def test_a_service_that_was_taken_over_has_no_say_in_what_is_run(with_keeper, processes, packet, descriptors):
    async def scene(keeper, _namespace):
        hub = Hub(keeper)
        with closing(hub.socket):
            await hub.about()
            before = processes.children(keeper.pid)
            socket.send_fds(keeper._socket, [packet], descriptors)
            await asyncio.wait_for(keeper.lost.wait(), SECONDS)
            processes.wait_for_end(before)
            return len(before)

    assert with_keeper(scene) == 1


@pytest.mark.parametrize(
    "command",
    [
        # Not found along anybody's PATH.
        ["python3"],
        ["", "/bin/true"],
        ["/bin/true", *["x"] * lib.COMMAND_ARGUMENTS_MAX],
    ],
)
def test_a_keeper_without_a_command_that_can_be_one_keeps_nothing(with_keeper, command):
    async def scene(keeper, _namespace):
        await asyncio.wait_for(keeper.lost.wait(), SECONDS)

    with_keeper(scene, command=command)


def test_a_command_that_is_too_long_is_the_operators_to_shorten(with_keeper):
    with pytest.raises(HostError, match=r"sys\.path"):
        with_keeper(None, command=["/" + "x" * lib.COMMAND_BYTES_MAX])


def test_the_largest_command_is_taken(with_keeper):
    most = lib.COMMAND_BYTES_MAX - sum(len(argument) + 1 for argument in COMMAND[:-1]) - 1

    async def scene(keeper, _namespace):
        hub = Hub(keeper)
        with closing(hub.socket):
            return (await hub.about())["arguments"][-1]

    assert with_keeper(scene, command=[*COMMAND[:-1], "x" * most]) == "x" * most


def test_a_module_is_imported_from_where_this_process_does(with_keeper, state):
    (state / "outsider.py").write_text(
        "import socket, sys, jail, msgspec\n"
        "told = [__name__, jail.__file__, sys.argv[1], *sys.path]\n"
        "socket.socket(fileno=0).send('\\n'.join(told).encode())\n"
    )
    sys.path.append(str(state))
    try:
        command = module_command("outsider", "a word")
    finally:
        sys.path.remove(str(state))

    async def scene(keeper, _namespace):
        hub = Hub(keeper)
        with closing(hub.socket):
            return (await hub.hear()).decode().split("\n")

    name, place, argument, *path = with_keeper(scene, command=command)
    assert (name, place, argument) == ("__main__", jail.__file__, "a word")
    assert path == [place for place in sys.path if place] + [str(state)]


ENTER = """
import ctypes
_, (network,), _, _ = socket.recv_fds(control, 1, 1)
libc = ctypes.CDLL(None, use_errno=True)
entered = libc.setns(network, 0x40000000) or ctypes.get_errno()
control.send(json.dumps([entered, os.readlink("/proc/self/ns/net"), socket.if_nameindex()]).encode())
"""


def test_it_can_enter_the_network_of_a_sandbox_that_it_is_given(engine_with, state, monkeypatch):
    monkeypatch.setattr(sandbox, "module_command", lambda *_module: COMMAND)
    with engine_with(slots=1, ready_min=1, ready_max=1, state=str(state)) as own:

        async def scene():
            sandboxes = own.engine.sandboxes
            taken = await sandboxes.stock.take(HOST)
            hub = Hub(sandboxes.keeper)
            with closing(hub.socket):
                await hub.about()
                hub.socket.send(ENTER.encode())
                socket.send_fds(hub.socket, [b"n"], [taken.network])
                told = json.loads(await hub.hear())
            name = os.readlink(f"/proc/self/fd/{taken.network}")
            await hub.ended()
            await taken.close()
            return told, name

        (entered, network, interfaces), name = own.do(scene())
    assert (entered, network) == (0, name)
    assert interfaces == [[1, "lo"]]
