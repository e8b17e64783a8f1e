"""The job specification: what a caller may ask for, and nothing else.

`parse()` turns one untrusted JSON value into a JobSpec or raises SpecError naming the field. Past
this module nobody checks input again: a JobSpec in hand is a valid one.

Every quantity carries its unit in its name. Every limit has a ceiling set by the operator; a
caller may ask for less, never for more, and never for "unlimited".
"""

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Any, Literal, Protocol

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jail import limits
from jail.destinations import (
    PORT_MAX,
    AddressRange,
    Destination,
    Offer,
    parse_host,
    parse_network,
    refusal,
)
from jail.errors import ImageError
from jail.image import RESERVED, Root
from jail.limits import PROCESSES_MAX, Limits, LimitsRequest

# execve(2) refuses a single string of 128 KiB (MAX_ARG_STRLEN) and, for a stack of 8 MiB, 2 MiB in all.
STRING_BYTES_MAX = 131_071
STRINGS_BYTES_MAX = 1 << 20
# Linux: NAME_MAX and PATH_MAX, less the final NUL.
NAME_BYTES_MAX = 255
PATH_BYTES_MAX = 4095
PATH_DEPTH_MAX = 32
FILES_MAX = 4096
OUTPUTS_MAX = 256
# Each is a mount of its own.
STORED_MAX = 64
DESTINATIONS_MAX = 32
PUBLISHED_MAX = 16
VOLUMES_MAX = 16
# All of them go to the supervisor in one message, with what the image is made of.
VOLUME_PATH_BYTES_MAX = 255

BOX = "/box"
"""Where a job's files are, and it starts, unless the image says where its own command does."""

NAME = "[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""What a process is called: a label of a host name (RFC 1123, 2.1) that begins with a letter."""

DIGEST = "sha256:[0-9a-f]{64}"
"""What a stored file is called."""

# In every sandbox it is the sandbox itself.
_OWN_NAME = "localhost"

DEFAULT_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": BOX,
    "LANG": "C.UTF-8",
}
"""What a job's environment holds beside what the caller sets. Nothing of the service's own."""


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes of the caller: as text, kept as UTF-8, as base64, or those of a stored file, by its digest."""

    text: str | UnsetType = UNSET
    base64: str | UnsetType = UNSET
    file: Annotated[str, Meta(extra_json_schema={"pattern": f"^{DIGEST}$"})] | UnsetType = UNSET


class FileContent(Content, frozen=True, forbid_unknown_fields=True):
    """The bytes of a file, and whether it can be executed; a stored one can always be, and not be written."""

    executable: bool = False


class OutputRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file to bring back, or, with `store`, to keep among the caller's stored ones."""

    path: str
    store: bool = False


class DestinationRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something outside that a job asks to reach: a host by its name, or a network (or address) as `cidr`."""

    host: str | UnsetType = UNSET
    cidr: str | UnsetType = UNSET
    port: Annotated[int, Meta(ge=1, le=PORT_MAX)]
    protocol: Literal["tcp", "udp"] = "tcp"


class PublishedPort(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A TCP port that callers can reach, and the process that listens there; "" for the only one."""

    port: Annotated[int, Meta(ge=1, le=PORT_MAX)]
    process: str = ""


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a job reaches. none: each sandbox itself. isolated: those of its processes each other as well.

    egress: besides these, what stands in `allow`, as far as the operator offers it. publish: where callers
    reach it, through the service, while it lives.
    """

    mode: Literal["none", "isolated", "egress"]
    allow: Annotated[list[DestinationRequest], Meta(max_length=DESTINATIONS_MAX)] = []
    publish: Annotated[tuple[PublishedPort, ...], Meta(max_length=PUBLISHED_MAX)] = ()


class Program(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to run in one sandbox, as it comes: right in its types, not yet in its values.

    argv: not given, it is what the image says. volumes: by where they are to be seen, an absolute path.
    """

    argv: Annotated[list[str], Meta(min_length=1, max_length=4096)] | UnsetType = UNSET
    image: str = "host"
    volumes: Annotated[dict[str, str], Meta(max_length=VOLUMES_MAX)] = {}
    policy: str = "default"
    files: dict[str, str | FileContent] = {}
    stdin: str | Content = ""
    env: dict[str, str] = {}
    outputs: Annotated[list[str | OutputRequest], Meta(max_length=OUTPUTS_MAX)] = []
    limits: LimitsRequest = LimitsRequest()
    on_output_limit: Literal["kill", "truncate"] = "kill"
    explain: bool = False


class Request(Program, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /v1/run, as it comes, of a job that is one program."""

    network: Literal["none"] | Network = "none"


class ProcessRequest(Program, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of the processes of a job. One in the background ends with the others, at the latest."""

    name: Annotated[str, Meta(extra_json_schema={"pattern": f"^{NAME}$"})]
    background: bool = False


class GroupRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /v1/run, as it comes, of a job of several processes, each in a sandbox of its own."""

    processes: Annotated[list[ProcessRequest], Meta(min_length=1, max_length=PROCESSES_MAX)]
    network: Literal["none"] | Network = "none"


class InputFile(msgspec.Struct, frozen=True):
    """A file to put into /box: `path` relative to it, `mode` the permission bits."""

    path: str
    content: bytes
    mode: int


class StoredFile(msgspec.Struct, frozen=True):
    """A stored file, and where it is to be seen: `path` relative to /box, "" of what is no file there."""

    path: str
    digest: str
    bytes: int


class Output(msgspec.Struct, frozen=True):
    """A file to bring back: `path` relative to /box; an optional one may be missing. store: it is kept."""

    path: str
    optional: bool
    store: bool = False


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a valid job. `env` is whole: defaults and the caller's; `limits` are all set.

    explain: the result lists the calls that the policy denied. name: "" of the only one of a job that was
    asked for without names. background: it is ended when all have ended that are not. image: as it was named;
    root: what that is. directory: which the program starts in. owner: of the stored files, `stored` in /box
    beside `files`, and `stored_stdin` in place of `stdin`.
    """

    name: str = ""
    background: bool = False
    argv: tuple[str, ...]
    directory: str = BOX
    image: str
    root: Root = Root()
    policy: str
    files: tuple[InputFile, ...]
    stdin: bytes
    owner: str = ""
    stored: tuple[StoredFile, ...] = ()
    stored_stdin: StoredFile | None = None
    env: dict[str, str]
    outputs: tuple[Output, ...]
    limits: Limits
    truncate: bool
    explain: bool = False

    @property
    def borrows(self) -> bool:
        """Whether it uses stored files."""
        return bool(self.stored or self.stored_stdin)


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One valid job: its processes, each to have a sandbox of its own, and what they reach.

    destinations: of egress. pins: the addresses of those that are hosts, once they are known: jail.egress.
    """

    processes: tuple[ProcessSpec, ...]
    network: Network = Network("none")
    destinations: tuple[Destination, ...] = ()
    pins: Mapping[str, tuple[AddressRange, ...]] = {}

    @property
    def memory_bytes(self) -> int:
        """What all of them may use together."""
        return sum(process.limits.memory_bytes for process in self.processes)


class ImageOffer(msgspec.Struct, frozen=True, kw_only=True):
    """An image that jobs may name, and what it says of itself.

    digest: of its manifest, "" for `host`. argv: () when it names no command; directory: where that starts.
    """

    digest: str = ""
    env: dict[str, str] = {}
    argv: tuple[str, ...] = ()
    directory: str = BOX


class Images(Protocol):
    """The images that are offered, which come and go."""

    def names(self) -> list[str]:
        """All of their names."""

    def find(self, name: str) -> ImageOffer | None:
        """The one of that name, or digest, or None. Raises ImageError: it is damaged, say."""

    def obstacle(self, offer: ImageOffer, target: str) -> str | None:
        """Why no volume can be at `target`, relative to its root, or None."""


class StoredFiles(Protocol):
    """The files that are stored, which come and go."""

    def find(self, digest: str, owner: str) -> int | None:
        """How many bytes that one has, of the owner's or published; None: there is none."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator offers: limits, images, and the names of policies, volumes and modes of networks.

    files: those that are stored, if any are; owner: whose of them a job may use.

    egress: the destinations that jobs may ask for. egress_private: the ranges that they may reach though they
    are not of the internet at large. publishes: whether ports can be published. processes, memory_bytes: the
    most that one job can have, all its processes together. workers: among how many the service's memory was
    divided.
    """

    defaults: Limits
    ceilings: Limits
    images: Images
    policies: Collection[str]
    files: StoredFiles | None = None
    owner: str = ""
    volumes: Collection[str] = ()
    networks: Collection[str] = ("none",)
    egress: tuple[Offer, ...] = ()
    egress_private: tuple[AddressRange, ...] = ()
    publishes: bool = True
    processes: int
    memory_bytes: int
    workers: int = 1


class SpecError(ValueError):
    """A body that is refused. Attributes: `field`, a path such as `limits.cpu_ms`, or "" for the whole."""

    def __init__(self, field: str, detail: str) -> None:
        """Name the field and say what is wrong with it."""
        super().__init__(f"{field}: {detail}" if field else detail)
        self.field = field
        self.detail = detail


@contextmanager
def within(field: str) -> Iterator[None]:
    """Name what is wrong in here as a part of `field`."""
    try:
        yield
    except SpecError as error:
        raise SpecError(f"{field}.{error.field}", error.detail) from None


KINDS: Mapping[str, msgspec.json.Decoder] = {"processes": msgspec.json.Decoder(GroupRequest)}
"""Kinds of bodies, each by a field that no other has."""

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_REQUEST = msgspec.json.Decoder(Request)

# An object becomes a tuple of pairs, a number is left as it stands: some are too long for int().
_PAIRS = json.JSONDecoder(object_pairs_hook=tuple, parse_int=str, parse_float=str)

# msgspec ends its messages with the place: "... - at `$.limits.cpu_ms`".
_PLACE = re.compile(r"^(?P<detail>.*?)(?: - at (?P<key>key in )?`\$(?P<path>.*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `(?P<name>.*)`$")
_MISSING = re.compile(r"missing required field `(?P<name>.*)`$")


def _type_error(error: msgspec.ValidationError) -> SpecError:
    match = _PLACE.match(str(error))
    detail, path = match["detail"], (match["path"] or "").removeprefix(".")
    named = _UNKNOWN.search(detail) or _MISSING.search(detail)
    if named:
        path = f"{path}.{named['name']}".removeprefix(".")
    if path in Program.__struct_fields__ and _UNKNOWN.search(detail):
        detail = "stands in each of `processes` or `steps`, and not beside them"
    return SpecError(path, detail)


def decode(body: bytes, kinds: Mapping[str, msgspec.json.Decoder] = KINDS) -> Any:
    """Read a JSON body of one of these kinds, or a Request.

    Raises SpecError for bad JSON, fields, types and repeated names.
    """
    try:
        found = [kind for kind in _FIELDS.decode(body) if kind in kinds]
        request = (kinds[found[0]] if found else _REQUEST).decode(body)
        pairs = _PAIRS.decode(body.decode())
    except msgspec.ValidationError as error:
        raise _type_error(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SpecError("", f"the body is not JSON in UTF-8: {error}") from None
    _check_unique("", pairs)
    return request


def _check_unique(prefix: str, pairs: tuple[tuple[str, object], ...]) -> None:
    """Refuse a name that stands twice: msgspec takes the last, who checked the body before us maybe not."""
    seen: set[str] = set()
    for name, value in pairs:
        if name in seen:
            raise SpecError(f"{prefix}{name}", "stands twice in the body")
        seen.add(name)
        if isinstance(value, tuple):
            _check_unique(f"{prefix}{name}.", value)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, tuple):
                    _check_unique(f"{prefix}{name}[{index}].", item)


def parse(body: bytes, rules: Rules) -> JobSpec:
    """The job that a JSON body asks for; raises SpecError naming the field."""
    return validate(decode(body), rules)


def validate(request: Request | GroupRequest, rules: Rules) -> JobSpec:
    """The job that a request asks for; raises SpecError naming the field."""
    network = _network(request.network, rules)
    wanted = _destinations(network, rules)
    if isinstance(request, Request):
        _check_published(network, [], rules)
        return JobSpec(processes=(program(request, rules),), network=network, destinations=wanted)
    job = JobSpec(processes=_processes(request.processes, rules), network=network, destinations=wanted)
    _check_hosts(job)
    _check_published(network, [process.name for process in job.processes], rules)
    _check_kept(job, rules)
    if job.memory_bytes > rules.memory_bytes:
        together = f"limits.memory_bytes of all together are {job.memory_bytes}"
        raise SpecError("processes", f"{together}; the maximum is {rules.memory_bytes}{_division(rules)}")
    return job


def _processes(requests: list[ProcessRequest], rules: Rules) -> tuple[ProcessSpec, ...]:
    if len(requests) > rules.processes:
        raise SpecError("processes", f"{len(requests)} of them; the maximum is {rules.processes}")
    found: list[ProcessSpec] = []
    for index, request in enumerate(requests):
        with within(f"processes[{index}]"):
            check_name(request.name, found)
            found.append(program(request, rules, request.name, request.background))
    if all(process.background for process in found):
        raise SpecError("processes", "all are in the background, and a job ends with those that are not")
    return tuple(found)


def check_name(name: str, others: Sequence[ProcessSpec]) -> None:
    """Raise SpecError unless that is a name which none of the others has."""
    if not re.fullmatch(NAME, name):
        raise SpecError("name", f"{name!r} is no label of a host name that begins with a letter: {NAME}")
    if name == _OWN_NAME or name in [other.name for other in others]:
        raise SpecError("name", f"{name!r} is taken")


def _division(rules: Rules) -> str:
    """Why there is no more memory, where it has to be said."""
    return f"; this service's memory is divided among {rules.workers} workers" if rules.workers > 1 else ""


def _check_kept(job: JobSpec, rules: Rules) -> None:
    """Together they bring home no more than one could: an answer is held until the last has ended."""
    for name in ("stdout_bytes", "stderr_bytes", "output_bytes"):
        bringing = [one for one in job.processes if one.outputs or name != "output_bytes"]
        total = sum(getattr(one.limits, name) for one in bringing)
        maximum = getattr(rules.ceilings, name)
        if total > maximum:
            detail = f"limits.{name} of all together are {total}; the maximum is {maximum}"
            raise SpecError("processes", detail)


def _network(request: str | Network, rules: Rules) -> Network:
    if isinstance(request, str):
        _check_member("network", request, rules.networks)
        return Network(request)
    _check_member("network.mode", request.mode, rules.networks)
    return request


def _destinations(network: Network, rules: Rules) -> tuple[Destination, ...]:
    if network.mode != "egress":
        if network.allow:
            raise SpecError("network.allow", f"nothing outside is reached in the mode {network.mode}")
        return ()
    if not network.allow:
        raise SpecError("network.allow", "names nothing outside; the mode without is isolated")
    found = []
    for index, request in enumerate(network.allow):
        try:
            found.append(_destination(request, rules))
        except ValueError as error:
            raise SpecError(f"network.allow[{index}]", str(error)) from None
    return tuple(found)


def _destination(request: DestinationRequest, rules: Rules) -> Destination:
    """Raises ValueError."""
    if (request.host is UNSET) == (request.cidr is UNSET):
        raise ValueError('has to hold exactly one of "host" and "cidr"')
    host = None if request.host is UNSET else parse_host(request.host)
    network = None if request.cidr is UNSET else parse_network(request.cidr)
    wanted = Destination(host, network, request.port, request.protocol)
    if network is not None and (why := refusal(network, rules.egress_private)):
        raise ValueError(f"{network} cannot be reached: {why}")
    if not any(offer.covers(wanted) for offer in rules.egress):
        raise ValueError(f"{wanted} is not offered here")
    return wanted


def _check_hosts(job: JobSpec) -> None:
    names = {process.name for process in job.processes}
    for index, wanted in enumerate(job.destinations):
        if wanted.host in names:
            raise SpecError(f"network.allow[{index}]", f"{wanted.host!r} is one of the processes")


def _check_published(network: Network, names: Collection[str], rules: Rules) -> None:
    """names: of the job's processes; none, of one that was asked for without."""
    if network.publish and not rules.publishes:
        raise SpecError("network.publish", "is not offered here: a request may come to another worker")
    if network.publish and network.mode == "none":
        raise SpecError("network.publish", 'takes a network that can be reached: "isolated"')
    ports = [told.port for told in network.publish]
    for index, told in enumerate(network.publish):
        field = f"network.publish[{index}]"
        if names:
            _check_member(f"{field}.process", told.process, names)
        elif told.process:
            raise SpecError(f"{field}.process", "is of a job that has `processes`")
        if told.port in ports[:index]:
            raise SpecError(f"{field}.port", f"{told.port} is published twice")


def program(request: Program, rules: Rules, name: str = "", background: bool = False) -> ProcessSpec:
    """The process that a request asks for; raises SpecError naming the field."""
    image = _image(request.image, rules)
    _check_member("policy", request.policy, rules.policies)
    resolved = _limits(request.limits, rules)
    argv = image.argv if request.argv is UNSET else request.argv
    spec = ProcessSpec(
        name=name,
        background=background,
        argv=_argv(argv, request.image),
        directory=image.directory if request.argv is UNSET else BOX,
        image=request.image,
        root=Root(image.digest, _volumes(request.volumes, image, rules)),
        policy=request.policy,
        files=_files(request.files),
        stdin=b"" if is_stored(request.stdin) else content_bytes("stdin", request.stdin),
        owner=rules.owner,
        stored=_stored_files(request.files, rules),
        stored_stdin=stored_file("stdin", request.stdin, rules) if is_stored(request.stdin) else None,
        env=_env(request.env, image.env),
        outputs=_outputs(request.outputs),
        limits=resolved,
        truncate=request.on_output_limit == "truncate",
        explain=request.explain,
    )
    _check_strings(spec)
    _check_room(spec)
    check_not_lent(spec)
    return spec


def _image(name: str, rules: Rules) -> ImageOffer:
    try:
        found = rules.images.find(name)
    except ImageError as error:
        raise SpecError("image", f"{name!r} cannot be used: {error.cause}") from None
    if found is None:
        raise SpecError("image", f"{name!r} is not offered here; known: {', '.join(rules.images.names())}")
    return found


def _volumes(asked: Mapping[str, str], image: ImageOffer, rules: Rules) -> tuple[tuple[str, str], ...]:
    found = []
    for path, name in asked.items():
        field = f"volumes.{path}"
        _check_member(field, name, rules.volumes)
        found.append((_target(field, path), name))
    found.sort()
    for (above, _), (target, _) in pairwise(found):
        if target.startswith(f"{above}/"):
            raise SpecError(f"volumes./{target}", f"lies beneath another, /{above}")
    for target, _ in found:
        if obstacle := rules.images.obstacle(image, target):
            raise SpecError(f"volumes./{target}", obstacle)
    return tuple(found)


def _target(field: str, path: str) -> str:
    """The same path, relative to the root."""
    if not path.startswith("/"):
        raise SpecError(field, "is not absolute")
    target = check_path(field, path[1:], "/")
    if len(path.encode()) > VOLUME_PATH_BYTES_MAX:
        raise SpecError(field, f"longer than {VOLUME_PATH_BYTES_MAX} bytes")
    if target.partition("/")[0] in RESERVED:
        raise SpecError(field, f"lies in what every sandbox has of its own: {', '.join(RESERVED)}")
    return target


def _check_member(field: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise SpecError(field, f"{value!r} is not offered here; known: {', '.join(sorted(known))}")


def _limits(request: LimitsRequest, rules: Rules) -> Limits:
    try:
        return limits.resolve(request, rules.defaults, rules.ceilings)
    except limits.LimitError as error:
        is_share = error.field == "memory_bytes" and error.maximum == rules.memory_bytes
        why = _division(rules) if is_share else ""
        raise SpecError(f"limits.{error.field}", f"{error}{why}") from None


def _check_text(field: str, text: str) -> bytes:
    if "\0" in text:
        raise SpecError(field, "holds a NUL, which no program can be given")
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise SpecError(field, "holds half of a surrogate pair, which is not text") from None
    if len(encoded) > STRING_BYTES_MAX:
        raise SpecError(field, f"{len(encoded)} bytes; the maximum is {STRING_BYTES_MAX}")
    return encoded


def _argv(argv: Sequence[str], image: str) -> tuple[str, ...]:
    if not argv:
        raise SpecError("argv", f"is missing, and the image {image!r} names no command")
    for index, argument in enumerate(argv):
        _check_text(f"argv[{index}]", argument)
    if not argv[0]:
        raise SpecError("argv[0]", "names no program")
    return tuple(argv)


def _env(env: dict[str, str], images: dict[str, str]) -> dict[str, str]:
    for name, value in (images | env).items():
        field = f"env.{name}"
        _check_text(field, f"{name}={value}")
        if not name or "=" in name:
            raise SpecError(field, "a variable's name is not empty and holds no '='")
    return DEFAULT_ENV | images | env


def _check_strings(spec: ProcessSpec) -> None:
    strings = (*spec.argv, *map("=".join, spec.env.items()), "")
    # Each ends with a NUL.
    total = len("\0".join(strings).encode())
    # execve(2) gives a quarter of the stack to arguments and environment together.
    maximum = min(STRINGS_BYTES_MAX, spec.limits.stack_bytes // 4)
    if total > maximum:
        raise SpecError("argv", f"argv and env take {total} bytes; the maximum is {maximum}")


def check_path(field: str, path: str, above: str = BOX) -> str:
    """Return `path` if it names something beneath `above` and nothing else; raises SpecError.

    Refused: absolute paths, empty components, "." and "..", NULs, names and paths that are too long
    or too deep. What is left needs no normalising.
    """
    encoded = _check_text(field, path)
    parts = encoded.split(b"/")
    if encoded.startswith(b"/"):
        raise SpecError(field, f"{path!r} is absolute; paths are relative to {above}")
    if any(part in (b"", b".", b"..") for part in parts):
        raise SpecError(field, f"{path!r} has an empty, '.' or '..' component")
    if len(encoded) > PATH_BYTES_MAX or max(map(len, parts)) > NAME_BYTES_MAX:
        raise SpecError(field, f"longer than {PATH_BYTES_MAX} bytes, or {NAME_BYTES_MAX} a name")
    if len(parts) > PATH_DEPTH_MAX:
        raise SpecError(field, f"{len(parts)} components; the maximum is {PATH_DEPTH_MAX}")
    return path


def is_stored(content: str | Content) -> bool:
    """Whether it is a stored file, if it is anything."""
    return isinstance(content, Content) and content.file is not UNSET


def stored_file(field: str, content: Content, rules: Rules, path: str = "") -> StoredFile:
    """The stored file that a content names. Raises SpecError."""
    _check_one(field, content)
    if not re.fullmatch(DIGEST, content.file):
        raise SpecError(field, f'{content.file!r} is no digest: "sha256:" and 64 hexadecimal digits')
    size = rules.files.find(content.file, rules.owner) if rules.files else None
    if size is None:
        raise SpecError(field, f"there is no file {content.file}; it may have been evicted: send it again")
    return StoredFile(path, content.file, size)


def _stored_files(files: Mapping[str, str | FileContent], rules: Rules) -> tuple[StoredFile, ...]:
    """Those among a job's files, whose paths are checked."""
    stored = [(path, content) for path, content in files.items() if is_stored(content)]
    if len(stored) > STORED_MAX:
        raise SpecError("files", f"{len(stored)} stored files; the maximum is {STORED_MAX}")
    return tuple(stored_file(f"files.{path}", content, rules, path) for path, content in stored)


def _check_one(field: str, content: Content) -> None:
    if (content.text, content.base64, content.file).count(UNSET) != 2:
        raise SpecError(field, 'has to hold exactly one of "text", "base64" and "file"')


def content_bytes(field: str, content: str | Content) -> bytes:
    """The bytes of a content that is no stored file. Raises SpecError."""
    if isinstance(content, str):
        content = Content(text=content)
    _check_one(field, content)
    try:
        if content.base64 is UNSET:
            return content.text.encode()
        return b64decode(content.base64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SpecError(field, f"cannot be read: {error}") from None


def _file(path: str, content: str | FileContent) -> InputFile:
    field = f"files.{path}"
    executable = isinstance(content, FileContent) and content.executable
    return InputFile(
        path=path,
        content=content_bytes(field, content),
        mode=0o755 if executable else 0o644,
    )


def _directories(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _files(files: Mapping[str, str | FileContent]) -> tuple[InputFile, ...]:
    if len(files) > FILES_MAX:
        raise SpecError("files", f"{len(files)} files; the maximum is {FILES_MAX}")
    for path in files:
        check_path(f"files.{path}", path)
        for directory in _directories(path):
            if directory in files:
                raise SpecError(f"files.{path}", f"{directory!r} is a file as well")
    return tuple(_file(path, content) for path, content in files.items() if not is_stored(content))


def _check_room(spec: ProcessSpec) -> None:
    """Input that cannot fit is the caller's mistake: say so before a sandbox is made."""
    page = 4096
    pages = sum(-(-len(file.content) // page) * page for file in spec.files)
    if pages > spec.limits.disk_bytes:
        maximum = spec.limits.disk_bytes
        raise SpecError("files", f"take {pages} bytes of pages; limits.disk_bytes is {maximum}")
    directories = {entry for file in (*spec.files, *spec.stored) for entry in _directories(file.path)}
    # tmpfs counts its root among the inodes.
    inodes = 1 + len(spec.files) + len(spec.stored) + len(directories)
    if inodes > spec.limits.files:
        raise SpecError("files", f"take {inodes} inodes; limits.files is {spec.limits.files}")


def check_not_lent(spec: ProcessSpec) -> None:
    """Raise SpecError if one of its outputs is a stored file."""
    stored = {file.path for file in spec.stored}
    for index, output in enumerate(spec.outputs):
        if output.path in stored:
            raise SpecError(f"outputs[{index}]", f"{output.path!r} is a stored file, which no job changes")


def _outputs(outputs: list[str | OutputRequest]) -> tuple[Output, ...]:
    found = tuple(_output(f"outputs[{index}]", asked) for index, asked in enumerate(outputs))
    names = [output.path for output in found]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SpecError(f"outputs[{index}]", f"{name!r} is named twice")
    return found


def _output(field: str, asked: str | OutputRequest) -> Output:
    if isinstance(asked, str):
        asked = OutputRequest(asked)
    path = asked.path.removesuffix("?")
    return Output(check_path(field, path), asked.path.endswith("?"), asked.store)
