"""The documents of the OCI image specification, as structs: read strictly, written canonically.

Whoever has one of these read it with a `parse_...` function, which raises ImageError. Fields that the
specification does not know are passed over, as it demands. Docker's older media types are accepted too:
their documents have the same form.
"""

import hashlib
import platform
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec

from jail.errors import ImageError

DOCUMENT_BYTES_MAX = 4 << 20
"""Of a manifest, an index or a configuration: what the distribution specification has registries take."""

LAYERS_MAX = 127
"""Of an image: what Docker's own storage could ever mount."""

ENTRIES_MAX = 4096
"""Of an index: manifests."""

REFERENCE_NAME = "org.opencontainers.image.ref.name"
"""annotations.md: an image's name, in the descriptor that an index.json has of it."""

LAYOUT: Final = b'{"imageLayoutVersion":"1.0.0"}'
"""image-layout.md: the content of oci-layout."""

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"

INDEX_TYPES = (INDEX_TYPE, "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFEST_TYPES = (MANIFEST_TYPE, "application/vnd.docker.distribution.manifest.v2+json")
CONFIG_TYPES = (CONFIG_TYPE, "application/vnd.docker.container.image.v1+json")

LAYER_TYPES = {
    LAYER_TYPE: "none",
    f"{LAYER_TYPE}+gzip": "gzip",
    f"{LAYER_TYPE}+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "none",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}
"""The media types of layers, and how each is compressed: "none", "gzip" or "zstd"."""

HONOURED = ("Env", "WorkingDir", "Entrypoint", "Cmd", "User")
"""config.md: the settings of an image that jobs follow."""

# <GOARCH> of config.md by `uname -m`.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le"}

_DAMAGED = "Have it made or fetched anew."

_DIGEST = "sha256:[0-9a-f]{64}"
Digest = Annotated[str, msgspec.Meta(pattern=rf"^{_DIGEST}\Z")]
"""descriptor.md: "sha256:" and 64 hexadecimal digits. Other algorithms are refused."""

Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]

# Told to people as it is.
_Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{0,64}\Z")]

T = TypeVar("T")


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """image-index.md: what a manifest is for."""

    architecture: _Word = ""
    os: _Word = ""
    variant: _Word = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """descriptor.md: what is spoken of, by digest, and its size in bytes."""

    media_type: str
    digest: Digest
    size: Bytes
    annotations: dict[str, str] | None = None
    platform: Platform | None = None

    @property
    def name(self) -> str | None:
        """The name that an index.json gives it, if any."""
        return (self.annotations or {}).get(REFERENCE_NAME)

    @property
    def hex(self) -> str:
        """The digits of the digest."""
        return self.digest.partition(":")[2]


class Manifest(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """manifest.md: an image; `layers`, the lowest first."""

    schema_version: int = 2
    media_type: str = ""
    config: Descriptor
    layers: Annotated[tuple[Descriptor, ...], msgspec.Meta(min_length=1, max_length=LAYERS_MAX)]


class Index(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """image-index.md, and the index.json of a layout."""

    schema_version: int = 2
    media_type: str = INDEX_TYPE
    manifests: Annotated[tuple[Descriptor, ...], msgspec.Meta(max_length=ENTRIES_MAX)] = ()


class RootFs(msgspec.Struct, frozen=True):
    """config.md: the digests of the layers' uncompressed archives, the lowest first."""

    type: str = "layers"
    diff_ids: tuple[Digest, ...] = ()


class Config(msgspec.Struct, frozen=True, rename={"settings": "config"}, kw_only=True):
    """config.md: what an image is for and how it wants to be run.

    `settings` is as it came: see `honoured` and `ignored`.
    """

    architecture: _Word = ""
    os: _Word = ""
    variant: _Word = ""
    created: str | None = None
    rootfs: RootFs
    settings: dict[str, Any] | None = None

    @property
    def honoured(self) -> "Honoured":
        """Those that jobs follow."""
        given = self.settings or {}
        try:
            return msgspec.convert({key: given[key] for key in HONOURED if given.get(key)}, Honoured)
        except msgspec.ValidationError as error:
            raise ImageError(f"The image's configuration is not valid: {error}.", _DAMAGED) from None

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of those that ask for something and are not followed, in order."""
        given = self.settings or {}
        return tuple(sorted(name for name, value in given.items() if value and name not in HONOURED))


# What execve(2) can take; a NUL would end it early.
_Text = Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*\Z")]
_Variable = Annotated[str, msgspec.Meta(pattern=r"^[^=\x00]+=[^\x00]*\Z")]
_Directory = Annotated[str, msgspec.Meta(pattern=r"^(/[^\x00]*)?\Z", max_length=4095)]


class Honoured(msgspec.Struct, frozen=True, rename="pascal"):
    """The settings of an image that jobs follow, as config.md has them.

    `env`, each NAME=VALUE; `working_dir`, absolute or empty; `user`, empty or USER[:GROUP], names or numbers.
    """

    env: tuple[_Variable, ...] = ()
    working_dir: _Directory = ""
    entrypoint: tuple[_Text, ...] = ()
    cmd: tuple[_Text, ...] = ()
    user: _Text = ""


def refuse_long(size: int, what: str) -> None:
    """Raise ImageError if a document has more bytes than one may: before it is read, or even fetched."""
    if size > DOCUMENT_BYTES_MAX:
        raise ImageError(f"The {what} is longer than {DOCUMENT_BYTES_MAX} bytes.", _DAMAGED)


def parse(raw: bytes, form: type[T], what: str) -> T:
    """A JSON document of any form, called `what`; raises ImageError."""
    refuse_long(len(raw), what)
    try:
        return msgspec.json.decode(raw, type=form)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"The {what} is not valid: {error}.", _DAMAGED) from None


def parse_manifest(raw: bytes) -> Manifest:
    """A manifest; raises ImageError, also when it is something else besides.

    What one reader takes for an image and another for an index is nobody's to run: manifest.md, mediaType.
    """
    found = parse(raw, Manifest, "manifest")
    if found.media_type and found.media_type not in MANIFEST_TYPES:
        raise ImageError(f"The manifest says that it is {found.media_type!r}.", _DAMAGED)
    _refuse_fields(raw, ("manifests", "fsLayers"), "manifest")
    _refuse_version(found.schema_version)
    if found.config.media_type not in CONFIG_TYPES:
        raise ImageError(
            f"It is no image of a file system: its configuration is {found.config.media_type!r}.",
            "Name an image that programs can run in.",
        )
    for layer in found.layers:
        compression(layer.media_type)
    return found


def parse_index(raw: bytes) -> Index:
    """An index; raises ImageError, also when it is something else besides."""
    found = parse(raw, Index, "index")
    if found.media_type and found.media_type not in INDEX_TYPES:
        raise ImageError(f"The index says that it is {found.media_type!r}.", _DAMAGED)
    _refuse_fields(raw, ("config", "layers", "fsLayers"), "index")
    _refuse_version(found.schema_version)
    return found


def _refuse_fields(raw: bytes, names: Sequence[str], what: str) -> None:
    fields = parse(raw, dict[str, msgspec.Raw], what)
    if foreign := sorted(fields.keys() & set(names)):
        raise ImageError(f"The {what} has {foreign[0]!r}, which is not a part of one.", _DAMAGED)


def _refuse_version(version: int) -> None:
    if version != 2:
        raise ImageError(f"schemaVersion is {version}, not 2.", "Have the image made by a newer tool.")


def parse_config(raw: bytes) -> Config:
    """A configuration whose honoured settings are valid; raises ImageError."""
    found = parse(raw, Config, "image's configuration")
    if found.rootfs.type != "layers":
        raise ImageError(f"rootfs.type is {found.rootfs.type!r}, not 'layers'.", _DAMAGED)
    _ = found.honoured
    return found


def encode(document: Manifest | Index | Config) -> bytes:
    """The document as JSON, the same bytes for the same document."""
    return msgspec.json.encode(document, order="sorted")


def describe(raw: bytes, media_type: str) -> Descriptor:
    """The descriptor of a document."""
    return Descriptor(media_type, digest(raw), len(raw))


def digest(raw: bytes) -> str:
    """The digest of bytes, as descriptor.md writes it."""
    return f"sha256:{hashlib.sha256(raw).hexdigest()}"


def is_digest(text: str) -> bool:
    """Whether this is a digest as descriptor.md writes it."""
    return re.fullmatch(_DIGEST, text) is not None


def compression(media_type: str) -> str:
    """How a layer of this media type is compressed: "none", "gzip" or "zstd". Raises ImageError."""
    found = LAYER_TYPES.get(media_type)
    if found is None:
        raise ImageError(
            f"A layer is of the type {media_type!r}, which is not one of an archive that can be unpacked.",
            f"Have the image made with layers of one of these: {', '.join(LAYER_TYPES)}.",
        )
    return found


def refuse_other_count(manifest: Manifest, config: Config) -> None:
    """Raise ImageError unless the configuration has a digest for each layer."""
    if (count := len(config.rootfs.diff_ids)) != len(manifest.layers):
        raise ImageError(
            f"The image has {len(manifest.layers)} layers, and its configuration names {count}.", _DAMAGED
        )


def host_platform() -> Platform:
    """What an image has to be for to run here."""
    machine = platform.machine()
    return Platform(_ARCHITECTURES.get(machine, machine), "linux")


def choose(index: Index, wanted: Platform) -> Descriptor:
    """The first manifest of an index that is for this platform. Raises ImageError.

    Unless a variant is wanted, one of any will do, but rather one without: what has a variant may need more
    than this processor has. One that does not say what it is for is chosen when it is alone.
    """
    known = [found for found in index.manifests if found.media_type in (*MANIFEST_TYPES, *INDEX_TYPES)]
    if len(known) == 1 and known[0].platform is None:
        return known[0]
    named = [each for each in known if each.platform]
    fit = [each for each in named if _runs(each.platform.architecture, each.platform.os, wanted)]
    exact = [each for each in fit if each.platform.variant == wanted.variant]
    if exact or (fit and not wanted.variant):
        return (exact or fit)[0]
    offered = {_written(found.platform) for found in known if found.platform}
    raise ImageError(
        f"No image of the index is for {_written(wanted)}; "
        f"there are: {', '.join(sorted(offered)) or 'none that say what they are for'}.",
        "Name an image that is made for this host.",
    )


def _written(platform: Platform) -> str:
    return "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))


def refuse_foreign(config: Config, wanted: Platform) -> None:
    """Raise ImageError if an image is for another platform. Many say nothing: those pass."""
    if not _runs(config.architecture or wanted.architecture, config.os or wanted.os, wanted):
        raise ImageError(
            f"The image is for {config.os}/{config.architecture}, and this host is "
            f"{wanted.os}/{wanted.architecture}.",
            "Name an image that is made for this host.",
        )


def _runs(architecture: str, system: str, wanted: Platform) -> bool:
    return (architecture, system) == (wanted.architecture, wanted.os)
