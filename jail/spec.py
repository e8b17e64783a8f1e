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
from collections.abc import Collection, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from jail import limits
from jail.limits import Limits, LimitsRequest

# execve(2) refuses a single string of 128 KiB (MAX_ARG_STRLEN) and, for a stack of 8 MiB, 2 MiB in all.
STRING_BYTES_MAX = 131_071
STRINGS_BYTES_MAX = 1 << 20
# Linux: NAME_MAX and PATH_MAX, less the final NUL.
NAME_BYTES_MAX = 255
PATH_BYTES_MAX = 4095
PATH_DEPTH_MAX = 32
FILES_MAX = 4096
OUTPUTS_MAX = 256

DEFAULT_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/box",
    "LANG": "C.UTF-8",
}
"""What a job's environment holds beside what the caller sets. Nothing of the service's own."""


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes of the caller: either as text, kept as UTF-8, or as base64."""

    text: str | UnsetType = UNSET
    base64: str | UnsetType = UNSET


class FileContent(Content, frozen=True, forbid_unknown_fields=True):
    """The bytes of a file, and whether it can be executed."""

    executable: bool = False


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /v1/run, as it comes: right in its types, not yet in its values."""

    argv: Annotated[list[str], Meta(min_length=1, max_length=4096)]
    image: str = "host"
    policy: str = "default"
    network: Literal["none"] = "none"
    files: dict[str, str | FileContent] = {}
    stdin: str | Content = ""
    env: dict[str, str] = {}
    outputs: Annotated[list[str], Meta(max_length=OUTPUTS_MAX)] = []
    limits: LimitsRequest = LimitsRequest()
    on_output_limit: Literal["kill", "truncate"] = "kill"
    explain: bool = False


class InputFile(msgspec.Struct, frozen=True):
    """A file to put into /box: `path` relative to it, `mode` the permission bits."""

    path: str
    content: bytes
    mode: int


class Output(msgspec.Struct, frozen=True):
    """A file to bring back: `path` relative to /box; an optional one may be missing."""

    path: str
    optional: bool


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One valid job. `env` is whole: defaults and the caller's; `limits` are all set.

    explain: the result lists the calls that the policy denied.
    """

    argv: tuple[str, ...]
    image: str
    policy: str
    files: tuple[InputFile, ...]
    stdin: bytes
    env: dict[str, str]
    outputs: tuple[Output, ...]
    limits: Limits
    truncate: bool
    explain: bool = False


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator offers: limits, and the names of images and policies.

    workers: among how many the service's memory is divided, if that is what bounds a job's.
    """

    defaults: Limits
    ceilings: Limits
    images: Collection[str]
    policies: Collection[str]
    workers: int = 1


class SpecError(ValueError):
    """A body that is refused. Attributes: `field`, a path such as `limits.cpu_ms`, or "" for the whole."""

    def __init__(self, field: str, detail: str) -> None:
        """Name the field and say what is wrong with it."""
        super().__init__(f"{field}: {detail}" if field else detail)
        self.field = field
        self.detail = detail


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
    return SpecError(path, detail)


def decode(body: bytes) -> Request:
    """Read a JSON body into a Request; raises SpecError for bad JSON, fields, types and repeated names."""
    try:
        request = _REQUEST.decode(body)
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


def parse(body: bytes, rules: Rules) -> JobSpec:
    """The job that a JSON body asks for; raises SpecError naming the field."""
    return validate(decode(body), rules)


def validate(request: Request, rules: Rules) -> JobSpec:
    """The job that a request asks for; raises SpecError naming the field."""
    _check_member("image", request.image, rules.images)
    _check_member("policy", request.policy, rules.policies)
    resolved = _limits(request.limits, rules)
    spec = JobSpec(
        argv=_argv(request.argv),
        image=request.image,
        policy=request.policy,
        files=_files(request.files),
        stdin=_bytes("stdin", request.stdin),
        env=_env(request.env),
        outputs=_outputs(request.outputs),
        limits=resolved,
        truncate=request.on_output_limit == "truncate",
        explain=request.explain,
    )
    _check_strings(spec)
    _check_room(spec)
    return spec


def _check_member(field: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise SpecError(field, f"{value!r} is not offered here; known: {', '.join(sorted(known))}")


def _limits(request: LimitsRequest, rules: Rules) -> Limits:
    try:
        return limits.resolve(request, rules.defaults, rules.ceilings)
    except limits.LimitError as error:
        divided = error.field == "memory_bytes" and rules.workers > 1
        why = f"; this service's memory is divided among {rules.workers} workers" if divided else ""
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


def _argv(argv: list[str]) -> tuple[str, ...]:
    for index, argument in enumerate(argv):
        _check_text(f"argv[{index}]", argument)
    if not argv[0]:
        raise SpecError("argv[0]", "names no program")
    return tuple(argv)


def _env(env: Mapping[str, str]) -> dict[str, str]:
    for name, value in env.items():
        field = f"env.{name}"
        _check_text(field, f"{name}={value}")
        if not name or "=" in name:
            raise SpecError(field, "a variable's name is not empty and holds no '='")
    return DEFAULT_ENV | dict(env)


def _check_strings(spec: JobSpec) -> None:
    strings = (*spec.argv, *map("=".join, spec.env.items()), "")
    # Each ends with a NUL.
    total = len("\0".join(strings).encode())
    # execve(2) gives a quarter of the stack to arguments and environment together.
    maximum = min(STRINGS_BYTES_MAX, spec.limits.stack_bytes // 4)
    if total > maximum:
        raise SpecError("argv", f"argv and env take {total} bytes; the maximum is {maximum}")


def check_path(field: str, path: str) -> str:
    """Return `path` if it names something beneath /box and nothing else; raises SpecError.

    Refused: absolute paths, empty components, "." and "..", NULs, names and paths that are too long
    or too deep. What is left needs no normalising.
    """
    encoded = _check_text(field, path)
    parts = encoded.split(b"/")
    if encoded.startswith(b"/"):
        raise SpecError(field, f"{path!r} is absolute; paths are relative to /box")
    if any(part in (b"", b".", b"..") for part in parts):
        raise SpecError(field, f"{path!r} has an empty, '.' or '..' component")
    if len(encoded) > PATH_BYTES_MAX or max(map(len, parts)) > NAME_BYTES_MAX:
        raise SpecError(field, f"longer than {PATH_BYTES_MAX} bytes, or {NAME_BYTES_MAX} a name")
    if len(parts) > PATH_DEPTH_MAX:
        raise SpecError(field, f"{len(parts)} components; the maximum is {PATH_DEPTH_MAX}")
    return path


def _bytes(field: str, content: str | Content) -> bytes:
    if isinstance(content, str):
        content = Content(text=content)
    if (content.text is UNSET) == (content.base64 is UNSET):
        raise SpecError(field, 'has to hold exactly one of "text" and "base64"')
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
        path=check_path(field, path),
        content=_bytes(field, content),
        mode=0o755 if executable else 0o644,
    )


def _directories(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _files(files: Mapping[str, str | FileContent]) -> tuple[InputFile, ...]:
    if len(files) > FILES_MAX:
        raise SpecError("files", f"{len(files)} files; the maximum is {FILES_MAX}")
    found = tuple(_file(path, content) for path, content in files.items())
    for file in found:
        for directory in _directories(file.path):
            if directory in files:
                raise SpecError(f"files.{file.path}", f"{directory!r} is a file as well")
    return found


def _check_room(spec: JobSpec) -> None:
    """Input that cannot fit is the caller's mistake: say so before a sandbox is made."""
    page = 4096
    pages = sum(-(-len(file.content) // page) * page for file in spec.files)
    if pages > spec.limits.disk_bytes:
        maximum = spec.limits.disk_bytes
        raise SpecError("files", f"take {pages} bytes of pages; limits.disk_bytes is {maximum}")
    directories = {entry for file in spec.files for entry in _directories(file.path)}
    # tmpfs counts its root among the inodes.
    inodes = 1 + len(spec.files) + len(directories)
    if inodes > spec.limits.files:
        raise SpecError("files", f"take {inodes} inodes; limits.files is {spec.limits.files}")


def _outputs(outputs: list[str]) -> tuple[Output, ...]:
    found = tuple(
        Output(check_path(f"outputs[{index}]", path.removesuffix("?")), path.endswith("?"))
        for index, path in enumerate(outputs)
    )
    names = [output.path for output in found]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SpecError(f"outputs[{index}]", f"{name!r} is named twice")
    return found
