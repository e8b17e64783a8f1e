"""In the place of what reads an archive: what becomes of attempts that it has no cause to make.

    python confined_unpacker.py NAMESPACE PARENT      in the directory of the layers

NAMESPACE is a descriptor of the outer user namespace; PARENT, a layer, or "" for none. It writes in JSON the
errno of each attempt, 0 where it succeeded, and what it sees.
"""

import json
import mmap
import os
import socket
import stat
import struct
import sys
from functools import partial

from jail import shed
from jail.images.unpack import confinement
from jail.images.unpack.messages import Bounds
from jail.libc import LIBC, check, mount

# <linux/capability.h>, struct vfs_cap_data: CAP_NET_RAW is permitted.
CAPABLE = struct.pack("<IIIII", 0x02000000, 1 << 13, 0, 0, 0)


def outcome(attempt) -> int:
    try:
        attempt()
    except OSError as error:
        return error.errno or -1
    return 0


def main(namespace: int, parent: str) -> None:
    shed.prepare(shed.UNPACKER)
    parents = [parent] if parent else []
    service, secret = os.getppid(), os.getcwd()
    confinement.enter_outer(namespace)
    confinement.begin_layer(parents, "new")
    upper = confinement.make_layer(parents, "new")
    confinement.give_up([] if upper is None else [upper], Bounds())
    beneath = upper if upper is not None else os.open("/", os.O_RDONLY)
    attempts = {
        "make a file": partial(os.mkdir, "made"),
        "make a fifo": partial(os.mkfifo, "fifo"),
        "give it away": partial(os.chown, "made", 20000, 20000),
        "name the store": partial(os.listdir, secret),
        "walk up": partial(os.stat, "../../../etc"),
        "walk up from the layer": partial(os.stat, "../../../etc", dir_fd=beneath),
        "look at processes": partial(os.listdir, "/proc"),
        "make a device": partial(os.mknod, "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
        "make a whiteout": partial(os.mknod, "whiteout", stat.S_IFCHR),
        "make a socket": socket.socket,
        "make a file capable": partial(os.setxattr, "made", "security.capability", CAPABLE),
        "start a process": os.fork,
        "execute": partial(os.execv, "/made", ["made"]),
        "signal": partial(os.kill, service, 0),
        "mount": partial(mount, "none", "/made", "tmpfs", 0),
        "leave the root": partial(os.chroot, "/made"),
        "be another user": partial(os.setresuid, 1, 1, 1),
        "enter a namespace": lambda: check(LIBC.setns(namespace, 0)),
        "make a namespace": lambda: check(LIBC.unshare(0x10000000)),
        "trace": lambda: check(LIBC.ptrace(0x4206, service, None, None)),
        "execute memory": partial(mmap.mmap, -1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "ask the terminal": partial(os.get_terminal_size, 2),
    }
    found = {name: outcome(attempt) for name, attempt in attempts.items()}
    seen = {"root": sorted(os.listdir("/")), "descriptors": []}
    for descriptor in range(3, 64):
        if outcome(partial(os.fstat, descriptor)) == 0:
            seen["descriptors"].append(descriptor == beneath)
    os.write(1, json.dumps([found, seen]).encode())
    # What Python does at its end needs files.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
