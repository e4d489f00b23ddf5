"""Streams in every framing that is legal, and cut off in every way: the same answer, or an error and no answer."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product

import pytest

import relay.lane
import relay.stream
from relay.ir import Usage
from relay.kit import SseDecoder
from relay.meter import Meter
from tests.flow.conftest import Running, Start
from tests.flow.fake import DONE, FakeUpstream, Seen, Step, chunk, http, stream
from tests.flow.test_anthropic_sdk import event
from tests.hub import counts
from tests.promises.families import (
    ENDS,
    KINDS,
    SAID,
    STREAMS,
    WAYS,
    WHOLES,
    Got,
    Kind,
    Way,
    ask,
    both_transports,
    config,
)
from tests.promises.wire import until

HALF = b'data: {"id":"ch'
STREAM = "Content-Type: text/event-stream\r\n"


def begun(way: Way) -> list[bytes]:
    """The first events of an answer."""
    return [*way.found.start, way.found.word("It is "), way.found.word("a fine ")]


def chunked(way: Way, *rest: bytes | Step, end: bool = False) -> list[Step]:
    return stream(*begun(way), *rest, end=end)


def head(line: str, more: str = "") -> bytes:
    return f"{line}\r\n{STREAM}{more}\r\n".encode()


CUTS: Mapping[str, Callable[[Way], list[Step]]] = {
    "chunks, inside of an event": lambda way: chunked(way, HALF, "fin"),
    "chunks, between two events": lambda way: chunked(way, "fin"),
    "chunks, inside of one": lambda way: [*chunked(way), b"ff\r\ndata: {", "fin"],
    "chunks that end properly, inside of an event": lambda way: chunked(way, HALF, end=True),
    "chunks that end properly, between two events": lambda way: chunked(way, end=True),
    "a length": lambda way: [head("HTTP/1.1 200 OK", "Content-Length: 99999\r\n"), *begun(way), HALF, "fin"],
    "until it closes": lambda way: [head("HTTP/1.1 200 OK"), *begun(way), HALF, "fin"],
    "until it closes, between two events": lambda way: [head("HTTP/1.1 200 OK"), *begun(way), "fin"],
    "HTTP/1.0": lambda way: [head("HTTP/1.0 200 OK"), *begun(way), HALF, "fin"],
    "a reset": lambda way: chunked(way, 0.03, "rst"),
}
"""How an upstream can leave in the middle of its answer."""


@pytest.mark.promise("U-01")
@pytest.mark.promise("U-02")
@both_transports
async def test_an_answer_that_is_cut_off_is_told_as_such(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    for way, (name, cut) in product(STREAMS, CUTS.items()):
        upstream.scripts = [cut(way)]
        got = await ask(relay, way)
        row = await relay.latest()
        where = (way, name, got.body)
        assert (got.status, got.text) == (200, "It is a fine "), where
        assert got.error, where
        assert (got.finished, got.proper) == (False, False), where
        assert (row.outcome, row.status) == ("upstream_cut", 502), (where, row)
        assert row.usage_source in ("estimate", "partial"), (where, row)
        assert row.usage is not None
        assert (row.usage.output or 0) > 0, (where, row)
        assert (row.cost or 0) > 0, (where, row)


@pytest.mark.promise("U-01")
@both_transports
async def test_a_complete_answer_that_is_cut_off_is_none(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    for way in WHOLES:
        whole = json.dumps(way.found.whole(SAID)).encode()
        kind = "Content-Type: application/json\r\n"
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            part = whole[:length]
            for name, script in {
                "chunks": [f"HTTP/1.1 200 OK\r\n{kind}Transfer-Encoding: chunked\r\n\r\n".encode(), chunk(part), "fin"],
                "a length": [f"HTTP/1.1 200 OK\r\n{kind}Content-Length: {len(whole)}\r\n\r\n".encode(), part, "fin"],
                "until it closes": [f"HTTP/1.1 200 OK\r\n{kind}\r\n".encode(), part, "fin"],
                "HTTP/1.0": [f"HTTP/1.0 200 OK\r\n{kind}\r\n".encode(), part, "fin"],
            }.items():
                if name == "chunks" and not part:
                    # That would be their proper end.
                    continue
                upstream.scripts = [script]
                got = await ask(relay, way)
                row = await relay.latest()
                assert (got.status, got.finished) == (502, False), (way, name, length, got)
                assert got.error, (way, name, length)
                assert (row.outcome, row.cost) == ("upstream_cut", 0), (way, name, length, row)


@pytest.mark.promise("U-02")
@both_transports
async def test_a_stall_ends_in_time_wherever_it_comes(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport, idle_timeout=0.2, first_byte_timeout=0.2))
    upstream.answer = lambda seen: ["stall"]
    for way, got in zip(WAYS, await asyncio.gather(*(ask(relay, way) for way in WAYS)), strict=True):
        assert got.status == 504, (way, got)

    def stalls(seen: Seen) -> Sequence[Step]:
        kind, streamed = Kind.of(seen)
        if streamed:
            return stream(*kind.start, kind.word("It is "), kind.word("a fine "), "stall", end=False)
        return [bytes(step[:-9]) for step in http(kind.whole(SAID)) if isinstance(step, bytes)] + ["stall"]

    upstream.answer = stalls
    for way, got in zip(WAYS, await asyncio.gather(*(ask(relay, way) for way in WAYS)), strict=True):
        if way.streamed:
            assert (got.text, got.finished, got.proper) == ("It is a fine ", False, False), (way, got)
            assert "sent nothing for 0.2 seconds" in got.error, (way, got)
        else:
            assert (got.status, bool(got.error)) == (504, True), (way, got)
    rows = await relay.rows()
    assert [row.outcome for row in rows] == ["timeout"] * 2 * len(WAYS)


WORDS = ("It is ", "a fine ", "day, ", 'he said: "\u2028 and \x85 and \u2029"', " \U0001f600\u0001")
"""Text with line separators that are none, quotes, and letters of several bytes."""


def frames(way: Way) -> list[tuple[str, bytes]]:
    """A good stream as names and data, its text written without escapes where that is possible."""
    found = SseDecoder()
    events = found.feed(b"".join(way.found.pieces(*WORDS)))
    plain = []
    for name, data in events:
        try:
            value = json.loads(data)
        except ValueError:
            plain.append((name, data))
        else:
            plain.append((name, json.dumps(value, ensure_ascii=False).encode()))
    return plain


def written(events: Sequence[tuple[str, bytes]], end: bytes = b"\n", blank: bytes = b" ") -> bytes:
    """Events with these line ends."""
    out = b""
    for name, data in events:
        if name:
            out += b"event:" + blank + name.encode() + end
        out += b"data:" + blank + data + end + end
    return out


def split_lines(events: Sequence[tuple[str, bytes]]) -> bytes:
    """Each JSON on several data lines, which is legal between two of its tokens."""
    return written([(name, data.replace(b"{", b"{\ndata: ", 1)) for name, data in events])


def noisy(events: Sequence[tuple[str, bytes]]) -> bytes:
    """With fields and comments that mean nothing, and more blank lines than needed."""
    out = b": hello\n\n"
    for number, each in enumerate(events):
        one = written([each])
        out += f"id: {number}\nretry: 100\n: a comment\nodd\nodd: field\n".encode() + one + b"\n: ping\n\n"
    return out


FRAMINGS: Mapping[str, Callable[[Sequence[tuple[str, bytes]]], bytes]] = {
    "LF": written,
    "CRLF": lambda events: written(events, b"\r\n"),
    "CR": lambda events: written(events, b"\r"),
    "no blank": lambda events: written(events, blank=b""),
    "a byte order mark": lambda events: b"\xef\xbb\xbf" + written(events),
    "several data lines": split_lines,
    "noise": noisy,
    "without the last blank line": lambda events: written(events)[:-1],
    "without the last line end": lambda events: written(events)[:-2],
    "mixed": lambda events: b"".join(
        written([one], end) for one, end in zip(events, (b"\n", b"\r\n", b"\r") * 9, strict=False)
    ),
}


def same(got: Got) -> tuple[object, ...]:
    """What a client makes of an answer, however it was framed."""
    return (got.status, got.finished, got.text, got.error)


async def heard(relay: Running, way: Way) -> tuple[tuple[object, ...], str, Usage | None, int | None]:
    got = await ask(relay, way)
    row = await relay.latest()
    return same(got), row.usage_source, row.usage, row.cost


@pytest.mark.promise("U-05")
@both_transports
async def test_every_legal_framing_gives_the_same_answer_and_the_same_count(
    start: Start, upstream: FakeUpstream, transport: str
) -> None:
    relay = await start(config(upstream, transport))
    text = "".join(WORDS)
    for way in STREAMS:
        upstream.scripts = [stream(written(frames(way)))]
        expected = await heard(relay, way)
        assert expected[0] == (200, True, text, ""), (way, expected)
        for name, framing in FRAMINGS.items():
            data = framing(frames(way))
            # In chunks, of which many come in one read, and bare.
            for script in (stream(data), stream(*(data[at : at + 7] for at in range(0, len(data), 7)))):
                upstream.scripts = [script]
                assert await heard(relay, way) == expected, (way, name)
            upstream.scripts = [[head("HTTP/1.1 200 OK"), data, "fin"]]
            assert await heard(relay, way) == expected, (way, name)


KINDS_OF_LINES = ("LF", "CRLF", "CR", "noise", "a byte order mark", "several data lines")


@pytest.mark.promise("U-05")
@pytest.mark.parametrize("kind", KINDS)
async def test_every_cut_of_every_framing_gives_the_same_events_and_the_same_count(
    start: Start, upstream: FakeUpstream, kind: str
) -> None:
    relay = await start(config(upstream))
    family = relay.relay.plugins.families[KINDS[kind].family]
    target = relay.relay.router.resolve(kind).targets[0]
    way = Way(kind, kind, True)
    events: list[object] = []
    for name in KINDS_OF_LINES:
        data = FRAMINGS[name](frames(way))
        # In two pieces, at every place; and all of it in pieces of one and of two bytes.
        ways = [[data[:at], data[at:]] for at in range(len(data))]
        ways += [[data[at : at + size] for at in range(0, len(data), size)] for size in (1, 2)]
        ways += [[data[:1], *(data[at : at + 2] for at in range(1, len(data), 2))]]
        for pieces in ways:
            decoder = family.translate_stream(target, {}, kind)
            found = [one for piece in pieces for one in decoder.feed(piece)] + decoder.close()
            events = events or found
            assert found == events, (name, pieces[0][-40:])
            meter = family.meter_stream(target, {}, kind)
            assert meter is not None
            for piece in pieces:
                if not meter.complete:
                    meter.feed(piece)
            if not meter.complete:
                meter.close()
            assert (meter.complete, meter.error) == (True, None), (name, pieces[0][-40:])
            assert meter.usage is not None
            counted = Meter()
            counted.add(found)
            assert counts(meter.usage) == counts(counted.usage), (name, pieces[0][-40:])


BEHIND: Mapping[str, list[bytes]] = {
    "nothing": [],
    "the end once more": [],
    "more of an answer": [],
    "nonsense": [b"data: {\n\n", b"event: odd\ndata: odd\n\n"],
    "an error": [b'event: error\ndata: {"type":"error","error":{"message":"CANARY"}}\n\n'],
}
"""What comes behind the last event of an answer."""


@pytest.mark.promise("U-04")
@both_transports
@pytest.mark.parametrize("closes", [True, False], ids=["closes", "stays open"])
async def test_what_comes_behind_the_end_is_no_part_of_the_answer(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, transport: str, closes: bool
) -> None:
    for module in (relay.stream, relay.lane):
        # How long an upstream gets to end its answer before the next call on that connection.
        monkeypatch.setattr(module, "DRAIN_SECONDS", 0.05)
    running = await start(config(upstream, transport))
    # One format has no last event: there the end is that of the bytes.
    ways = STREAMS[:-2]
    for name, apart in product(BEHIND, ([], [0.02])):

        def play(seen: Seen, name: str = name, apart: Sequence[Step] = apart) -> Sequence[Step]:
            kind, _ = Kind.of(seen)
            good = kind.pieces("It is ", "a fine day")
            more = {"the end once more": good[-1:], "more of an answer": [kind.word("CANARY"), *good[-2:]]}
            rest = more.get(name, BEHIND[name])
            steps = [*good, *apart, *rest] if apart else [b"".join((*good, *rest))]
            return stream(*steps) if closes else stream(*steps, "stall", end=False)

        upstream.answer = play
        for way, got in zip(ways, await asyncio.gather(*(ask(running, way) for way in ways)), strict=True):
            if way.native:
                # It is passed on as it came, if it came in one piece with the end. No client reads on behind that.
                end = re.search(re.escape(ENDS[way.client]).replace(b":", b": ?") + rb".*?\n\n", got.body, re.S)
                assert end is not None, (way, name, got.body)
                assert not apart or end.end() == len(got.body), (way, name, got.body)
                got.body = got.body[: end.end()]
            assert (got.finished, got.text, got.error) == (True, SAID, ""), (way, name, got.body)
            assert b"CANARY" not in got.body, (way, name)
            assert got.body.replace(b" ", b"").count(ENDS[way.client]) == 1, (way, name, got.body)
    await until(lambda: running.relay.limiter.running() == 0)
    assert {row.outcome for row in await running.rows()} == {"ok"}


@pytest.mark.promise("U-04")
@both_transports
async def test_an_end_that_comes_too_early_is_none(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    for way in STREAMS:
        early = {
            "openai-chat": [DONE],
            "openai-responses": [event("response.completed")],
            "anthropic-messages": [event("content_block_stop", index=0)],
            "gemini": [b"data: {}\n\n"],
        }[way.kind]
        for wait in ([], [0.02]):
            upstream.scripts = [stream(*begun(way), *wait, *early)]
            got = await ask(relay, way)
            row = await relay.latest()
            assert not got.finished, (way, got.body)
            assert got.error, (way, got.body)
            assert b"[DONE]" not in got.body
            assert row.outcome == "upstream_cut", (way, row)


@pytest.mark.promise("U-04")
@both_transports
async def test_a_finish_is_enough_where_the_end_is_forgotten(
    start: Start, upstream: FakeUpstream, transport: str
) -> None:
    relay = await start(config(upstream, transport))
    for way in STREAMS[:2]:
        upstream.scripts = [stream(*(piece for piece in way.found.pieces("It is ", "a fine day") if piece != DONE))]
        got = await ask(relay, way)
        assert (got.proper, got.text, got.error) == (True, SAID, ""), (way, got.body)
        assert (await relay.latest()).outcome == "ok"
