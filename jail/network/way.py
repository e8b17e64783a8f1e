"""The way out: a program that carries the hub's packets into the host's network as an ordinary user does.

It is slirp4netns or pasta, which others wrote: each runs in the host's network namespace, holds a device in
the hub's, and makes of what comes out of it sockets of its own. Here stand its command, and the addresses
that both sides of the device have. Neither may lead to the host itself: their doors to its loopback and its
resolvers are shut, nothing is forwarded inwards, and their own sandboxes and filters are on.

What they let through is not left to them: the hub's rules are before them. See jail.network.egress.
"""

from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

DEVICE = "way"
"""The device's name in the hub."""

ADDRESSES = (IPv4Interface("10.106.254.100/24"), IPv6Interface("fd00::100/64"))
"""The hub's own on the device. slirp4netns knows no other network of IPv6."""

GATEWAYS = (ip_address("10.106.254.2"), ip_address("fd00::2"))
"""Where the hub sends what is to go out."""

MTU = 1500

TUN = "/dev/net/tun"
"""What they make the device with."""


def command(program: str, namespace: str) -> list[str]:
    """The command line. `program`: a path that ends with its name; `namespace`: that of the hub's."""
    make = _slirp4netns if program.endswith("slirp4netns") else _pasta
    return [program, *make(namespace)]


def _slirp4netns(namespace: str) -> list[str]:
    return [
        "--disable-host-loopback",
        "--disable-dns",
        "--enable-sandbox",
        "--enable-seccomp",
        "--enable-ipv6",
        f"--cidr={ip_interface(ADDRESSES[0]).network}",
        f"--mtu={MTU}",
        "--netns-type=path",
        namespace,
        DEVICE,
    ]


def _pasta(namespace: str) -> list[str]:
    """It filters its calls and leaves all files behind unasked."""
    forwards = [word for option in ("-t", "-u", "-T", "-U") for word in (option, "none")]
    addresses = [word for found in ADDRESSES for word in ("--address", str(found.ip))]
    gateways = [word for found in GATEWAYS for word in ("--gateway", str(found))]
    return [
        "--foreground",
        "--quiet",
        *forwards,
        "--no-map-gw",
        "--no-dhcp",
        "--no-dhcpv6",
        "--no-ra",
        *addresses,
        "--netmask",
        str(ADDRESSES[0].network.prefixlen),
        *gateways,
        "--mtu",
        str(MTU),
        "--ns-ifname",
        DEVICE,
        "--netns-only",
        "--netns",
        namespace,
    ]
