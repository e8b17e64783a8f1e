"""What jobs may name for their /: the image `host`, the images of the store, and the operator's volumes.

Images of the store come and go while the service runs: they are looked up when a job names them, and held for
as long as a sandbox is made of them.
"""

import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack
from pathlib import Path

import msgspec

from jail import layers
from jail.errors import HostError, ImageNotFoundError
from jail.image import ETC_FILES, Image, Root, build_host, build_stored, refuse_mounts, with_volumes
from jail.images.store import Store, Stored
from jail.spec import BOX, ImageOffer

HOST = "host"

# A name for the directory of layers that is short: an image may have more than a hundred.
_LAYERS = "l"

# What an image has of its own, the sandbox's user added; the rest is of the sandbox.
_ACCOUNTS = {"passwd": "jail:x:1000:1000:jail:/box:/bin/sh\n", "group": "jail:x:1000:\n"}
_ACCOUNTS_BYTES_MAX = 1 << 20
_OF_SANDBOX = ("hosts", "hostname", "resolv.conf")

# Where a job has its files, whatever an image says.
_NOT_OF_IMAGE = ("HOME",)


class Made(msgspec.Struct, frozen=True):
    """An image that sandboxes can be made of, until `undo` is closed, which raises OSError."""

    image: Image
    undo: ExitStack


class Catalogue:
    """What is offered (see jail.spec.Images), and how it is made."""

    def __init__(self, directory: Path, store: Store, volumes: Mapping[str, str]) -> None:
        """Have the image `host` made in `directory`, the supervisor's. Raises OSError, HostError."""
        self._directory = directory
        self._store = store
        self._volumes = volumes
        self._made = 0
        self._known: dict[str, Stored] = {}
        self._known_at: tuple[int, ...] = ()
        self._host = build_host(directory, HOST)
        (directory / _LAYERS).symlink_to(store.layers)
        for name, path in volumes.items():
            _check_volume(name, Path(path), store.directory)
        refuse_mounts([Path(path) for path in volumes.values()])

    @property
    def directories(self) -> tuple[str, ...]:
        """All directories of the host that sandboxes are made of: absolute paths, none beneath another."""
        found: list[str] = []
        for path in sorted((*self._host.host_directories, str(self._store.layers), *self._volumes.values())):
            if not any(Path(path).is_relative_to(above) for above in found):
                found.append(path)
        return tuple(found)

    def names(self) -> list[str]:
        """Of all images."""
        return [HOST, *self._store.names()]

    def find(self, name: str) -> ImageOffer | None:
        """The image of that name or digest, or None. Raises ImageError, OSError: it cannot be read."""
        if name == HOST:
            return ImageOffer()
        try:
            stored = self._find(name)
        except (ImageNotFoundError, FileNotFoundError):
            # The latter while it is removed.
            return None
        config = stored.config.honoured
        pairs = (text.partition("=") for text in config.env)
        return ImageOffer(
            digest=stored.digest,
            env={name: value for name, _, value in pairs if name not in _NOT_OF_IMAGE},
            argv=(*config.entrypoint, *config.cmd),
            directory=config.working_dir or BOX,
        )

    def _find(self, name: str) -> Stored:
        """The store's image, as it was told of when the store was last changed."""
        state = self._store.state()
        if state != self._known_at:
            self._known_at = state
            self._known.clear()
        if name not in self._known:
            self._known[name] = self._store.find(name)
        return self._known[name]

    def obstacle(self, offer: ImageOffer, target: str) -> str | None:
        """Why no volume can be at `target`, relative to the root of that image, or None."""
        top, _, rest = target.partition("/")
        # What lies there was mounted before, where nothing can be made to mount on.
        if not offer.digest and top in dict(self._host.overlays):
            return f"/{top} of that image is the host's"
        if offer.digest and top == "etc" and rest.partition("/")[0] in (*_OF_SANDBOX, *_ACCOUNTS):
            return f"/{target} lies in a file of the sandbox's own"
        try:
            return self._obstacle(offer.digest, target)
        except PermissionError:
            return "a directory on the way is closed to others in that image"

    def _obstacle(self, digest: str, target: str) -> str | None:
        for path, mode in self._on_the_way(digest, target):
            if not stat.S_ISDIR(mode):
                return f"/{path} of that image is no directory"
            if not mode & stat.S_IXOTH:
                return f"/{path} of that image is closed to others"
        return None

    def _on_the_way(self, digest: str, target: str) -> Iterator[tuple[str, int]]:
        """Of what the image has, down to `target`, the paths and modes."""
        stack = self._stack(digest)
        parts = target.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            found = layers.lookup(stack, path)
            if found is None:
                return
            yield path, found[1].st_mode

    def asked_back(self) -> Set[str]:
        """The digests of images that are to be removed, once nothing is made of them."""
        return self._store.asked_back()

    def make(self, root: Root) -> Made:
        """What sandboxes of that root are made of. Raises OSError, ImageError: it is gone, say."""
        with ExitStack() as undo:
            image = self._host if not root.digest else self._make_stored(root.digest, undo)
            if root.volumes:
                volumes = {target: self._volumes[name] for target, name in root.volumes}
                modes = {
                    path: mode for target in volumes for path, mode in self._on_the_way(root.digest, target)
                }
                image = with_volumes(self._directory, self._new_name(undo), image, volumes, modes)
            return Made(image, undo.pop_all())

    def _make_stored(self, digest: str, undo: ExitStack) -> Image:
        undo.callback(os.close, self._store.hold(digest))
        etc = {name: ETC_FILES[name] for name in _OF_SANDBOX}
        for name, line in _ACCOUNTS.items():
            etc[name] = self._accounts(digest, name, line)
        stack = [f"{_LAYERS}/{layer}" for layer in self._find(digest).layers]
        return build_stored(self._directory, self._new_name(undo), stack, etc)

    def _accounts(self, digest: str, name: str, line: str) -> str:
        """The image's own /etc/passwd or group, and who runs the job: under a name, if the image has none."""
        found = layers.read(self._stack(digest), f"etc/{name}", _ACCOUNTS_BYTES_MAX)
        if found is None:
            return ETC_FILES[name]
        text = found.decode(errors="surrogateescape")
        if text and not text.endswith("\n"):
            text += "\n"
        has_one = any(entry.split(":")[2:3] == ["1000"] for entry in text.splitlines())
        return text if has_one else text + line

    def _stack(self, digest: str) -> list[Path]:
        if digest:
            return [self._store.layers / layer for layer in self._find(digest).layers]
        _, lower = self._host.overlays[0]
        return [self._directory / path for path in lower.split(":")]

    def _new_name(self, undo: ExitStack) -> str:
        self._made += 1
        name = str(self._made)
        undo.callback(shutil.rmtree, self._directory / name, ignore_errors=True)
        return name


def _check_volume(name: str, path: Path, images: Path) -> None:
    if not path.is_dir():
        raise HostError(f"The volume {name} is no directory: {path}.", "Mend `volumes`.")
    if path.stat().st_mode & 0o005 != 0o005:
        cure = f"Open it to every user (chmod o+rx {path}): jobs have ids of their own."
        raise HostError(f"The volume {name} cannot be read by jobs: {path}.", cure)
    real, images = path.resolve(), images.resolve()
    if images.is_relative_to(real) or real.is_relative_to(images):
        raise HostError(f"The volume {name} has the images in it, or lies among them.", "Mend `volumes`.")
