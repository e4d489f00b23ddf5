"""Calls that end in every way, for as long as `I8RELAY_SOAK_SECONDS` says: nothing grows, and each has its row."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp
import pytest

from tests.flow.conftest import Running, Start
from tests.flow.fake import FakeUpstream, Seen, Step, chat_answer, chat_chunk, chat_stream, http, stream
from tests.promises.wire import until

SECONDS = float(os.environ.get("I8RELAY_SOAK_SECONDS", "20"))
WARM_UP = 0.3
"""The part of the time in which caches fill and the allocator finds its size."""
GROWTH_MB = 6.0
"""Between the medians of the first and the last third of the samples."""
GOOD_A_ROUND = 8
"""How often each call that succeeds is made in a round: most calls do."""
MOST_ROUNDS = 4
"""Samples a second: what is kept of each must not be what grows."""

# What is kept for the next turn is bounded, and may grow up to its bound: small enough here to be no part of a slope.
CONFIG = """
[memory]
megabytes = 1
answers_megabytes = 1
[routing]
backoff_seconds = 0.01
cool_down_seconds = 0.05
max_cool_down_seconds = 0.05
[upstreams.good]
family = "openai"
base_url = "URL/v1"
api_key = "sk-CANARY-good"
[upstreams.bad]
family = "openai"
base_url = "URL/v1"
api_key = "sk-CANARY-bad"
first_byte_timeout = 0.2
idle_timeout = 0.2
[models.m]
targets = ["good/good"]
price = {input = 1.0, output = 2.0}
[models.waits]
targets = ["good/waits"]
[models.middle]
targets = ["good/middle"]
"""
BROKEN: dict[str, Sequence[Step]] = {
    "fails": http({"error": {"message": "not now", "type": "server_error"}}, 503),
    "refuses": http({"error": {"message": "odd", "type": "invalid_request_error"}}, 400),
    "cut": stream(chat_chunk({"content": "Hel"}), "rst", end=False),
    "silent": ["stall"],
    "stalls": stream(chat_chunk({"content": "Hel"}), "stall", end=False),
    "garbage": http(b"<html>", content_type="text/html"),
}
"""What upstreams that are at fault do, by the name of their model."""
STREAMED = {"cut", "stalls"}


def config(upstream: FakeUpstream) -> str:
    models = "".join(f'[models.{name}]\ntargets = ["bad/{name}"]\n' for name in BROKEN)
    return (CONFIG + models).replace("URL", upstream.url)


def play(seen: Seen) -> Sequence[Step]:
    """The upstream's part, by the model's name."""
    body = seen.json
    if "embeddings" in seen.path:
        one = {"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}
        return http({"object": "list", "data": [one], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}})
    if body["model"] == "waits":
        return ["stall"]
    if body["model"] == "middle":
        return stream(chat_chunk({"content": "first"}), "stall", end=False)
    if body["model"] in BROKEN:
        return BROKEN[body["model"]]
    return chat_stream() if body.get("stream") else chat_answer()


MESSAGES = [{"role": "user", "content": "Hi"}]
TALK = {"messages": MESSAGES, "max_tokens": 20}
GOOD = [
    ("/v1/chat/completions", {"model": "m", **TALK}),
    ("/v1/chat/completions", {"model": "m", "stream": True, **TALK}),
    ("/v1/messages", {"model": "m", **TALK}),
    ("/v1/messages", {"model": "m", "stream": True, **TALK}),
    ("/v1/responses", {"model": "m", "input": "Hi"}),
    ("/v1/responses", {"model": "m", "input": "Hi", "stream": True}),
    ("/v1/completions", {"model": "m", "prompt": "Hi"}),
    ("/v1/embeddings", {"model": "m", "input": "Hi"}),
    ("/v1beta/models/m:generateContent", {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}),
    ("/v1beta/models/m:streamGenerateContent?alt=sse", {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}),
]
"""Calls that succeed, in every dialect."""
ODD = [
    ("/v1/chat/completions", {"model": "nobody", **TALK}),
    ("/v1/chat/completions", {"model": "m", "messages": 5}),
    *(("/v1/chat/completions", {"model": name, "stream": name in STREAMED, **TALK}) for name in BROKEN),
    *(("/v1/messages", {"model": name, "stream": name in STREAMED, **TALK}) for name in BROKEN),
]
"""Calls that the relay or an upstream refuses or breaks off."""


@dataclass
class Sample:
    """What the process holds when nothing is in flight."""

    megabytes: float
    descriptors: int
    tasks: int


def sample() -> Sample:
    gc.collect()
    # What is free but kept by the allocator says nothing about what is held.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return Sample(megabytes, len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks()))


async def complete(relay: Running, path: str, body: object, expected: bool) -> None:
    """One call whose client reads what comes."""
    async with relay.client.post(relay.url + path, json=body) as response:
        if expected:
            await response.read()
            assert response.status == 200, (path, response.status)
        else:
            # A stream that was broken off has no proper end.
            with contextlib.suppress(aiohttp.ClientPayloadError):
                await response.read()


async def abort(relay: Running, model: str, streamed: bool, read: bool) -> None:
    """One call whose client leaves, once the upstream has it or its first words are there."""
    text = json.dumps({"model": model, "stream": streamed, **TALK}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {relay.key}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.server.port)
    try:
        writer.write(head.encode() + text)
        if read:
            await asyncio.wait_for(reader.readuntil(b"first"), 20)
        else:
            # There is nothing to wait for at this end; a call that was let in has its place.
            await until(lambda: relay.relay.limiter.running() > 0, 20)
            await asyncio.sleep(0.02)
    finally:
        writer.transport.abort()


async def play_round(relay: Running, upstream: FakeUpstream) -> int:
    """Every ending once, side by side; how many calls that were."""
    calls = [complete(relay, path, body, True) for path, body in GOOD * GOOD_A_ROUND]
    calls += [complete(relay, path, body, False) for path, body in ODD]
    calls += [abort(relay, "middle", True, True), abort(relay, "middle", True, True)]
    await asyncio.gather(*calls)
    # By themselves, so that the place which is taken is theirs.
    for streamed in (False, True):
        await until(lambda: relay.relay.limiter.running() == 0, 20)
        await abort(relay, "waits", streamed, False)
    await until(lambda: relay.relay.limiter.running() == 0, 20)
    upstream.seen.clear()
    upstream.peer_left.clear()
    return len(calls) + 2


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """The medians of the first and the last third."""
    part = max(1, len(values) // 3)
    return median(values[:part]), median(values[-part:])


@pytest.mark.promise("X-04")
@pytest.mark.timeout(SECONDS * 2 + 120)
async def test_nothing_grows_and_nothing_is_lost_however_calls_end(
    start: Start, upstream: FakeUpstream, tmp_path: Path
) -> None:
    upstream.answer = play
    relay = await start(config(upstream), key={"concurrency": 1000})
    began = time.monotonic()
    samples: list[Sample] = []
    calls = rounds = 0
    while (now := time.monotonic() - began) < SECONDS or len(samples) < 9:
        calls += await play_round(relay, upstream)
        rounds += 1
        if (now > SECONDS * WARM_UP or now > SECONDS) and now * MOST_ROUNDS > len(samples):
            await relay.relay.store.usage.flush()
            samples.append(sample())
    assert relay.relay.limiter.running() == 0
    await relay.relay.store.usage.flush()
    with contextlib.closing(sqlite3.connect(tmp_path / "relay0.db")) as database:
        (rows,) = database.execute("SELECT count(*) FROM usage").fetchone()
        (different,) = database.execute("SELECT count(DISTINCT request_id) FROM usage").fetchone()
    memory = thirds([one.megabytes for one in samples])
    descriptors = thirds([one.descriptors for one in samples])
    tasks = thirds([one.tasks for one in samples])
    print(
        f"{calls} calls in {rounds} rounds, {rows} rows; RSS {memory[0]:.1f} -> {memory[1]:.1f} MB,"
        f" descriptors {descriptors[0]:.0f} -> {descriptors[1]:.0f}, tasks {tasks[0]:.0f} -> {tasks[1]:.0f}"
    )
    assert rows == different == calls
    assert memory[1] - memory[0] < GROWTH_MB
    # The pool of connections to the upstream breathes by some; a leak would be one or more a round.
    slack = max(4.0, 0.05 * rounds)
    assert descriptors[1] - descriptors[0] <= slack
    assert tasks[1] - tasks[0] <= slack
    assert len(relay.relay.limiter) < 1024 + 100
    # One address, two upstreams and their targets.
    assert len(relay.relay.dispatch.health.circuits) <= 2 * (len(BROKEN) + 2)
    assert not relay.relay.abandoned
