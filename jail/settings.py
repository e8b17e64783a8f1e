"""Settings: one TOML file and JAIL_* variables, read here and nowhere else.

A variable is named after its setting: `queue` is JAIL_QUEUE, `defaults.cpu_ms` is
JAIL_DEFAULTS_CPU_MS; lists are separated by commas. Variables win over the file.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from jail import destinations, host, limits
from jail.limits import CEILINGS, MIB, PROCESSES_MAX, Limits

FILE_VARIABLE = "JAIL_CONFIG"

_DIGEST = re.compile("[0-9a-fA-F]{64}")
_VOLUME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

DEGRADABLE = ("landlock", "swap")
"""Weaknesses that an operator can accept by name, and that every result then lists.

landlock: the kernel has no Landlock. swap: cgroup v1 cannot count swap, and the host has some.
"""


EGRESS_PROGRAMS = ("slirp4netns", "pasta")
"""What can be the way out, in the order in which it is looked for: see jail.network.way."""

# Less than a frame in a while is no network; the kernel's field has 32 bits.
EGRESS_BYTES_PER_S_MIN, EGRESS_BYTES_PER_S_MAX = 10_000, 4_000_000_000

NETWORKS = ("none", "isolated")
"""What networks there are for jobs: see jail.spec.Network."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Every setting, its unit in its name or here, and its default.

    address: HOST:PORT to listen on, unless a service manager hands over a socket. Another than loopback
    needs a key.
    keys_sha256: hexadecimal SHA-256 digests of the keys that callers send as "Authorization: Bearer".
    admin_keys_sha256: the same of those who may administer images over HTTP; empty, nobody may.
    workers: processes that take requests, each with a supervisor. slots, memory_bytes, queue and what is
    ready are the whole service's and divided among them: a job can have no more memory than a worker's share.
    slots: jobs at once, one for each worker at least; 0 is one for each processor it may use, at least two.
    processes: the most of one job, each of which takes a slot; no more than each worker has.
    memory_bytes: for all jobs together; 0 is three quarters of the host's memory, or of the container's.
    ready_min, ready_max: sandboxes that are made ahead of time, of the image `host` however few jobs come,
    and of all images together however many; 0 makes each when its job is there. A ready_min that is not given
    follows a lower ready_max.
    ready_memory_bytes: for all of those.
    pin: each job runs on processors of its own, as many as its `cpus`, while there are enough; jobs beyond
    that share those with the fewest. Times are more alike then beside busy neighbours; what is idle
    elsewhere is of no use to a job. No policy allows sched_setaffinity then. Workers divide the processors.
    queue: jobs that may wait. body_bytes: the largest request body.
    drain_ms: how long running jobs may finish after SIGTERM.
    networks: what a job may ask for, of NETWORKS; empty is what this host can give.
    egress: destinations outside that jobs may ask for as well, each PLACE:PORT/PROTOCOL: a place is a name,
    *.NAME for all beneath it, a network (of IPv6 in brackets) or * for any; a port is a number, FIRST-LAST
    or *. Empty, no job has a way out.
    egress_private: ranges among them that jobs may reach though they are not of the internet at large:
    private, link-local, metadata of clouds, reserved. Loopback and multicast cannot be.
    egress_bytes_per_s: of each sandbox, in each direction. egress_connections: of each, at once.
    egress_program: slirp4netns or pasta; empty is whichever is installed.
    policies: a directory of policies; empty is the shipped ones.
    languages: a file of languages, as jail/languages/languages.toml is; empty is that one.
    volumes: directories of the host that jobs may ask for, read-only, by name: a table, or NAME=PATH in a
    variable. Nothing may be mounted in them.
    state: a directory of this user's for what lives as long as the service; empty is
    $XDG_STATE_HOME/jail, or ~/.local/state/jail. One and the same for all services of a user: there
    they agree on who has which subordinate ids.
    images: a directory of this user's for images, made by `jail image`; empty is `state`/images.
    images_bytes: the most that all of them may take up there, archives and unpacked layers, and what is on
    its way; 0 is as much as the disk has. image_bytes, image_entries: the most of one image, of its layers
    unpacked, in blocks of 4 KiB, and of the files, directories and links in them.
    files: a directory of this user's for files that callers send and name in jobs; empty is `state`/files.
    files_bytes: the most that one owner's may take up there; the least recently used of them go first. 0 is
    as much as the disk has. file_bytes: the most of one. files_age_s: how long one is kept that nobody uses,
    in seconds; 0 is for ever.
    allow_degraded: weaknesses of the host that the operator accepts, of DEGRADABLE.
    defaults, ceilings: limits of a job that names none, and the most that it may name.
    """

    address: str = "127.0.0.1:8099"
    keys_sha256: tuple[str, ...] = ()
    admin_keys_sha256: tuple[str, ...] = ()
    workers: int = 1
    slots: int = 0
    processes: int = PROCESSES_MAX
    memory_bytes: int = 0
    ready_min: int = 4
    ready_max: int = 64
    ready_memory_bytes: int = 64 * MIB
    pin: bool = False
    queue: int = 256
    body_bytes: int = 64 * MIB
    drain_ms: int = 10_000
    networks: tuple[str, ...] = ()
    egress: tuple[str, ...] = ()
    egress_private: tuple[str, ...] = ()
    egress_bytes_per_s: int = 10 * MIB
    egress_connections: int = 64
    egress_program: str = ""
    policies: str = ""
    languages: str = ""
    volumes: dict[str, str] = {}
    state: str = ""
    images: str = ""
    images_bytes: int = 0
    image_bytes: int = 16 * 1024 * MIB
    image_entries: int = 1_000_000
    files: str = ""
    files_bytes: int = 8 * 1024 * MIB
    file_bytes: int = 2 * 1024 * MIB
    files_age_s: int = 30 * 24 * 3600
    allow_degraded: tuple[str, ...] = ()
    defaults: Limits = Limits()
    ceilings: Limits = CEILINGS


_DIVIDED = ("slots", "memory_bytes", "ready_min", "ready_max", "ready_memory_bytes", "queue")


class SettingsError(ValueError):
    """A setting that is wrong; the text names it, its value and what it may be."""


def load(
    environment: Mapping[str, str] | None = None, config: str | None = None, workers: int | None = None
) -> Settings:
    """The settings of this process, from the file `config` or JAIL_CONFIG. Raises SettingsError.

    `workers`, if given, wins over both.
    """
    environment = os.environ if environment is None else environment
    path = config or environment.get(FILE_VARIABLE)
    values = _read_file(Path(path)) if path else {}
    _add_variables(values, environment)
    if workers is not None:
        values["workers"] = workers
    if isinstance(given := values.get("ceilings", {}), dict):
        # Limits' own defaults are those of jobs.
        values["ceilings"] = msgspec.structs.asdict(CEILINGS) | given
    try:
        found = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path or 'JAIL_* variables'}: {error}") from None
    if "ready_min" not in values:
        follows = max(0, min(found.ready_min, found.ready_max))
        found = msgspec.structs.replace(found, ready_min=follows)
    return _complete(found, environment)


def for_one_job(found: Settings) -> Settings:
    """The same, for an engine that runs one job: nothing is made ahead of time, and nobody administers."""
    return msgspec.structs.replace(found, ready_min=0, ready_max=0, admin_keys_sha256=())


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}") from None


def _add_variables(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    known = {FILE_VARIABLE}
    for field in msgspec.structs.fields(Settings):
        if field.type is Limits:
            for name in Limits.__struct_fields__:
                variable = f"JAIL_{field.name}_{name}".upper()
                known.add(variable)
                if variable in environment and isinstance(values.setdefault(field.name, {}), dict):
                    values[field.name][name] = environment[variable]
            continue
        variable = f"JAIL_{field.name}".upper()
        known.add(variable)
        if variable in environment:
            text = environment[variable]
            values[field.name] = _value(field, variable, text)
    unknown = sorted(name for name in environment if name.startswith("JAIL_") and name not in known)
    if unknown:
        raise SettingsError(f"{unknown[0]} is not a setting; known: {', '.join(sorted(known))}")


def _value(field: msgspec.structs.FieldInfo, variable: str, text: str) -> str | list[str] | dict[str, str]:
    if isinstance(field.default, tuple):
        return _items(text)
    if field.default_factory is not dict:
        return text
    pairs = [item.partition("=") for item in _items(text)]
    if not all(found for _, found, _ in pairs):
        raise SettingsError(f"{variable} holds an item that is not NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")] if text else []


def _complete(found: Settings, environment: Mapping[str, str]) -> Settings:
    """Fill in what depends on the host, and refuse what does not fit together."""
    replace = msgspec.structs.replace
    slots = found.slots or max(2, host.cpus(), found.workers)
    _check_workers(found, slots)
    memory_bytes = found.memory_bytes or host.memory_bytes() * 3 // 4
    # What a job may have must not depend on which worker takes it.
    memory_bytes -= memory_bytes % found.workers
    processes = min(found.processes, PROCESSES_MAX, slots // found.workers)
    state = found.state or _state_directory(environment)
    # A job that can never run must be refused when it is sent, not wait for ever.
    most_bytes = memory_bytes // found.workers
    ceilings = replace(found.ceilings, memory_bytes=min(found.ceilings.memory_bytes, most_bytes))
    # What no job can have is no default either.
    defaults = replace(found.defaults, memory_bytes=min(found.defaults.memory_bytes, most_bytes))
    numbers = [field.name for field in msgspec.structs.fields(Settings) if field.type is int]
    for name in numbers:
        if getattr(found, name) < 0:
            raise SettingsError(f"{name} = {getattr(found, name)} is below 0")
    if found.ready_min > found.ready_max:
        above = f"ready_min = {found.ready_min} is above ready_max = {found.ready_max}"
        raise SettingsError(f"{above}: lower the one or raise the other")
    for name in ("image_bytes", "image_entries", "file_bytes"):
        if getattr(found, name) < 1:
            raise SettingsError(f"{name} = {getattr(found, name)} is below 1: nothing would fit")
    _check_names("networks", found.networks, NETWORKS)
    _check_egress(found)
    _check_volumes(found.volumes)
    _check_names("allow_degraded", found.allow_degraded, DEGRADABLE)
    for setting in ("keys_sha256", "admin_keys_sha256"):
        if not all(_DIGEST.fullmatch(key) for key in getattr(found, setting)):
            raise SettingsError(f"{setting} holds what is not the 64 hexadecimal digits of a SHA-256")
    for table, checked in (("ceilings", ceilings), ("defaults", defaults)):
        try:
            limits.check(checked, ceilings)
        except limits.LimitError as error:
            raise SettingsError(f"{table}.{error.field}: {error}") from None
    return replace(
        found,
        slots=slots,
        processes=processes,
        memory_bytes=memory_bytes,
        state=state,
        images=found.images or str(Path(state, "images")),
        files=found.files or str(Path(state, "files")),
        defaults=defaults,
        ceilings=ceilings,
    )


def _check_names(setting: str, names: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SettingsError(f"{setting} names {unknown[0]!r}; it may name {', '.join(known)}")


def _check_volumes(volumes: Mapping[str, str]) -> None:
    for name, path in volumes.items():
        if not _VOLUME.fullmatch(name):
            raise SettingsError(f"volumes.{name}: a name is of letters, digits, '.', '_' and '-'")
        # As overlay's lowerdir= has them, of which these are the marks between.
        if not path.startswith("/") or any(mark in path for mark in ":,\\"):
            raise SettingsError(f"volumes.{name} = {path!r} is no absolute path without ':', ',' and '\\'")


def _check_egress(found: Settings) -> None:
    for setting, parse in (
        ("egress", destinations.parse_offer),
        ("egress_private", destinations.parse_exception),
    ):
        for index, text in enumerate(getattr(found, setting)):
            try:
                parse(text)
            except ValueError as error:
                raise SettingsError(f"{setting}[{index}]: {error}") from None
    for setting, least in (("egress_bytes_per_s", EGRESS_BYTES_PER_S_MIN), ("egress_connections", 1)):
        if getattr(found, setting) < least:
            raise SettingsError(f"{setting} = {getattr(found, setting)} is below {least}")
    if found.egress_bytes_per_s > EGRESS_BYTES_PER_S_MAX:
        most = f"is above {EGRESS_BYTES_PER_S_MAX}"
        raise SettingsError(f"egress_bytes_per_s = {found.egress_bytes_per_s} {most}")
    if found.egress_program not in ("", *EGRESS_PROGRAMS):
        known = ", ".join(EGRESS_PROGRAMS)
        raise SettingsError(f"egress_program is {found.egress_program!r}; it may be {known}")


def _check_workers(found: Settings, slots: int) -> None:
    if found.workers < 1:
        raise SettingsError(f"workers = {found.workers} is below 1")
    if 0 <= slots < found.workers:
        raise SettingsError(f"slots = {slots} is below workers = {found.workers}: each needs one")
    if found.pin and found.workers > len(host.processors()):
        raise SettingsError(f"workers = {found.workers} is above the number of processors, and pin is set")


def share(whole: Settings, number: int) -> Settings:
    """What worker `number`, from 0 on, has of the service's; together they have all of it."""
    # Rounded up for the first ones, so that their sum is the whole.
    others = whole.workers - 1 - number
    parts = {name: (getattr(whole, name) + others) // whole.workers for name in _DIVIDED}
    return msgspec.structs.replace(whole, **parts)


def _state_directory(environment: Mapping[str, str]) -> str:
    base = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return str(Path(base, "jail"))
