"""Two that let chunks pass, one in Python and one in C: they must do the same with everything."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relay.valve
from relay.mould import Mould
from relay.outbox import Buffer, Writable
from relay.valve import COMPILED, LONGEST
from tests.core.twins import pure
from tests.effort import times

PURE = pure(relay.valve)
TWINS = [PURE, relay.valve] if COMPILED else [PURE]
both = pytest.mark.parametrize("twin", TWINS, ids=["python", "c"][: len(TWINS)])
MOULD = Mould(b'he "', b'" lo')
OTHER = Mould(b'data: "', b'"\n\n')


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def said(text: bytes) -> bytes:
    return chunk(MOULD.head + text + MOULD.tail)


OTHERS = chunk(OTHER.head + OTHER.tail)
ODD = chunk(b"her")


class Client:
    """A connection to a client, as a valve sees it."""

    def __init__(self) -> None:
        self.closing: Any = False
        self.waiting: Any = 0

    def write(self, data: Buffer) -> None:
        raise AssertionError("everything goes by the outbox")

    def writelines(self, pieces: Iterable[Buffer]) -> None:
        raise AssertionError("everything goes by the outbox")

    def is_closing(self) -> bool:
        if isinstance(self.closing, BaseException):
            raise self.closing
        return bool(self.closing)

    def get_write_buffer_size(self) -> Any:
        return self.waiting


class Run:
    """One valve and what came out of it."""

    def __init__(self, twin: Any) -> None:
        self.told: list[tuple[str, Any]] = []
        self.client = Client()
        self.valve = twin.Valve(self.write, self.rest, self.broken)
        self.during: Callable[[], None] = lambda: None
        self.into = bytearray()

    def write(self, to: Writable, data: Buffer) -> None:
        assert to is self.client
        self.during()
        self.told.append(("passed", bytes(data)))

    def rest(self, data: bytes) -> None:
        self.told.append(("rest", data))

    def broken(self, error: BaseException) -> None:
        self.told.append(("broken", type(error)))

    def opened(self) -> Any:
        self.valve.open = True
        self.valve.let(self.client, MOULD)
        return self.valve


def test_the_one_in_c_is_there_where_it_is_demanded() -> None:
    if os.environ.get("I8RELAY_REQUIRE_COMPILED"):
        assert COMPILED
    assert not PURE.COMPILED


@both
def test_what_fits_passes_and_the_rest_does_not(twin: Any) -> None:
    run = Run(twin)
    valve = run.opened()
    fits, odd = said(b"hello"), ODD
    valve(fits)
    valve(fits + fits + odd)
    valve(odd + fits)
    valve(b"")
    assert run.told == [("passed", fits), ("passed", fits * 2), ("rest", odd), ("rest", odd + fits)]
    assert (valve.text, valve.passed) == (15, 3 * len(fits))


@both
@pytest.mark.parametrize("why", ["not open", "not let", "shut", "closing", "waiting"])
def test_it_is_shut_in_each_of_these_ways(twin: Any, why: str) -> None:
    run = Run(twin)
    valve = run.valve if why == "not let" else run.opened()
    valve.open = why != "not open"
    if why == "shut":
        valve.shut()
    run.client.closing, run.client.waiting = why == "closing", int(why == "waiting")
    data = said(b"you")
    valve(data)
    assert run.told == [("rest", data)]
    assert (valve.text, valve.passed) == (0, 0)


@both
def test_the_last_word_on_what_may_pass_counts(twin: Any) -> None:
    run = Run(twin)
    valve = run.opened()
    first, second = said(b""), OTHERS
    valve.let(run.client, OTHER)
    valve(first)
    valve(second)
    valve.let(run.client, MOULD)
    valve(first)
    assert run.told == [("rest", first), ("passed", second), ("passed", first)]


@both
def test_the_last_that_passed_is_known_until_somebody_decides_anew(twin: Any) -> None:
    run = Run(twin)
    valve = run.opened()
    assert valve.last is None
    valve(said(b"a") + said(b"b"))
    valve(said(b"c") + ODD)
    assert bytes(valve.last) == said(b"c")
    valve(ODD)
    assert bytes(valve.last) == said(b"c")
    valve.let(run.client, MOULD)
    assert valve.last is None
    valve(said(b"d"))
    assert valve.last == said(b"d")
    valve.shut()
    assert valve.last is None


@both
def test_what_passes_is_put_together_where_somebody_wants_it(twin: Any) -> None:
    run = Run(twin)
    valve = run.opened()
    valve.let(run.client, MOULD, run.into)
    valve(said(b"a") + said(b"b\\n") + ODD)
    run.client.waiting = 1
    valve(said(b"not"))
    run.client.waiting = 0
    valve.let(run.client, MOULD, None)
    valve(said(b"not"))
    valve.let(run.client, MOULD, run.into)
    valve(said(b"c"))
    valve.shut()
    valve.let(run.client, MOULD)
    valve(said(b"not"))
    assert run.into == b"ab\\nc"


@both
def test_what_is_kept_of_what_passes_has_a_limit(twin: Any) -> None:
    run = Run(twin)
    valve, fits = run.opened(), said(b"hello")
    run.into.extend(bytes(LONGEST - 9))
    valve.let(run.client, MOULD, run.into)
    for piece in (fits, fits, said(b"four")):
        valve(piece)
    assert run.told == [("passed", fits), ("rest", fits), ("passed", said(b"four"))]
    assert len(run.into) == LONGEST
    valve.let(run.client, MOULD)
    valve(fits)
    assert run.told[3:] == [("passed", fits)]


OUT = (b'before "', b'" after')


@both
def test_what_passes_into_another_form_is_one_event(twin: Any) -> None:
    run = Run(twin)
    valve = run.opened()
    valve.let(run.client, MOULD, run.into, OUT)
    fits = said(b"a") + said(b"\\n\\u00fc") + said("ü".encode())
    valve(fits + ODD)
    assert run.told == [("passed", chunk(OUT[0] + b"a\\n\\u00fc" + "ü".encode() + OUT[1])), ("rest", ODD)]
    assert bytes(valve.last) == run.told[0][1]
    assert (run.into, valve.text, valve.passed) == ("a\\n\\u00fcü".encode(), 11, len(fits))
    valve.let(run.client, MOULD, None, OUT)
    valve(said(b"b"))
    assert (run.told[2], len(run.into)) == (("passed", chunk(OUT[0] + b"b" + OUT[1])), 11)
    valve.let(run.client, MOULD, run.into, None)
    valve(said(b"c"))
    assert (run.told[3], len(run.into)) == (("passed", said(b"c")), 12)


HALF, OTHER_HALF = b"\\ud83d", b"\\ude00"


@both
@pytest.mark.parametrize(
    "text", [b"", b"\x01", b"\t", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\x", b"\\u12", HALF, OTHER_HALF]
)
def test_what_no_string_may_hold_does_not_pass_into_another_form(twin: Any, text: bytes) -> None:
    run = Run(twin)
    valve = run.opened()
    valve.let(run.client, MOULD, run.into, OUT)
    valve(said(text))
    assert (run.told, run.into, valve.last, valve.passed) == ([("rest", said(text))], b"", None, 0)
    valve(said(b"a") + said(text) + said(b"b")) if text else valve(said(b"a"))
    assert run.told[1][0] == ("rest" if text else "passed")


@both
def test_a_character_in_two_pieces_that_come_together_is_one(twin: Any) -> None:
    run = Run(twin)
    run.opened().let(run.client, MOULD, run.into, OUT)
    for one, other in ((HALF, OTHER_HALF), (b"\xc3", b"\xbc")):
        run.valve(said(one) + said(other))
        assert run.told.pop() == ("passed", chunk(OUT[0] + one + other + OUT[1]))


@both
def test_from_a_place_on_it_says_where_the_rest_begins(twin: Any) -> None:
    run = Run(twin)
    valve, data = run.opened(), b"xx" + said(b"1") + b"yy"
    assert valve.through(data, 2) == len(data) - 2
    assert valve.through(data, 0) == 0
    assert valve.through(data, len(data)) == len(data)
    assert run.told == [("passed", said(b"1"))]


@both
def test_what_is_raised_is_told_and_the_bytes_are_dropped(twin: Any) -> None:
    run = Run(twin)
    valve = run.opened()

    def fail() -> None:
        raise ConnectionResetError

    run.during = fail
    valve(said(b"") + b"more")
    run.client.closing = RuntimeError("no idea")
    valve(said(b""))
    assert run.told == [("broken", ConnectionResetError), ("broken", RuntimeError)]
    with pytest.raises(RuntimeError):
        valve.through(said(b""), 0)
    run.client.closing, run.client.waiting = False, "much"
    assert valve.passed == 0
    if twin is not PURE:
        # To Python any text is something; here it must at least do no harm.
        valve(said(b""))
        assert run.told[-1] == ("broken", TypeError)


@both
def test_a_valve_may_be_shut_by_what_it_does(twin: Any) -> None:
    run = Run(twin)
    valve = run.opened()
    run.during = valve.shut
    valve(said(b"") + said(b"a") + b"more")
    valve(said(b""))
    assert run.told == [
        ("passed", said(b"") + said(b"a")),
        ("rest", b"more"),
        ("rest", said(b"")),
    ]


@both
def test_a_valve_goes_with_those_that_it_knows(twin: Any) -> None:
    run = Run(twin)
    run.opened()
    gone = weakref.ref(run.client)
    del run
    gc.collect()
    assert gone() is None


@pytest.mark.skipif(not COMPILED, reason="it is about the one in C")
@pytest.mark.parametrize(
    "wrong",
    [
        lambda kind, valve: kind(),
        lambda kind, valve: kind(1, 2),
        lambda kind, valve: kind(write=1, rest=2, broken=3),
        lambda kind, valve: valve(),
        lambda kind, valve: valve(b"", b""),
        lambda kind, valve: valve(data=b""),
        lambda kind, valve: valve.let(None),
        lambda kind, valve: valve.let(None, MOULD, b""),
        lambda kind, valve: valve.let(None, MOULD, None, None, None),
        lambda kind, valve: valve.let(None, MOULD, None, b""),
        lambda kind, valve: valve.let(None, MOULD, None, (b"",)),
        lambda kind, valve: valve.let(None, MOULD, None, (b"", "")),
        lambda kind, valve: valve.let(None, (b"", b"")),
        lambda kind, valve: valve.let(None, ("", b"", b"", 0)),
        lambda kind, valve: valve.let(None, (b"", b"", b"", "")),
        lambda kind, valve: valve.through(b""),
        lambda kind, valve: valve.through("", 0),
        lambda kind, valve: valve.through(b"", None),
        lambda kind, valve: setattr(valve, "open", 1),
    ],
)
def test_what_is_no_use_of_it_is_a_type_error(wrong: Callable[[Any, Any], None]) -> None:
    run = Run(relay.valve)
    valve = run.opened()
    with pytest.raises(TypeError):
        wrong(type(valve), valve)
    for begin in (-1, 5):
        with pytest.raises(ValueError, match="outside"):
            valve.through(b"1234", begin)
    valve(said(b""))
    assert run.told == [("passed", said(b""))]


WAYS = ["open", "closed", "let", "kept", "cast", "cast and kept", "other", "shut", "full", "empty", "left"]


@pytest.mark.skipif(not COMPILED, reason="there is only one")
@settings(max_examples=times(160), deadline=None)
@given(
    st.lists(
        st.lists(
            st.sampled_from(
                [
                    said(b""),
                    said(b"a\\u00fc"),
                    said(b"\xff\\"),
                    said(HALF),
                    said(OTHER_HALF),
                    chunk(MOULD.head + MOULD.tail + MOULD.head + b"b" + MOULD.tail),
                    OTHERS,
                    ODD,
                    b"\r\n",
                    b"5\r\n",
                    b"0\r\n\r\n",
                ]
            ),
            max_size=5,
        ).map(b"".join),
        max_size=6,
    ),
    st.lists(st.sampled_from(WAYS), max_size=6),
)
def test_both_do_the_same_with_everything(pieces: list[bytes], turns: list[str]) -> None:
    runs = [Run(twin) for twin in TWINS]
    for run in runs:
        valve, client = run.opened(), run.client
        ways: dict[str, Callable[[], Any]] = {
            "open": lambda valve=valve: setattr(valve, "open", True),
            "closed": lambda valve=valve: setattr(valve, "open", False),
            "let": lambda valve=valve, client=client: valve.let(client, MOULD),
            "kept": lambda valve=valve, client=client, run=run: valve.let(client, MOULD, run.into),
            "cast": lambda valve=valve, client=client: valve.let(client, MOULD, None, OUT),
            "cast and kept": lambda valve=valve, client=client, run=run: valve.let(client, MOULD, run.into, OUT),
            "other": lambda valve=valve, client=client: valve.let(client, OTHER),
            "shut": valve.shut,
            "full": lambda client=client: setattr(client, "waiting", 9),
            "empty": lambda client=client: setattr(client, "waiting", 0),
            "left": lambda client=client: setattr(client, "closing", True),
        }
        for number, piece in enumerate(pieces):
            valve(piece)
            if number < len(turns):
                ways[turns[number]]()
    one, two = runs
    assert (one.told, one.into) == (two.told, two.into)
    assert one.valve.last == two.valve.last
    assert (one.valve.text, one.valve.passed, one.valve.open) == (two.valve.text, two.valve.passed, two.valve.open)
