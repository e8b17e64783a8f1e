"""What crosses to init with START, as sealed memory: nobody, not even its maker, can change it."""

import errno
import fcntl
import os

from jail.errors import SandboxError
from jail.spec import ProcessSpec
from jail.supervisor import HOSTS_BYTES_MAX, pack_file

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(name: str, content: bytes) -> int:
    """A descriptor of `content`, at offset 0, that can be read and never written. Raises OSError.

    As stdin it can be reopened through /proc/self/fd, for writing too: the seals hold there as well
    (memfd_create(2), File sealing).
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def pack(spec: ProcessSpec, hosts: bytes = b"") -> bytes:
    """The plan of a process, laid out as struct start in native/message.h says.

    hosts: what it finds in /etc/hosts, in place of the image's own if there is any. Raises SandboxError if
    that is more than HOSTS_BYTES_MAX.
    """
    if len(hosts) > HOSTS_BYTES_MAX:
        raise SandboxError("hosts", errno.E2BIG)
    strings = [argument.encode() for argument in spec.argv]
    strings += [f"{name}={value}".encode() for name, value in spec.env.items()]
    strings += [spec.env["PATH"].encode(), spec.directory.encode()]
    files = [pack_file(file.path.encode(), file.mode, file.content) for file in spec.files]
    lent = [file.path.encode() + b"\0" for file in spec.stored]
    return b"\0".join(strings) + b"\0" + b"".join((*files, *lent)) + hosts
