"""What a job with a way out may reach, in addresses: names are resolved once, when it is taken, and stay so.

The sandbox has no resolver: its /etc/hosts tells these addresses, and the hub lets through to them alone.
Whoever controls the name can change what it means until then, not afterwards; and every address that it has
is held against the same table as those that are asked for by number.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_network

from msgspec import structs

from jail.destinations import AddressRange, refusal
from jail.errors import SandboxError
from jail.network.protocol import ALLOWED_MAX, Allowed
from jail.spec import JobSpec, SpecError

# Half of what init takes: the others are names of processes.
_HOSTS_BYTES_MAX = 32768

Resolve = Callable[[str], Awaitable[tuple[tuple[str, ...], str]]]
"""The addresses of a host, or none and why."""


async def pin(job: JobSpec, resolve: Resolve, excepted: Iterable[AddressRange]) -> JobSpec:
    """The same job with the addresses of its hosts. Raises SpecError for a host, SandboxError for `resolve`.

    `excepted`: what the operator lets jobs reach beside the internet at large.
    """
    wanted = {found.host: index for index, found in enumerate(job.destinations) if found.host is not None}
    answers = await asyncio.gather(*map(resolve, wanted))
    excepted = tuple(excepted)
    pins = {
        host: _checked(f"network.allow[{index}].host", host, answer, excepted)
        for (host, index), answer in zip(wanted.items(), answers, strict=True)
    }
    pinned = structs.replace(job, pins=pins)
    if len(hosts(pinned)) > _HOSTS_BYTES_MAX:
        raise SpecError("network.allow", f"its hosts take more than {_HOSTS_BYTES_MAX} bytes of /etc/hosts")
    if len(allowed(pinned)) > ALLOWED_MAX:
        raise SpecError("network.allow", f"its hosts have more than {ALLOWED_MAX} addresses together")
    return pinned


def _checked(
    field: str, host: str, answer: tuple[tuple[str, ...], str], excepted: tuple[AddressRange, ...]
) -> tuple[AddressRange, ...]:
    addresses, why = answer
    if not addresses:
        raise SpecError(field, f"{host!r} cannot be resolved: {why}")
    found = tuple(map(ip_network, addresses))
    for network in found:
        # One is enough: who has it answers for all of them.
        if refused := refusal(network, excepted):
            raise SpecError(field, f"{host!r} has the address {network.network_address}: {refused}")
    return found


def allowed(job: JobSpec) -> tuple[Allowed, ...]:
    """What the hub is to let through for a job. Raises SandboxError where a host has no addresses yet."""
    found = []
    for wanted in job.destinations:
        networks = [wanted.network] if wanted.network else job.pins.get(wanted.host)
        if networks is None:
            raise SandboxError("network")
        found += [Allowed(str(network), wanted.port, wanted.protocol) for network in networks]
    return tuple(found)


def hosts(job: JobSpec) -> str:
    """Where each host of a job is: lines of /etc/hosts."""
    return "".join(
        f"{network.network_address} {host}\n" for host, networks in job.pins.items() for network in networks
    )
