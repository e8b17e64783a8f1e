"""Make one image. Runs as the root of a user namespace, in a directory with nothing else in it.

    python -m vm.build PLAN        a Plan, as JSON

It leaves `disk.img`, `vmlinuz`, and `kernel`, which has the kernel's version.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from vm import kernel
from vm.recipe import ROOT
from vm.suite import Suite

_TREE = Path("root")
_KERNEL = Path("unpacked")
_VENV = "/opt/tests"
_WHEELS = "opt/wheels"
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*")


class Plan(msgspec.Struct, frozen=True):
    """`sources` of the system and `kernel_source`, lines of sources.list(5); `wheels`, a directory.

    `requirements`: what of the wheels, and of what they need, is installed for the tests. `borrowed`: from
    other suites, each by its name and source, packages that are unpacked beneath /opt, in one of that name.
    """

    codename: str
    sources: tuple[str, ...]
    kernel_source: str
    packages: tuple[str, ...]
    masked: tuple[str, ...]
    size: str
    wheels: str
    requirements: tuple[str, ...]
    borrowed: tuple[tuple[str, str, tuple[str, ...]], ...] = ()


def make(plan: Plan) -> None:
    """Do it in the current directory. Raises CalledProcessError and OSError."""
    _KERNEL.mkdir()
    kernel.unpack(plan.kernel_source, _KERNEL.absolute())
    _make_system(plan)
    _add_kernel()
    _add_files(plan.masked)
    for name, source, packages in plan.borrowed:
        _borrow(source, packages, _TREE / "opt" / name)
    _add_wheels(plan)
    _make_disk(plan.size)
    shutil.rmtree(_TREE)
    shutil.rmtree(_KERNEL)


def _make_system(plan: Plan) -> None:
    subprocess.run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=apt",
            "--quiet",
            '--aptopt=APT::Sandbox::User "root"',
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
            f"--include={','.join(plan.packages)}",
            plan.codename,
            _TREE,
            "-",
        ],
        check=True,
        input="\n".join(plan.sources),
        text=True,
    )


def _add_kernel() -> None:
    # Beneath /boot, and from 7.0 on beside its modules.
    shutil.copy(next(path for path in _KERNEL.rglob("vmlinuz*") if path.is_file()), "vmlinuz")
    modules = next(path for path in _KERNEL.glob("**/lib/modules/*") if path.is_dir())
    shutil.copytree(modules, _TREE / "usr/lib/modules" / modules.name, symlinks=True)
    subprocess.run(["depmod", "-b", _TREE, modules.name], check=True)
    Path("kernel").write_text(f"{modules.name}\n")


def _borrow(source: str, packages: tuple[str, ...], directory: Path) -> None:
    directory.mkdir(parents=True)
    apt = Path("borrowed").absolute()
    Suite(source, apt).unpack(packages, directory)
    shutil.rmtree(apt)


def _add_files(masked: tuple[str, ...]) -> None:
    shutil.copytree(ROOT, _TREE, symlinks=True, dirs_exist_ok=True)
    for unit in masked:
        (_TREE / "etc/systemd/system" / unit).symlink_to("/dev/null")


def _add_wheels(plan: Plan) -> None:
    """Here pip takes seconds, in the machine it would take minutes."""
    shutil.copytree(plan.wheels, _TREE / _WHEELS)
    _within("python3", "-m", "venv", _VENV)
    _within(f"{_VENV}/bin/pip", "install", "-q", "--no-index", f"--find-links=/{_WHEELS}", *plan.requirements)


def _within(*command: str) -> None:
    """Run a command in the system: with /dev, which an image has none of, and none of our settings."""
    mounted = 'mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
    subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted, _TREE, *command],
        check=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )


def _make_disk(size: str) -> None:
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", _TREE, "disk.img", size],
        check=True,
    )


if __name__ == "__main__":
    os.umask(0o022)
    make(msgspec.json.decode(sys.argv[1], type=Plan))
