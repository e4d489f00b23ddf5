"""Who guesses keys is asked to wait. Sans-IO; `now` is always an argument, in monotonic seconds."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

__all__ = ["Throttle", "neighbourhood"]

KEPT = 10_000
"""Addresses remembered; the one that was silent for longest is forgotten first."""


def neighbourhood(address: str) -> str:
    """What is counted together: an IPv4 address, or the 64 bits of IPv6 that one subscriber has for himself."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped is not None else str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)


class Throttle:
    """Lets each address fail `allowance` times, and that often again each minute. An allowance of 0 lets all pass."""

    def __init__(self, allowance: int, kept: int = KEPT) -> None:
        self.allowance = allowance
        self._kept = kept
        # Address to (failures that count still, when that was).
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def _count(self, address: str, now: float) -> float:
        count, at = self._failures.get(address, (0.0, now))
        return max(0.0, count - max(0.0, now - at) * self.allowance / 60)

    def wait(self, address: str, now: float) -> float:
        """Seconds until this address may try again; 0 if it may now."""
        if not self.allowance or address not in self._failures:
            return 0.0
        surplus = self._count(address, now) + 1 - self.allowance
        # A hair of slack: whoever waits exactly as told must not be refused for a rounding error.
        return surplus * 60 / self.allowance if surplus > 1e-6 else 0.0

    def failed(self, address: str, now: float) -> None:
        """This address tried a key that is none."""
        if not self.allowance:
            return
        self._failures[address] = (self._count(address, now) + 1, now)
        self._failures.move_to_end(address)
        if len(self._failures) > self._kept:
            self._failures.popitem(last=False)
