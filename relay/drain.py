"""The end of a server's connections: calls finish, or are told in their own dialect that they cannot."""

from __future__ import annotations

import asyncio
import contextlib

from relay.gate import Gate, Gates
from relay.life import Stopping

__all__ = ["drain"]

LOOK = 0.02
"""Seconds between two looks."""
LOOKS = 50
"""How many of them clients get to take the last words."""


async def drain(server: Gates, seconds: float, hurry: asyncio.Event) -> int:
    """Let open calls finish for that long, or until `hurry` is set, then end them. Gives how many had to be ended.

    Idle connections are closed at once. Nobody is waited for longer than `seconds` and a second more: neither clients
    that do not read nor upstreams that say nothing.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    abandoned = server.relay.abandoned
    while (_close_idle(server) or abandoned) and loop.time() < deadline and not hurry.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK):
                await hurry.wait()
    ended = [gate for gate in _gates(server) if gate.busy()]
    for gate in ended:
        gate.stop(Stopping())
    for call in tuple(abandoned):
        call.stop(Stopping())
    server.relay.outbox.flush()
    for _ in range(LOOKS):
        if not (_close_idle(server) or _unsent(server)):
            break
        await asyncio.sleep(LOOK)
    for transport in server.transports():
        transport.abort()
    return len(ended)


def _gates(server: Gates) -> list[Gate]:
    return [gate for gate in server.connections if isinstance(gate, Gate)]


def _close_idle(server: Gates) -> bool:
    """Close the connections without a call. Whether there are others."""
    gates = _gates(server)
    busy = [gate for gate in gates if gate.busy()]
    for gate in set(gates).difference(busy):
        gate.force_close()
    return bool(busy)


def _unsent(server: Gates) -> bool:
    return any(transport.get_write_buffer_size() for transport in server.transports())
