"""Clients that leave: their upstream hears of it at once, or is read to its end if somebody wants to know its count."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import product
from typing import Any

import pytest

from relay.door import RelayRunner
from relay.store import StoreError
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import USAGE, FakeUpstream, Seen, Step, chat_answer, chat_chunk, http, stream
from tests.promises.families import WAYS, Kind, both_transports
from tests.promises.families import config as every_format
from tests.promises.wire import Wire, post, until, wire

WORDS = [chat_chunk({"content": word}) for word in ("one ", "two ", "three ")]
END = [chat_chunk(finish="stop"), chat_chunk(choices=[], usage=USAGE), b"data: [DONE]\n\n"]
LARGE = chat_chunk({"content": "x" * 60_000})
SOON = 0.2
"""Seconds in which an upstream has to hear of it, and a little for the machine that this runs on."""
SLACK = 0.3


def leave(connection: Wire, how: str) -> None:
    """Hang up, politely or not."""
    if how == "RST":
        raw = connection.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.writer.transport.abort()


async def first_word(connection: Wire) -> None:
    await asyncio.wait_for(connection.reader.readuntil(b"three "), 5)


async def nothing(connection: Wire) -> None:
    await asyncio.sleep(0.05)


async def pressure(connection: Wire) -> None:
    """Until the relay has stopped reading for a client that does not read."""
    connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(0.5)


Moment = tuple[list[Step], bool, Callable[[Wire], Awaitable[None]]]
MOMENTS: dict[str, Moment] = {
    "before the first token": (["stall"], True, nothing),
    "before a whole answer": (["stall"], False, nothing),
    "in the preamble": (stream(chat_chunk({"role": "assistant"}), "stall", end=False), True, nothing),
    "in mid-stream": (stream(*WORDS, "stall", end=False), True, first_word),
    "under back-pressure": (stream(*WORDS, *[LARGE] * 300, "stall", end=False), True, pressure),
    "in half of a whole answer": (
        [b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n{"id":', "stall"],
        False,
        nothing,
    ),
}
PLACES = pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])


def asked(relay: Running, path: str, streamed: bool) -> bytes:
    return post(relay.key, path=path, stream=streamed, max_tokens=100)


@PLACES
@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.promise("F-01")
@pytest.mark.promise("F-02")
async def test_the_upstream_sees_its_peer_leave_at_once(
    start: Start, upstream: FakeUpstream, moment: str, how: str, path: str
) -> None:
    script, streamed, wait = MOMENTS[moment]
    upstream.scripts = [chat_answer(), script, chat_answer()]
    relay = await start(openai_config(upstream), key={"concurrency": 1})
    async with wire(relay) as connection:
        # The connection to the upstream is open from here on, so that the lane can take what follows.
        connection.send(asked(relay, path, False))
        assert (await connection.answer()).status == 200
        connection.send(asked(relay, path, streamed))
        await until(lambda: len(upstream.seen) == 2)
        await wait(connection)
        assert not upstream.peer_left
        left = time.monotonic()
        leave(connection, how)
        await until(lambda: bool(upstream.peer_left))
        assert upstream.peer_left[0] - left < SOON + SLACK
    await until(lambda: relay.relay.limiter.running() == 0)
    row = await relay.latest()
    assert (row.outcome, row.status) == ("client_abort", 499)
    assert row.usage_source == ("none" if "before" in moment or "whole" in moment else row.usage_source)
    async with relay.chat() as response:
        assert response.status == 200, "its place is free"


@pytest.mark.promise("F-01")
@pytest.mark.promise("F-02")
@pytest.mark.promise("F-03")
@both_transports
async def test_an_upstream_of_every_format_sees_its_peer_leave_and_what_was_seen_is_counted(
    start: Start, upstream: FakeUpstream, transport: str
) -> None:
    def play(seen: Seen) -> Sequence[Step]:
        kind, streamed = Kind.of(seen)
        if streamed and talks:
            return stream(*kind.start, kind.word("It is "), kind.word("a fine "), "stall", end=False)
        return ["stall"]

    upstream.answer = play
    relay = await start(every_format(upstream, transport))
    for way, talks, name in product(WAYS, (False, True), ("", "Idempotency-Key: one\r\n")):
        if talks and not way.streamed:
            continue
        path, body = way.request()
        text = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {relay.key}\r\n{name}"
            f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
        )
        upstream.seen.clear()
        upstream.peer_left.clear()
        async with wire(relay) as connection:
            connection.send(head.encode() + text)
            await until(lambda: len(upstream.seen) == 1)
            if talks and not name:
                await asyncio.wait_for(connection.reader.readuntil(b"a fine "), 5)
            else:
                # What is kept to be repeated is given when it is whole.
                await nothing(connection)
            left = time.monotonic()
            leave(connection, "RST")
            await until(lambda: bool(upstream.peer_left))
            assert upstream.peer_left[0] - left < SOON + SLACK, way
        await until(lambda: relay.relay.limiter.running() == 0)
        row = await relay.latest()
        assert (row.outcome, row.status) == ("client_abort", 499), (way, row)
        if talks:
            assert row.usage_source in ("estimate", "partial"), (way, row)
            assert row.usage is not None
            assert (row.usage.output or 0) > 0, (way, row)
            assert (row.cost or 0) > 0, (way, row)


@pytest.mark.promise("F-02")
async def test_a_client_that_leaves_while_the_second_target_is_asked(start: Start, upstream: FakeUpstream) -> None:
    def busy_first(seen: Any) -> list[Step]:
        return http({"error": {"message": "busy"}}, status=503) if seen.json["model"] == "m-1" else ["stall"]

    upstream.answer = busy_first
    relay = await start(openai_config(upstream).replace('["up/m-1"]', '["up/m-1", "up/m-2"]'))
    for number in range(2):
        async with wire(relay) as connection:
            connection.send(post(relay.key, stream=bool(number)))
            await until(lambda: bool(upstream.seen) and upstream.seen[-1].json["model"] == "m-2")
            left = time.monotonic()
            leave(connection, "FIN")
            await until(lambda: len(upstream.peer_left) == number + 1)  # noqa: B023 - waited for here
            assert upstream.peer_left[-1] - left < SOON + SLACK
        upstream.seen.clear()
    assert {row.outcome for row in await relay.rows()} == {"client_abort"}


@pytest.mark.promise("F-03")
async def test_whoever_leaves_before_the_count_pays_what_was_seen(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [stream(*WORDS, chat_chunk(finish="stop"), "stall", end=False)]
    relay = await start(openai_config(upstream))
    for number in range(50):
        async with wire(relay) as connection:
            connection.send(post(relay.key, stream=True))
            await asyncio.wait_for(connection.reader.readuntil(b'"stop"'), 5)
            leave(connection, "FIN" if number % 2 else "RST")
        await until(lambda: len(upstream.peer_left) > number)  # noqa: B023 - waited for here
    rows = await relay.rows()
    assert len(rows) == 50
    for row in rows:
        assert row.outcome == "client_abort"
        assert row.usage_source in ("estimate", "partial")
        assert row.usage is not None
        assert (row.usage.output or 0) > 0
        assert (row.cost or 0) > 0


DRAINING: dict[str, list[Step]] = {
    "stream": stream(*WORDS, 0.4, *END),
    "under back-pressure": stream(*WORDS, *[LARGE] * 300, 0.2, *END),
    "whole": [0.4, *chat_answer()],
}


@PLACES
@pytest.mark.parametrize("who", ["key", "upstream"])
@pytest.mark.parametrize("kind", DRAINING)
@pytest.mark.promise("F-03")
async def test_an_answer_is_read_on_for_its_count_where_that_is_wanted(
    start: Start, upstream: FakeUpstream, kind: str, who: str, path: str
) -> None:
    upstream.scripts = [chat_answer(), DRAINING[kind], chat_answer()]
    text = openai_config(upstream)
    if who == "upstream":
        text = text.replace("[models.m]", 'abort = "drain"\n    [models.m]')
    relay = await start(text, key={"abort": "drain", "concurrency": 1} if who == "key" else {})
    async with wire(relay) as connection:
        connection.send(asked(relay, path, False))
        assert (await connection.answer()).status == 200
        connection.send(asked(relay, path, kind != "whole"))
        await until(lambda: len(upstream.seen) == 2)
        if kind == "stream":
            await first_word(connection)
        elif kind != "whole":
            await pressure(connection)
        leave(connection, "RST")
    await until(lambda: len(relay.relay.abandoned) == 1)
    await until(lambda: not relay.relay.abandoned)
    assert not upstream.peer_left, "nobody hung up on it"
    row = await relay.latest()
    assert (row.outcome, row.status, row.usage_source) == ("client_abort", 499, "provider")
    assert row.usage is not None
    assert (row.usage.input, row.usage.output) == (11, 3)
    assert row.cost == 11 * 1000 + 3 * 2000
    assert relay.relay.limiter.running() == 0
    async with relay.chat() as response:
        assert response.status == 200


@pytest.mark.promise("F-03")
async def test_a_key_that_gives_up_wins_over_an_upstream_that_does_not(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [stream(*WORDS, "stall", end=False)]
    text = openai_config(upstream).replace("[models.m]", 'abort = "drain"\n    [models.m]')
    relay = await start(text, key={"abort": "cancel"})
    async with wire(relay) as connection:
        connection.send(post(relay.key, stream=True))
        await first_word(connection)
    await until(lambda: bool(upstream.peer_left))
    assert (await relay.row()).usage_source == "estimate"


@pytest.mark.promise("F-03")
async def test_nothing_is_read_on_for_ever_or_past_the_end(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer(), stream(*WORDS, "stall", end=False)]
    text = openai_config(upstream).replace("[models.m]", 'abort = "drain"\n    [models.m]')
    relay = await start(text + "    [server]\n    abandoned_seconds = 0.3\n")
    async with wire(relay) as connection:
        connection.send(post(relay.key))
        assert (await connection.answer()).status == 200
        connection.send(post(relay.key, stream=True))
        await first_word(connection)
    await until(lambda: len(upstream.peer_left) == 1)
    await until(lambda: not relay.relay.abandoned)
    row = await relay.latest()
    assert (row.outcome, row.usage_source) == ("client_abort", "estimate")
    # One whose relay is told to stop.
    longer = await start(text)
    async with wire(longer) as connection:
        connection.send(post(longer.key, stream=True))
        await first_word(connection)
    await until(lambda: len(longer.relay.abandoned) == 1)
    runner = longer.server.runner
    assert isinstance(runner, RelayRunner)
    began = time.monotonic()
    await runner.drain(0.2, asyncio.Event())
    assert time.monotonic() - began < 2
    await until(lambda: not longer.relay.abandoned)
    assert (await longer.row()).outcome == "client_abort"


@pytest.mark.promise("F-03")
async def test_an_upstream_that_fails_without_anybody_to_tell_is_recorded_all_the_same(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.scripts = [chat_answer(), stream(*WORDS, 0.3, "rst", end=False), [0.3, *http(b"no", status=500)]]
    text = openai_config(upstream).replace("[models.m]", 'abort = "drain"\n    [models.m]')
    relay = await start(text + "    [routing]\n    max_attempts = 1\n")
    for streamed in (True, False):
        async with wire(relay) as connection:
            if streamed:
                connection.send(post(relay.key))
                assert (await connection.answer()).status == 200
            connection.send(post(relay.key, stream=streamed))
            if streamed:
                await first_word(connection)
            else:
                await until(lambda: len(upstream.seen) == 3)
        await until(lambda: len(relay.relay.abandoned) == 1)
        await until(lambda: not relay.relay.abandoned)
    rows = await relay.rows()
    assert [row.outcome for row in rows] == ["client_abort", "client_abort", "ok"]
    assert [row.error_code for row in rows[:2]] == ["upstream_error", "upstream_protocol_error"]
    assert relay.relay.limiter.running() == 0


async def test_a_key_says_one_of_two_things_or_nothing(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream))
    keys = relay.relay.store.keys
    key, _ = await keys.create("drains", abort="drain")
    assert (await keys.find("drains")).abort == "drain"
    assert key.to_dict()["abort"] == "drain"
    assert (await keys.update("drains", abort=None)).abort is None
    with pytest.raises(StoreError, match="cancel or drain"):
        await keys.update("drains", abort="ignore")
