"""The output validator of a package: found, built in a sandbox, and what is brought home of that."""

import tarfile
from collections.abc import Mapping
from io import BytesIO

import msgspec

from jail.errors import PackageError
from jail.limits import LimitsRequest
from jail.problems.files import Files
from jail.problems.metadata import Metadata
from jail.problems.programs import BUILD, RUN, Program, is_built, programs
from jail.problems.sources import Limits, Sources, encoded
from jail.spec import FILES_MAX, FileContent, Rules
from jail.spec import Program as Job

PACKED = ".built.tar"
"""What a job that builds one leaves: all of /box."""

_LEGACY, _MODERN = "output_validators", "output_validator"
_PACK = f'set -e; "$@"; exec tar -cf {PACKED} --exclude=./{PACKED} .'
_CURE = "Mend the package's output validator."


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a validator is made and run. build: leaves PACKED; None of one that runs as it is.

    files: /box of the build, or of the validator itself without one. run: without files.
    """

    files: dict[str, FileContent]
    build: Job | None
    run: Job


def find(files: Files, metadata: Metadata) -> Program | None:
    """The package's own validator, or None when the default one judges. Raises PackageError."""
    if not metadata.legacy:
        return _modern(files)
    if not metadata.custom_validator:
        return None
    found = list(programs(files, _LEGACY))
    if len(found) != 1:
        reason = f"{_LEGACY}/ has {len(found)} programs, and exactly one is supported"
        raise PackageError(f"The output validator cannot be used: {reason}.", _CURE)
    return found[0]


def _modern(files: Files) -> Program | None:
    """The folder is the program, or has it as its only directory."""
    above = f"{_MODERN}/"
    found = {path.removeprefix(above): path for path in files.sizes if path.startswith(above)}
    if not found:
        return None
    tops = {where.partition("/")[0] for where in found}
    if len(tops) == 1 and not tops & found.keys():
        found = {where.partition("/")[2]: path for where, path in found.items()}
    return Program(name=_MODERN, files=dict(sorted(found.items())))


def recipe(sources: Sources, program: Program) -> Recipe:
    """How a validator is made and run. Raises PackageError, SpecError."""
    limits = _limits(sources.metadata, sources.rules)
    if is_built(program):
        made = sources.encoded(program)
        build = Job(argv=[f"./{BUILD}"], limits=limits.compile) if BUILD in program.files else None
        run = Job(argv=[f"./{RUN}"], limits=limits.run)
    else:
        found = sources.validator(program, limits)
        made, build, run = found.files, found.compile, found.run
    return Recipe(files=made, build=build and _packing(build, made, sources.rules), run=run)


def _limits(metadata: Metadata, rules: Rules) -> Limits:
    """Its time is the package's to say; what it may take besides is what anybody may, if that is less."""
    most = rules.ceilings
    run = LimitsRequest(
        cpu_ms=min(metadata.validation_ms, most.cpu_ms),
        wall_ms=min(2 * metadata.validation_ms, most.wall_ms),
        memory_bytes=metadata.validation_memory_bytes
        and min(metadata.validation_memory_bytes, most.memory_bytes),
    )
    build = LimitsRequest(
        cpu_ms=min(metadata.compilation_ms or _BUILD_MS, most.cpu_ms),
        wall_ms=min(2 * (metadata.compilation_ms or _BUILD_MS), most.wall_ms),
        memory_bytes=min(metadata.compilation_memory_bytes or _BUILD_BYTES, most.memory_bytes),
    )
    return Limits(run=run, compile=build)


# Those that the format calls typical.
_BUILD_MS = 60_000
_BUILD_BYTES = 2 << 30


def _packing(build: Job, files: Mapping[str, FileContent], rules: Rules) -> Job:
    limits = msgspec.structs.replace(build.limits, output_bytes=rules.ceilings.output_bytes)
    argv = ["sh", "-c", _PACK, "sh", *build.argv]
    return msgspec.structs.replace(build, argv=argv, files=dict(files), outputs=[PACKED], limits=limits)


def unpacked(packed: bytes) -> dict[str, FileContent]:
    """The files of a build. Raises PackageError: whoever builds can leave anything."""
    try:
        with tarfile.open(fileobj=BytesIO(packed), mode="r:") as archive:
            return _unpacked(archive, len(packed))
    except (tarfile.TarError, ValueError, EOFError, RecursionError) as error:
        raise _wrong(f"its build left nothing that can be read: {error}") from None


def _unpacked(archive: tarfile.TarFile, bytes_max: int) -> dict[str, FileContent]:
    found: dict[str, FileContent] = {}
    left = bytes_max
    for member in archive:
        if not member.isreg():
            continue
        left -= member.size
        # A file that is full of holes is longer than the archive.
        if left < 0 or len(found) >= FILES_MAX:
            raise _wrong(f"its build left more than {FILES_MAX} files, or longer ones than there are bytes")
        file = archive.extractfile(member)
        text = file.read() if file else b""
        found[member.name.removeprefix("./")] = encoded(text, bool(member.mode & 0o111))
    return found


def _wrong(reason: str) -> PackageError:
    return PackageError(f"The output validator cannot be used: {reason}.", _CURE)
