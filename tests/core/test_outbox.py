"""Writes of one turn: gathered, in order, and lost with their connection only. Both twins say so, Python and C."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relay.outbox
from relay.outbox import COMPILED
from tests.core.twins import pure
from tests.effort import times

PURE = pure(relay.outbox)
TWINS = [PURE, relay.outbox] if COMPILED else [PURE]
both = pytest.mark.parametrize("twin", TWINS, ids=["python", "c"][: len(TWINS)])


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

    def get_write_buffer_size(self) -> int:
        return 0


def test_the_one_in_c_is_there_where_it_is_demanded() -> None:
    if os.environ.get("I8RELAY_REQUIRE_COMPILED"):
        assert COMPILED
    assert not PURE.COMPILED


@both
async def test_one_turns_writes_go_out_at_its_end_as_one_for_each_connection(twin: Any) -> None:
    outbox, first, second = twin.Outbox(asyncio.get_running_loop(), "ab"), Wire(), Wire()
    outbox.write(first, b"a")
    outbox.write(second, b"x")
    outbox.write(first, b"b")
    assert first.written == second.written == []
    await asyncio.sleep(0)
    assert (first.written, second.written) == ([b"ab"], [b"x"])
    outbox.write(first, b"c")
    await asyncio.sleep(0)
    assert first.written == [b"ab", b"c"]


@both
async def test_a_lone_call_waits_for_nothing(twin: Any) -> None:
    outbox, wire = twin.Outbox(asyncio.get_running_loop(), "a"), Wire()
    outbox.write(wire, b"a")
    assert wire.written == [b"a"]


@both
async def test_nothing_overtakes_what_waits(twin: Any) -> None:
    busy = {1, 2}
    outbox, wire, other = twin.Outbox(asyncio.get_running_loop(), busy), Wire(), Wire()
    outbox.write(wire, b"a")
    busy.clear()
    outbox.write(wire, b"b")
    outbox.write(other, b"c")
    await asyncio.sleep(0)
    assert (wire.written, other.written) == ([b"ab"], [b"c"])


@both
async def test_a_connection_that_will_be_closed_gets_its_last_words_first(twin: Any) -> None:
    outbox, wire, other = twin.Outbox(asyncio.get_running_loop(), "ab"), Wire(), Wire()
    outbox.write(wire, b"a")
    outbox.write(other, b"x")
    outbox.release(wire)
    outbox.release(wire)
    assert (wire.written, other.written) == ([b"a"], [])
    await asyncio.sleep(0)
    assert (wire.written, other.written) == ([b"a"], [b"x"])


@both
async def test_what_waits_for_a_connection_that_is_closed_is_dropped(twin: Any) -> None:
    outbox, wire, other = twin.Outbox(asyncio.get_running_loop(), "ab"), Wire(), Wire()
    outbox.write(wire, b"a")
    outbox.write(other, b"x")
    wire.closing = True
    outbox.flush()
    assert (wire.written, other.written) == ([], [b"x"])


@both
async def test_pieces_are_kept_apart_where_nothing_waits_and_in_order_where_something_does(twin: Any) -> None:
    busy: set[int] = set()
    outbox, wire = twin.Outbox(asyncio.get_running_loop(), busy), Wire()
    outbox.writelines(wire, (b"a", b"b"))
    assert wire.written == [b"ab"]
    busy |= {1, 2}
    outbox.write(wire, b"c")
    outbox.writelines(wire, [b"d", b"e"])
    outbox.writelines(wire, ())
    assert wire.written == [b"ab"]
    await asyncio.sleep(0)
    assert wire.written == [b"ab", b"cde"]


@both
async def test_what_is_written_while_it_is_sent_waits_for_the_next_turn(twin: Any) -> None:
    outbox, wire, other = twin.Outbox(asyncio.get_running_loop(), "ab"), Wire(), Wire()

    class Answering(Wire):
        def write(self, data: bytes) -> None:
            super().write(data)
            outbox.write(wire, b"again")

    outbox.write(Answering(), b"a")
    outbox.write(wire, b"first")
    outbox.write(other, b"x")
    outbox.flush()
    assert (wire.written, other.written) == ([b"first"], [b"x"])
    await asyncio.sleep(0)
    assert wire.written == [b"first", b"again"]


@both
async def test_what_a_connection_raises_is_raised(twin: Any) -> None:
    busy: set[int] = set()
    outbox = twin.Outbox(asyncio.get_running_loop(), busy)

    class Broken(Wire):
        def write(self, data: bytes) -> None:
            raise ConnectionResetError

        def is_closing(self) -> bool:
            if self.closing:
                raise RuntimeError("no idea")
            return False

    wire = Broken()
    with pytest.raises(ConnectionResetError):
        outbox.write(wire, b"a")
    busy |= {1, 2}
    outbox.write(wire, b"a")
    with pytest.raises(ConnectionResetError):
        outbox.release(wire)
    outbox.write(wire, b"a")
    wire.closing = True
    with pytest.raises(RuntimeError):
        outbox.flush()
    outbox.flush()
    with pytest.raises(TypeError):
        outbox.write([], b"a")


@both
async def test_an_outbox_goes_with_those_that_it_knows(twin: Any) -> None:
    outbox, wire = twin.Outbox(asyncio.get_running_loop(), "ab"), Wire()
    outbox.write(wire, b"a")
    outbox.flush()
    gone = weakref.ref(wire)
    del wire
    assert gone() is None, "nothing of what was sent is kept"


@pytest.mark.skipif(not COMPILED, reason="it is about the one in C")
@pytest.mark.parametrize(
    "wrong",
    [
        lambda outbox: type(outbox)(),
        lambda outbox: type(outbox)(loop=1, busy=2),
        lambda outbox: outbox.write(),
        lambda outbox: outbox.write(1, 2, 3),
        lambda outbox: outbox.writelines(1),
        lambda outbox: outbox.writelines(1, 2),
        lambda outbox: outbox.release(),
        lambda outbox: outbox.flush(1),
    ],
)
async def test_what_is_no_use_of_it_is_a_type_error(wrong: Callable[[Any], None]) -> None:
    outbox: Any = relay.outbox.Outbox(asyncio.get_running_loop(), "ab")
    with pytest.raises(TypeError):
        wrong(outbox)
    with pytest.raises(AttributeError):
        type(outbox)(None, ())
    uncounted: Any = relay.outbox.Outbox(asyncio.get_running_loop(), None)  # type: ignore[arg-type]
    for say in (uncounted.write, uncounted.writelines):
        with pytest.raises(TypeError):
            say(Wire(), b"")


class Loop:
    """Calls when it is told to."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.soon.append(call)

    def turn(self) -> None:
        calls, self.soon = self.soon, []
        for call in calls:
            call()


@pytest.mark.skipif(not COMPILED, reason="there is only one")
@settings(max_examples=times(150), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["write", "writelines", "release", "turn", "flush", "closing", "enter", "leave"]),
            st.integers(0, 2),
        ),
        max_size=30,
    )
)
def test_both_do_the_same_with_everything(steps: list[tuple[str, int]]) -> None:
    one, two = (ran(twin, steps) for twin in TWINS)
    assert one == two


def ran(twin: Any, steps: list[tuple[str, int]]) -> tuple[list[list[bytes]], int]:
    """What was written to each connection, and how many calls the loop still has to make."""
    busy, loop, wires = {0}, Loop(), [Wire(), Wire(), Wire()]
    outbox = twin.Outbox(loop, busy)
    for number, (step, which) in enumerate(steps):
        wire, data = wires[which], b"%d " % number
        if step == "write":
            outbox.write(wire, data)
        elif step == "writelines":
            outbox.writelines(wire, (data, memoryview(data)))
        elif step == "release":
            outbox.release(wire)
        elif step == "closing":
            wire.closing = True
        else:
            ways: dict[str, Callable[[], Any]] = {
                "turn": loop.turn,
                "flush": outbox.flush,
                "enter": lambda: busy.add(1),
                "leave": lambda: busy.discard(1),
            }
            ways[step]()
    return [wire.written for wire in wires], len(loop.soon)
