"""Answers in very long pieces and in very small ones: what is too long ends, and nothing takes more than its share."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import pytest

from relay.attempt import Attempt
from relay.kit import MAX_EVENT, NdjsonDecoder, SseDecoder, WholeEvents
from relay.outbox import Buffer, Writable
from relay.outlet import Outlet
from relay.valve import Valve
from relay_anthropic.stream import MessagesDecoder
from relay_bedrock.frames import FrameDecoder
from relay_gemini.frames import ArrayFilter
from relay_gemini.framing import ObjectDecoder
from relay_openai.metering import UsageFilter
from relay_openai.stream import ChatDecoder, WholeDecoder
from tests.flow.conftest import Start
from tests.flow.fake import DONE, LAST_CHUNK, STREAM_HEAD, FakeUpstream, chat_chunk, chunk, http, stream
from tests.promises.families import STREAMS, WAYS, ask, both_transports, config
from tests.promises.wire import until
from tests.providers.bedrock.wire import message

MIB = 1024 * 1024
LETTERS = "The quick brown fox, ünd noch etwas: 1234567. "


def text_of(size: int) -> str:
    return (LETTERS * (size // len(LETTERS) + 1))[:size]


@pytest.mark.turns(0.5)
@pytest.mark.promise("U-06")
@both_transports
async def test_long_lines_arrive_whole(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))
    for way in WAYS:
        # One format says everything several times.
        long = way.streamed and transport == "relay" and way.kind != "openai-responses"
        found, text = way.found, text_of(9_000_000 if long else 1_000_000)
        upstream.scripts = [
            stream(*found.pieces("It is ", text)) if way.streamed else http(found.whole("It is " + text))
        ]
        got = await ask(relay, way)
        assert (got.finished, got.error) == (True, ""), way
        assert got.text == "It is " + text, way


def endless(most: int) -> Iterator[bytes]:
    """A line of at least that many bytes in pieces."""
    piece = chunk(b"x" * 65_536)
    yield chunk(b"data: ")
    for _ in range(most // 65_536 + 1):
        yield piece


@pytest.mark.turns(0.5)
@pytest.mark.promise("U-06")
@both_transports
async def test_a_line_without_an_end_ends_the_answer_within_bounds(
    start: Start, upstream: FakeUpstream, transport: str
) -> None:
    relay = await start(config(upstream, transport))
    for way in STREAMS:
        heard = asyncio.Event()
        first = [chunk(piece) for piece in (*way.found.start, way.found.word("It is "))]
        upstream.scripts = [[STREAM_HEAD, *first, heard, *endless(4 * MAX_EVENT), "stall"]]
        tracemalloc.start()
        try:
            got = await ask(relay, way, heard)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # Where the stream passes through, who counts it and who passes it on each have what came of the line.
        assert most < (2 if way.native else 1) * MAX_EVENT + 2 * MIB, way
        assert (got.text, got.finished, got.proper) == ("It is ", False, False), way
        assert str(MAX_EVENT) in got.error, way
        assert (await relay.latest()).outcome == "upstream_cut", way
        await until(lambda: bool(upstream.peer_left))
        upstream.peer_left.clear()


MOST = 100_000
WORDS = [f"{number} {LETTERS * 20}" for number in range(2 * MOST // (20 * len(LETTERS)))]


@pytest.mark.promise("U-06")
@both_transports
async def test_a_stream_that_has_to_be_held_ends_when_it_is_too_long(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setattr(Attempt, "most", MOST)
    relay = await start(config(upstream, transport))
    text = "It is " + "".join(WORDS)
    for way in STREAMS:
        upstream.scripts = [stream(*way.found.pieces("It is ", *WORDS))]
        got = await ask(relay, way)
        row = await relay.latest()
        if way.native:
            # Nothing of it is held.
            assert (got.finished, got.text, got.error, row.outcome) == (True, text, "", "ok"), way
            continue
        assert (got.status, got.finished, got.proper) == (200, False, False), way
        assert f"longer than {MOST} bytes" in got.error, way
        assert text.startswith(got.text), way
        if {way.kind, way.client} != {"openai-chat", "anthropic-messages"}:
            # Between these, text passes until something else comes, or there is too much of it.
            assert len(got.text) <= MOST, way
        assert row.outcome == "upstream_cut", way


@pytest.mark.promise("U-06")
@both_transports
async def test_calls_that_are_checked_end_when_they_are_too_long(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setattr(Attempt, "most", MOST)
    relay = await start(config(upstream, transport))
    way = next(way for way in STREAMS if way.native and way.kind == "openai-chat")
    path, body = way.request()
    body["tools"] = [{"type": "function", "function": {"name": "note", "parameters": {"type": "object"}}}]

    def piece(arguments: str, **more: Any) -> bytes:
        return chat_chunk({"tool_calls": [{"index": 0, **more, "function": {"arguments": arguments}}]})

    call = piece('{"a": "', id="call_1", type="function").replace(b'"function": {', b'"function": {"name": "note", ')
    end = [piece('"}'), chat_chunk(finish="tool_calls"), DONE]
    for words, outcome in ((WORDS[:9], "ok"), (WORDS, "upstream_cut")):
        upstream.scripts = [stream(*way.found.start, call, *map(piece, words), *end)]
        async with relay.client.post(relay.url + path, json=body) as response:
            got = b""
            with contextlib.suppress(aiohttp.ClientPayloadError):
                async for some in response.content.iter_any():
                    got += some
        assert (b"[DONE]" in got) == (outcome == "ok")
        assert (f"longer than {MOST} bytes".encode() in got) == (outcome != "ok")
        row = await relay.latest()
        assert (row.outcome, row.tools) == (outcome, "valid" if outcome == "ok" else None)


PIECE, PIECES = 256, 32_000
"""What looked at all that it holds, or put it together anew, with each of these would take minutes."""
READERS: dict[str, Callable[[], Any]] = {
    "events": SseDecoder,
    "lines": NdjsonDecoder,
    "a filter": WholeEvents,
    "a filter of counts": UsageFilter,
    "objects": ObjectDecoder,
    "an array": ArrayFilter,
    "chunks": ChatDecoder,
    "messages": MessagesDecoder,
    "a complete answer": WholeDecoder,
}
STARTS: dict[str, bytes] = {
    "a line": b'data: {"a":"',
    "an array": b'[{"a":"',
    "an object": b'{"a":"',
    "nothing": b"",
}
FILLINGS = [b"x", b" ", b"x\n", b"x\r\n"]


@pytest.mark.promise("U-17")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_done_with_small_pieces_is_in_proportion_to_their_sum(reader: str, filling: bytes) -> None:
    for first in STARTS.values():
        found = READERS[reader]()
        found.feed(first)
        piece = filling * (PIECE // len(filling))
        for _ in range(PIECES):
            found.feed(piece)


@pytest.mark.promise("U-17")
@pytest.mark.timeout(20)
def test_that_holds_for_messages_in_binary_form() -> None:
    size = PIECE * PIECES
    data, found = message({":event-type": "odd"}, b"x" * size), FrameDecoder()
    taken: list[int] = []
    for place in range(0, len(data), PIECE):
        found.feed(data[place : place + PIECE], lambda _, payload: not taken.append(len(payload)))
    assert (taken, found.empty) == ([size], True)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Everything that was written to a client, by the name of the way."""
    found: list[str] = []

    def noted(name: str) -> None:
        done = getattr(Outlet, name)

        def note(self: Outlet, *arguments: Any, **options: Any) -> Any:
            found.append(name)
            return done(self, *arguments, **options)

        monkeypatch.setattr(Outlet, name, note)

    for name in ("open", "send", "end", "answer"):
        noted(name)

    def noting(write: Callable[[Writable, Buffer], None], *others: Any) -> Valve:
        def note(to: Writable, data: Buffer) -> None:
            found.append("valve")
            write(to, data)

        return Valve(note, *others)

    monkeypatch.setattr("relay.connection.Valve", noting)
    return found


@pytest.mark.turns(0.5)
@pytest.mark.promise("U-17")
@both_transports
async def test_a_chunk_for_each_byte_costs_no_write_for_each(
    start: Start, upstream: FakeUpstream, writes: list[str], transport: str
) -> None:
    relay = await start(config(upstream, transport))
    words = [f"{number} " for number in range(1000)]
    for way in WAYS:
        text = "".join(words) * (1 if way.streamed else 40)
        whole = b"".join(way.found.pieces(*words)) if way.streamed else json.dumps(way.found.whole(text)).encode()
        assert len(whole) > 100_000
        head = STREAM_HEAD if way.streamed else STREAM_HEAD.replace(b"text/event-stream", b"application/json")
        upstream.scripts = [[head, b"".join(chunk(whole[at : at + 1]) for at in range(len(whole))), LAST_CHUNK]]
        writes.clear()
        got = await ask(relay, way)
        assert (got.finished, got.text) == (True, text), way
        # What came in one read goes out in one write.
        assert len(writes) < 100, way


@pytest.mark.promise("U-17")
@both_transports
async def test_events_that_come_together_go_together(
    start: Start, upstream: FakeUpstream, writes: list[str], transport: str
) -> None:
    relay = await start(config(upstream, transport))
    words = [f" {number}" for number in range(1000)]
    text = "It is" + "".join(words)
    for way in STREAMS:
        found, heard = way.found, asyncio.Event()
        rest = b"".join(found.word(word) for word in words)
        upstream.scripts = [stream(*found.start, found.word("It is"), heard, rest, *found.end(text))]
        writes.clear()
        got = await ask(relay, way, heard)
        assert (got.finished, got.text) == (True, text), way
        assert len(writes) < 40, way
