"""The unpacker upon a small file system, which is mounted on the working directory.

python small_unpacker.py BYTES      with the same stdin and stdout
"""

import os
import sys

from jail.images.unpack import __main__ as program
from jail.images.unpack import confinement
from jail.libc import mount

enter_outer = confinement.enter_outer


def enter_and_mount(namespace: int) -> None:
    enter_outer(namespace)
    place = os.getcwd()
    mount("tmpfs", place, "tmpfs", 0, f"size={sys.argv[1]},mode=755")
    os.chdir(place)


if __name__ == "__main__":
    confinement.enter_outer = enter_and_mount
    program.main()
