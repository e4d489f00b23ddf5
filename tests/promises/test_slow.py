"""Clients that say nothing, say it slowly, or take nothing: each is let go in time, and its upstream with it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from pathlib import Path

import pytest

from relay.views import calls
from tests.flow.conftest import Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer, chat_chunk, chat_stream, stream
from tests.promises.wire import post, until, wire

LARGE = chat_chunk({"content": "x" * 60_000})


def config(upstream: FakeUpstream, server: str) -> str:
    return openai_config(upstream) + f"    [server]\n    {server}\n"


def memory() -> int:
    """Bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.promise("H-04")
async def test_whoever_says_nothing_or_drips_its_head_is_let_go(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(config(upstream, "head_timeout = 0.4"))
    began = time.monotonic()
    async with wire(relay) as silent, wire(relay) as half, wire(relay) as dripping, wire(relay) as later:
        half.send(b"GET /healthz HTTP/1.1\r\nHost: loc")
        later.send(post(relay.key))
        assert (await later.answer()).status == 200
        later.send(b"POST /v1/chat/completions HTTP/1.1\r\nHo")

        async def drip() -> None:
            for byte in b"GET /healthz HTTP/1.1\r\nX-Slow: " + b"y" * 100:
                dripping.send(bytes((byte,)))
                await asyncio.sleep(0.05)

        task = asyncio.create_task(drip())
        for connection in (silent, half, dripping, later):
            assert await connection.rest() == b""
        task.cancel()
        assert time.monotonic() - began < 3
    # One that is quick is not hurried, however many requests it sends.
    async with wire(relay) as connection:
        for _ in range(3):
            connection.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await connection.answer()).status == 200
            await asyncio.sleep(0.3)


@pytest.mark.promise("H-04")
async def test_a_body_may_take_long_only_while_it_comes(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(config(upstream, "body_timeout = 0.3"))
    monkeypatch.setattr(calls, "SLOWEST", 20_000)
    whole = post(relay.key, user="u" * 20_000)
    async with wire(relay) as connection:
        # About a second for 20 KB, in steps that are each quicker than they must be.
        for begin in range(0, len(whole), 2000):
            connection.send(whole[begin : begin + 2000])
            await asyncio.sleep(0.08)
        assert (await connection.answer()).status == 200
    async with wire(relay) as connection:
        began = time.monotonic()
        connection.send(whole[:300])

        async def drip() -> None:
            for number in range(300, 400):
                connection.send(whole[number : number + 1])
                await asyncio.sleep(0.05)

        task = asyncio.create_task(drip())
        said = await connection.answer()
        assert (said.status, said.error["code"]) == (408, "request_timeout")
        assert time.monotonic() - began < 2
        task.cancel()


def unwilling() -> socket.socket:
    """A client with little room, which asks and does not read."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return client


@pytest.mark.promise("X-05")
@pytest.mark.promise("F-02")
async def test_two_hundred_readers_that_never_read_cost_little_and_are_let_go(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.scripts = [stream(*[LARGE] * 400, "stall", end=False)]
    relay = await start(config(upstream, "write_timeout = 1.0"), key={"concurrency": 300})
    loop = asyncio.get_running_loop()
    clients = [unwilling() for _ in range(200)]
    before = memory()
    try:
        for client in clients:
            await loop.sock_connect(client, ("127.0.0.1", relay.server.port or 0))
            await loop.sock_sendall(client, post(relay.key, stream=True))
        await until(lambda: len(upstream.seen) == 200, 20)
        await until(lambda: len(upstream.peer_left) == 200, 30)
        # Both ends are in this process; what the upstreams of the test hold is in it, too.
        assert memory() - before < 200 * 1_000_000
    finally:
        for client in clients:
            client.close()
    rows = await relay.relay.store.usage.rows(limit=300) if await relay.rows() else []
    assert [row.outcome for row in rows] == ["client_abort"] * 200
    assert relay.relay.limiter.running() == 0
    upstream.scripts = [chat_answer()]
    async with relay.chat() as response:
        assert response.status == 200


@pytest.mark.promise("X-05")
@pytest.mark.parametrize("kind", ["stream", "whole"])
async def test_one_that_takes_nothing_is_let_go_and_one_that_is_slow_is_not(
    start: Start, upstream: FakeUpstream, kind: str
) -> None:
    script = (
        stream(*[LARGE] * 200, chat_chunk(finish="stop"), b"data: [DONE]\n\n")
        if kind == "stream"
        else chat_answer("x" * 12_000_000)
    )
    upstream.scripts = [script]
    relay = await start(config(upstream, "write_timeout = 0.5"))
    loop = asyncio.get_running_loop()
    with unwilling() as client:
        await loop.sock_connect(client, ("127.0.0.1", relay.server.port or 0))
        await loop.sock_sendall(client, post(relay.key, stream=kind == "stream"))
        await until(lambda: len(upstream.seen) == 1)
        await until(lambda: not relay.server.runner.server.connections, 10)
    async with wire(relay) as slow:
        slow.send(post(relay.key, stream=kind == "stream"))
        got, began = 0, time.monotonic()
        while got < 11_000_000:
            # For longer than the other one had in all, and never silent for so long.
            piece = await slow.reader.read(100_000 if got < 1_500_000 else 1_000_000)
            assert piece, f"let go after {got} bytes"
            got += len(piece)
            await asyncio.sleep(0.1 if got < 1_500_000 else 0)
        assert time.monotonic() - began > 1.2
    assert relay.relay.limiter.running() == 0


@pytest.mark.promise("F-02")
async def test_a_stream_that_pauses_is_no_reason_to_let_anybody_go(start: Start, upstream: FakeUpstream) -> None:
    whole = chat_stream()
    upstream.scripts = [[*whole[:3], 1.2, *whole[3:]]]
    relay = await start(config(upstream, "write_timeout = 0.3"))
    async with wire(relay) as connection:
        connection.send(post(relay.key, stream=True))
        assert b"[DONE]" in (await connection.answer()).body
    assert (await relay.row()).outcome == "ok"
