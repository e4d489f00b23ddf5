"""The end of a server's connections, seen from within: with the lane and without it."""

from __future__ import annotations

import asyncio
import time

import pytest

from relay.door import RelayRunner
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer, chat_chunk, chat_stream, http, stream
from tests.promises.wire import post, until, wire

WORD = chat_chunk({"content": "one "})
STALLED = stream(WORD, "stall", end=False)


async def drained(relay: Running, seconds: float = 0.2) -> int:
    runner = relay.server.runner
    assert isinstance(runner, RelayRunner)
    return await runner.drain(seconds, asyncio.Event())


@pytest.mark.promise("C-02")
async def test_each_stage_of_a_call_has_its_own_end(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer(), STALLED, ["stall"], ["stall"]]
    relay = await start(openai_config(upstream))
    async with wire(relay) as idle, wire(relay) as open_, wire(relay) as waiting, wire(relay) as sending:
        idle.send(post(relay.key))
        assert (await idle.answer()).status == 200
        open_.send(post(relay.key, stream=True))
        await asyncio.wait_for(open_.reader.readuntil(b"one "), 5)
        waiting.send(post(relay.key, stream=True))
        await until(lambda: len(upstream.seen) == 3)
        sending.send(post(relay.key)[:-5])
        await asyncio.sleep(0.2)
        began = time.monotonic()
        assert await drained(relay) == 3
        assert time.monotonic() - began < 2
        assert await idle.rest() == b""
        rest = await open_.rest()
        assert rest.count(b'"server_shutdown"') == 1
        assert not rest.endswith(b"0\r\n\r\n")
        for connection in (waiting, sending):
            said = await connection.answer()
            assert (said.status, said.error["code"]) == (503, "server_shutdown")
            assert await connection.rest() == b""
    rows = await relay.rows()
    assert [row.outcome for row in rows] == ["shutdown"] * 3 + ["ok"]
    assert relay.relay.limiter.running() == 0


@pytest.mark.promise("C-02")
async def test_a_call_that_tries_its_second_target_is_ended_as_well(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: (
        http({"error": {"message": "busy"}}, status=503) if seen.json["model"] == "m-1" else STALLED
    )
    text = openai_config(upstream).replace('["up/m-1"]', '["up/m-1", "up/m-2"]')
    relay = await start(text)
    async with wire(relay) as connection:
        connection.send(post(relay.key, stream=True))
        await asyncio.wait_for(connection.reader.readuntil(b"one "), 5)
        assert await drained(relay) == 1
        assert b"server_shutdown" in await connection.rest()
    assert (await relay.row()).outcome == "shutdown"


@pytest.mark.promise("C-01")
async def test_what_ends_in_time_ends_well_and_is_not_waited_for_longer(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [[0.3, *chat_stream()], [0.3, *chat_answer()]]
    relay = await start(openai_config(upstream))
    async with wire(relay) as first, wire(relay) as second:
        first.send(post(relay.key, stream=True))
        await until(lambda: len(upstream.seen) == 1)
        second.send(post(relay.key))
        await until(lambda: len(upstream.seen) == 2)
        began = time.monotonic()
        assert await drained(relay, 60) == 0
        assert time.monotonic() - began < 5
        assert (await first.rest()).endswith(b"0\r\n\r\n")
        assert (await second.answer()).status == 200
        assert await second.rest() == b""
    assert [row.outcome for row in await relay.rows()] == ["ok", "ok"]


@pytest.mark.promise("C-03")
async def test_a_client_that_does_not_read_holds_nobody_up(start: Start, upstream: FakeUpstream) -> None:
    large = chat_chunk({"content": "x" * 60_000})
    upstream.scripts = [stream(WORD, *[large] * 400, "stall", end=False)]
    relay = await start(openai_config(upstream))
    async with wire(relay) as connection:
        connection.send(post(relay.key, stream=True))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        assert await drained(relay) == 1
        assert time.monotonic() - began < 3
    assert (await relay.row()).outcome == "shutdown"
