"""Chunks that pass as they came: only whole ones of plain text, and nothing of a body is lost, doubled or moved."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relay.connection
from relay.connection import MUCH, Connection
from relay.errors import RelayError
from relay.meter import Meter
from relay.outbox import Buffer, Outbox
from relay.skim import SkimmingMeter
from relay.valve import Valve
from relay_openai.skim import chat_meter
from relay_openai.stream import ChatDecoder
from tests.core.chunks import unchunked
from tests.effort import times

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FEW = settings(max_examples=times(100), deadline=None)


def event(text: str, more: str = "") -> bytes:
    choice = f'{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}'
    return f'data: {{"id":"c","choices":[{choice}]{more}}}\n\n'.encode()


FILLED = ',"obfuscation":"xyzab"'
END = b'data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def chunk(data: bytes, form: str = "%x") -> bytes:
    return (form % len(data)).encode() + b"\r\n" + data + b"\r\n"


class Reading:
    """Reads one answer as an exchange with a skimmed stream does, and notes what came in which way.

    It is the client's connection as well, where passes what passes.
    """

    def __init__(self, valve: Valve) -> None:
        self.meter: SkimmingMeter = chat_meter(ChatDecoder())
        self.valve = valve
        self.body = b""
        self.passed = 0
        self.ended = False
        self.errors: list[RelayError] = []

    def begin(self, status: int, headers: Mapping[str, str]) -> None:
        assert status == 200

    def broken(self, error: BaseException) -> None:
        raise error

    def write(self, data: Buffer) -> None:
        found = unchunked(bytes(data))
        self.body += b"".join(found)
        self.passed += len(found)

    def writelines(self, pieces: Iterable[Buffer]) -> None:
        raise AssertionError("what passes is one piece")

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def data(self, piece: bytes) -> None:
        self.meter.feed(piece)
        self.body += piece
        if self.meter.mould is None:
            self.valve.shut()
        else:
            self.valve.let(self, self.meter.mould, self.meter.into)

    def end(self) -> None:
        assert not self.ended
        self.ended = True

    def fail(self, error: RelayError) -> None:
        self.errors.append(error)


class Wire:
    def abort(self) -> None: ...

    def is_closing(self) -> bool:
        return False


def read(pieces: Sequence[bytes], *, keep_calls: bool = False) -> Reading:
    loop = asyncio.new_event_loop()
    try:
        connection = Connection(Outbox(loop, ()))
        reading = Reading(connection.valve)
        reading.meter.keep_calls = keep_calls
        wire: Any = Wire()
        connection.connection_made(wire)
        connection.begin(reading)
        connection.valved = True
        for piece in pieces:
            connection.data_received(piece)
        reading.meter.seen += connection.valve.text / 4
        return reading
    finally:
        loop.close()


def test_chunks_of_text_pass_as_they_came() -> None:
    texts = [event(text) for text in ("Hel", "lo", " there", "", "!")]
    reading = read([HEAD, *map(chunk, texts), chunk(END), chunk(DONE), b"0\r\n\r\n"])
    # The first one shows what text looks like here.
    assert reading.passed == len(texts) - 1
    assert reading.body == b"".join([*texts, END, DONE])
    assert reading.ended
    assert reading.meter.complete
    assert reading.meter.seen == len("Hello there!") / 4


def call(text: str, name: str = "") -> bytes:
    """A piece of a call's arguments; its first one, if it has a name."""
    begins = f'"id":"{name}","type":"function",' if name else ""
    named = '"name":"f",' if name else ""
    said = f'{{"index":0,{begins}"function":{{{named}"arguments":{json.dumps(text)}}}}}'
    return f'data: {{"id":"c","choices":[{{"index":0,"delta":{{"tool_calls":[{said}]}}}}]}}\n\n'.encode()


@pytest.mark.parametrize("cut", [1, 3, 50, 10_000])
def test_arguments_pass_too_and_are_there_for_who_checks_them(cut: int) -> None:
    first, second = '{"text": "say \\"é\\"\n' + "x" * 60 + '"}', '{"n": ' + "1" * 60 + "}"
    events = [event("I will.")]
    for name, arguments in (("c1", first), ("c2", second)):
        events += [call("", name), *(call(letter) for letter in arguments)]
    chunks = b"".join(map(chunk, [*events, END, DONE])) + b"0\r\n\r\n"
    pieces = [HEAD, *map(chunk, [*events, END, DONE]), b"0\r\n\r\n"] if cut == 1 else []
    reading = read(
        pieces or [HEAD, *(chunks[place : place + cut * 40] for place in range(0, len(chunks), cut * 40))],
        keep_calls=True,
    )
    assert [(one.id, one.arguments) for one in reading.meter.calls()] == [("c1", first), ("c2", second)]
    assert reading.body == b"".join([*events, END, DONE])
    assert reading.meter.complete
    if cut == 1:
        # All but the first with text of each.
        assert reading.passed == len(first) + len(second) - 2


CALLS = st.one_of(
    st.builds(call, st.sampled_from(["a", "b\n", '"', "é"])),
    st.builds(call, st.sampled_from(["", "a"]), st.sampled_from(["c1", "c2", "c3"])),
    st.builds(event, st.sampled_from(["a", "b"])),
    st.just(b": a comment\n\n"),
)


@FEW
@given(st.lists(CALLS, max_size=14), st.lists(st.integers(0, 5000), max_size=8), st.booleans())
def test_calls_are_put_together_as_if_nothing_had_passed(events: list[bytes], cuts: list[int], each: bool) -> None:
    if each:
        pieces = [HEAD, *map(chunk, events)]
    else:
        data = HEAD + b"".join(map(chunk, events))
        places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        pieces = [data[start:stop] for start, stop in itertools.pairwise(places)]
    reading = read(pieces, keep_calls=True)
    whole, decoder = Meter(keep_calls=True), ChatDecoder()
    whole.add(decoder.feed(b"".join(events)))
    assert reading.body == b"".join(events)
    assert reading.meter.calls() == whole.calls()


@pytest.mark.parametrize("form", ["%X", "%x"])
def test_sizes_in_capitals_are_sizes_and_text_with_filling_is_text(form: str) -> None:
    texts = [event(text, FILLED) for text in ("Hel", "lo", " there " * 30, "!")]
    reading = read([HEAD, *(chunk(text, form) for text in texts)])
    assert reading.passed == len(texts) - 1
    assert reading.body == b"".join(texts)
    assert reading.meter.seen == (len("Hello!") + 7 * 30) / 4


@pytest.mark.parametrize(
    "many",
    [
        chunk(event("b"), "0%x"),
        chunk(event("b") + event("c")),
        chunk(event("b")) + chunk(event("c"), "%X") + chunk(event("d") * 3),
    ],
)
def test_several_chunks_and_several_events_in_one_pass_together(many: bytes) -> None:
    reading = read([HEAD, chunk(event("a")), many + chunk(END) + chunk(DONE) + b"0\r\n\r\n"])
    assert reading.passed == many.count(b"\n\r\n")
    assert reading.meter.seen == (1 + many.count(b"content")) / 4
    assert reading.ended
    assert reading.body.endswith(END + DONE)


@pytest.mark.parametrize(
    "odd",
    [
        chunk(event("b")).replace(b"\r\n", b";name=value\r\n", 1),
        chunk(event("b")[:-1]) + chunk(b"\n"),
        chunk(event("b", ',"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}')),
        chunk(b": a comment\n\n"),
    ],
)
def test_what_is_anything_else_is_read(odd: bytes) -> None:
    reading = read([HEAD, chunk(event("a")), odd, chunk(event("d")), chunk(END), chunk(DONE), b"0\r\n\r\n"])
    assert reading.passed <= 1, "only the last one may pass"
    assert reading.ended
    assert not reading.errors
    assert reading.body.startswith(event("a"))
    assert reading.body.endswith(event("d") + END + DONE)


@pytest.mark.parametrize(
    "wrong", [b"ff\r\n" + event("b") + b"\r\n", b"1\r\n" + event("b") + b"\r\n", b"\r\n", b"zz\r\n"]
)
def test_a_size_that_is_wrong_ends_the_answer(wrong: bytes) -> None:
    reading = read([HEAD, chunk(event("a")), wrong, chunk(event("d")), b"0\r\n\r\n"])
    assert reading.passed == 0
    assert not reading.ended or reading.errors


def test_a_body_without_chunks_is_never_taken_for_one() -> None:
    # Its bytes look like a chunk and are none.
    body = event("a") + b"\r\n" + chunk(event("b"))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    reading = read([head, event("a") + b"\r\n", chunk(event("b"))])
    assert reading.passed == 0
    assert reading.body == body
    assert reading.ended


def test_an_answer_that_comes_at_once_is_passed_on_from_its_second_text_on() -> None:
    role = event("").replace(b'"content"', b'"role":"assistant","content"')
    texts = [event(f"word {number}") for number in range(100)]
    reading = read([HEAD + b"".join(map(chunk, [role, *texts, END, DONE])) + b"0\r\n\r\n"])
    assert reading.passed == len(texts) - 1
    assert reading.body == b"".join([role, *texts, END, DONE])
    assert reading.ended
    assert reading.meter.complete


@pytest.mark.parametrize(
    "broken",
    [HEAD[:-4] + b"\r\nX: 1\r\n", HEAD + b"fffff\r\n", HEAD + b"3\r\nabc\r\n" * 2 + b"zz\r\n", b"HTTP/9\r\n\r\n"],
)
def test_an_answer_that_comes_at_once_and_is_broken_is_an_error_or_goes_on(broken: bytes) -> None:
    reading = read([broken + b"x" * MUCH])
    assert not reading.ended
    assert reading.passed == 0


@FEW
@given(
    texts=st.lists(st.text("abc \\n", max_size=5), min_size=1, max_size=8),
    together=st.lists(st.integers(1, 3), min_size=1, max_size=8),
    cuts=st.lists(st.integers(0, 2000), max_size=6),
    much=st.sampled_from([0, MUCH]),
)
def test_however_a_body_is_cut_it_is_the_same(
    texts: list[str], together: list[int], cuts: list[int], much: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay.connection, "MUCH", much)
        compare(texts, together, cuts)


def compare(texts: list[str], together: list[int], cuts: list[int]) -> None:
    events = [event(text.replace("\\", "\\\\").replace("\n", "\\n")) for text in texts] + [END, DONE]
    pieces: list[bytes] = []
    rest = list(events)
    for number in together * len(events):
        if rest:
            pieces.append(chunk(b"".join(rest[:number])))
            del rest[:number]
    data = HEAD + b"".join(pieces) + b"0\r\n\r\n"
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    whole = read([HEAD, *pieces, b"0\r\n\r\n"])
    cut = read([data[begin:end] for begin, end in itertools.pairwise(places)])
    for reading in (whole, cut):
        assert reading.body == b"".join(events)
        assert reading.ended
        assert reading.meter.complete
        assert not reading.errors
    assert cut.meter.seen == pytest.approx(whole.meter.seen)


def two(first: str, second: str) -> bytes:
    return event(first) + event(second)


@pytest.mark.parametrize(
    "burst",
    [
        two("a", "b"),
        two("", ""),
        two("a", 'say \\"b\\"'),
        two("C:\\\\", "\\n"),
        event("ü") * 3,
    ],
)
def test_a_burst_of_text_is_measured_and_not_read(burst: bytes) -> None:
    meter = chat_meter(ChatDecoder())
    meter.feed(event("first"))
    before = meter.seen
    meter.feed(burst)
    text = len(burst) - burst.count(b"\n\n") * len(event(""))
    assert (meter.seen - before) * 4 == text
    assert meter.span == (0, len(burst))


@pytest.mark.parametrize(
    "odd",
    [
        b'"},"finish_reason":"length","x":{"y":"',
        b'","refusal":"b',
        b"a\\",
        b'"',
        b'"}}]}',
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_burst_with_anything_else_is_read_event_by_event(odd: bytes, place: int) -> None:
    events = [event("a"), event("b"), event("c")]
    events[place] = event("a").replace(b'"a"', b'"%b"' % odd)
    burst = b"".join(events)
    meter, decoder = chat_meter(ChatDecoder()), ChatDecoder()
    meter.feed(event("first"))
    meter.feed(burst)
    assert meter.span != (0, len(burst))
    read = Meter()
    read.add(decoder.feed(event("first")))
    read.add(decoder.feed(burst))
    assert (meter.error is None, meter.complete, meter.ended) == (read.error is None, read.complete, read.ended)
