"""Where upstream connections may lead, judged by the address that is about to be connected to.

A URL is only a name: what it leads to is decided when it is resolved, and may be decided otherwise the next time. So
the judge sits where sockets are made, and sees every address, however it was come by: written out, resolved, or hidden
in one of the forms that carry an IPv4 address inside.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeAlias

from aiohappyeyeballs import start_connection

from relay.errors import Unavailable, UpstreamUnreachable
from relay.family import Upstream, is_loopback

__all__ = [
    "EXHAUSTED",
    "PERMIT",
    "Forbidden",
    "Permit",
    "by_permit",
    "connected",
    "exhausted",
    "permit_for",
    "refusal",
    "verdict",
]

AddrInfo: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

NEVER = tuple(
    ipaddress.ip_network(text)
    for text in (
        # Link-local: among others the metadata services of clouds, which give credentials to whoever asks.
        *("169.254.0.0/16", "fe80::/10"),
        # The same at addresses of their own.
        *("fd00:ec2::254/128", "fd20:ce::254/128", "100.100.100.200/32", "192.0.0.192/32"),
        # Nobody in particular, everybody, and what has no meaning yet.
        *("0.0.0.0/8", "::/128", "224.0.0.0/4", "ff00::/8", "240.0.0.0/4", "100::/64"),
    )
)
"""Where no upstream is, whatever name leads there."""
PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
        *("192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("fc00::/7", "fec0::/10", "2001:db8::/32", "3fff::/20"),
        # Relays to other networks that are no more, and what names something else than a place.
        *("192.88.99.0/24", "5f00::/16", "2001:10::/28", "2001:20::/28"),
    )
)
"""Where only those upstreams are that say so."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Faults of this process, or of its machine."""
LOCAL_ENDS = (".local", ".lan", ".home", ".internal", ".intranet", ".corp", ".home.arpa", ".localdomain", ".svc")
"""Ends of names that mean nothing outside of a private network."""


class Forbidden(OSError):
    """This address is not one for that upstream."""


class Permit:
    """What one upstream's name may lead to. `host` is as its URL says it."""

    __slots__ = ("host", "literal", "private")

    def __init__(self, host: str, *, private: bool = False) -> None:
        self.host = host
        self.literal = _address(host)
        """The address, if the configuration says one outright: then it is what was meant."""
        self.private = private or self.literal is not None or _says_private(host)


PERMIT: ContextVar[Permit | None] = ContextVar("permit", default=None)
"""For the connections that the current task makes, where no argument reaches: aiohttp's connector."""


def permit_for(host: str, upstream: Upstream) -> Permit:
    """The permit of one of an upstream's hosts."""
    return Permit(host, private=upstream.allow_private)


def _address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _says_private(host: str) -> bool:
    """Whether a name is one of a private network by itself: `localhost`, one word, or a local domain."""
    name = host.rstrip(".").lower()
    return is_loopback(name) or "." not in name or name.endswith(LOCAL_ENDS)


def _inside(address: Address) -> Address:
    """The IPv4 address that an IPv6 address carries, if it carries one: that is where a connection would end."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    value = int(address)
    high = value >> 32
    # 64:ff9b::/96 and 64:ff9b:1::/48 are translated by NAT64, and ::ffff:0:0:0/96 by its forerunner; ::/96 is how
    # compatible addresses once were written; and in any network 5efe stands before the address of a tunnel's end.
    if (
        high in (0x64FF9B << 64, 0xFFFF0000)
        or value >> 80 == 0x64FF9B0001
        or (high == 0 and value > 1)
        or high & 0xFDFFFFFF == 0x5EFE
    ):
        return ipaddress.IPv4Address(value & 0xFFFFFFFF)
    return address


def verdict(text: str, permit: Permit) -> str | None:
    """Why an address is refused to an upstream; None if it is not."""
    address = _address(text)
    if address is None:
        return "is no address"
    if address == permit.literal:
        return None
    for seen in (address, _inside(address)):
        if any(seen in network for network in NEVER):
            return "is one where no upstream is"
        if not permit.private and any(seen in network for network in PRIVATE):
            return "is of a private network, which takes allow_private = true"
    return None


def judged_socket(permit: Permit) -> Callable[[Any], socket.socket]:
    """What makes sockets for the addresses that a permit allows. Raises Forbidden for others."""

    def made(info: AddrInfo) -> socket.socket:
        family, kind, protocol, _, place = info
        reason = verdict(str(place[0]), permit)
        if reason is not None:
            raise Forbidden(f"the name {permit.host} leads to an address that {reason}")
        return socket.socket(family, kind, protocol)

    return made


async def connected(host: str, port: int, permit: Permit) -> socket.socket:
    """A socket that leads there: the first address to answer of those that are allowed. Raises OSError."""
    loop = asyncio.get_running_loop()
    if permit.literal is not None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    else:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # An address that does not answer costs a quarter of a second, and not the whole time that there is to connect.
    return await start_connection(found, happy_eyeballs_delay=0.25, socket_factory=judged_socket(permit))


def by_permit(info: Any) -> socket.socket:
    """The same for the current task's permit."""
    permit = PERMIT.get()
    if permit is None:
        raise Forbidden("nobody said where this connection may lead")
    return judged_socket(permit)(info)


def exhausted() -> Unavailable:
    """What callers are told when this process has no descriptors left: no upstream is to blame for that."""
    return Unavailable("the relay has too many connections open", code="overloaded", retry_after=1.0)


def refusal(error: Forbidden) -> UpstreamUnreachable:
    """What callers are told; why is for the log."""
    return UpstreamUnreachable("the upstream's address is not one that it may have", code="upstream_address_refused")
