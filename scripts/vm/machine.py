"""A machine: qemu's emulation of a PC with two processors, without a network, that forgets what it wrote."""

import os
import subprocess
from pathlib import Path

from vm import process
from vm.image import Image

PROCESSORS = 2
MEMORY_BYTES = 4 << 30

# Of the models that have what Debian's programs need, the one that is cheapest to emulate.
_EMULATION = ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "Nehalem-v1", "-machine", "q35")

# The second line: what a kernel does against its neighbours in hardware costs much in emulation.
_BOOT = (
    "root=/dev/nvme0n1 rw rootfstype=ext4 console=ttyS0 panic=-1 quiet jail.vm systemd.show_status=0 audit=0 "
    "mitigations=off init_on_alloc=0 nokaslr tsc=reliable no_timer_check"
)


def boot(image: Image, job: Path, answer: Path, console: Path, timeout_s: float) -> bool:
    """Run a machine until it switches itself off, with a job on its second disk; whether it did in time.

    The job's output goes to our own. `answer` and `console` are written: what the job left, and what
    kernel and systemd said.
    """
    # Its input stays open: at its end qemu would take the machine's output off the line as well.
    never, held = os.pipe()
    try:
        process.run(command(image, job, answer, console), stdin=never, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return False
    finally:
        os.close(never)
        os.close(held)
    return True


def command(image: Image, job: Path, answer: Path, console: Path) -> list[str]:
    """What starts it. The image is alone on NVMe, so that it always has that name."""
    disk = f"if=none,id=root,format=raw,file={image.directory}/disk.img,snapshot=on,cache=unsafe"
    given = f"if=none,id=job,format=raw,file={job},read-only=on"
    return [
        "qemu-system-x86_64",
        *_EMULATION,
        *("-smp", str(PROCESSORS), "-m", f"{MEMORY_BYTES >> 20}M"),
        *("-nodefaults", "-no-reboot", "-display", "none"),
        *("-kernel", f"{image.directory}/vmlinuz", "-append", _BOOT),
        *("-drive", disk, "-device", "nvme,serial=root,drive=root"),
        *("-drive", given, "-device", "virtio-blk-pci,serial=job,drive=job"),
        *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
        *("-chardev", "stdio,id=output,signal=off", "-device", "virtserialport,name=output,chardev=output"),
        *(
            "-chardev",
            f"file,id=answer,path={answer}",
            "-device",
            "virtserialport,name=answer,chardev=answer",
        ),
        *("-serial", f"file:{console}"),
    ]
