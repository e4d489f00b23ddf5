"""Writes of one turn: gathered, in order, and lost with their connection only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from relay.outbox import Outbox


class Wire:
    """Takes what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.written.append(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.closing


async def test_one_turns_writes_go_out_at_its_end_as_one_for_each_connection() -> None:
    outbox, first, second = Outbox(asyncio.get_running_loop(), "ab"), Wire(), Wire()
    outbox.write(first, b"a")
    outbox.write(second, b"x")
    outbox.write(first, b"b")
    assert first.written == second.written == []
    await asyncio.sleep(0)
    assert (first.written, second.written) == ([b"ab"], [b"x"])
    outbox.write(first, b"c")
    await asyncio.sleep(0)
    assert first.written == [b"ab", b"c"]


async def test_a_lone_call_waits_for_nothing() -> None:
    outbox, wire = Outbox(asyncio.get_running_loop(), "a"), Wire()
    outbox.write(wire, b"a")
    assert wire.written == [b"a"]


async def test_nothing_overtakes_what_waits() -> None:
    busy = {1, 2}
    outbox, wire, other = Outbox(asyncio.get_running_loop(), busy), Wire(), Wire()
    outbox.write(wire, b"a")
    busy.clear()
    outbox.write(wire, b"b")
    outbox.write(other, b"c")
    await asyncio.sleep(0)
    assert (wire.written, other.written) == ([b"ab"], [b"c"])


async def test_a_connection_that_will_be_closed_gets_its_last_words_first() -> None:
    outbox, wire, other = Outbox(asyncio.get_running_loop(), "ab"), Wire(), Wire()
    outbox.write(wire, b"a")
    outbox.write(other, b"x")
    outbox.release(wire)
    outbox.release(wire)
    assert (wire.written, other.written) == ([b"a"], [])
    await asyncio.sleep(0)
    assert (wire.written, other.written) == ([b"a"], [b"x"])


async def test_what_waits_for_a_connection_that_is_closed_is_dropped() -> None:
    outbox, wire, other = Outbox(asyncio.get_running_loop(), "ab"), Wire(), Wire()
    outbox.write(wire, b"a")
    outbox.write(other, b"x")
    wire.closing = True
    outbox.flush()
    assert (wire.written, other.written) == ([], [b"x"])
