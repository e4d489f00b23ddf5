"""A process that has as much in memory as it may have lets nobody new in, and those who are inside notice nothing."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from relay.crowd import Crowd, measured
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import DONE, FakeUpstream, Seen, Step, chat_answer, chat_chunk, stream
from tests.promises.courses import PLANES, Got, ask
from tests.promises.wire import post, until, wire


def config(upstream: FakeUpstream, limit: int) -> str:
    return openai_config(upstream) + f"    [server]\n    max_memory_mb = {limit}\n"


async def ready(relay: Running) -> tuple[int, str]:
    async with relay.client.get(f"{relay.url}/readyz") as response:
        return response.status, (await response.json())["status"]


@pytest.mark.promise("F-19")
async def test_nobody_new_is_let_in_and_open_answers_go_on(start: Start, upstream: FakeUpstream) -> None:
    go_on = asyncio.Event()

    def play(seen: Seen) -> list[Step]:
        if seen.json.get("stream"):
            return stream(chat_chunk({"content": "one "}), go_on, chat_chunk({"content": "two"}, "stop"), DONE)
        return [go_on, *chat_answer()]

    upstream.answer = play
    relay = await start(config(upstream, 1000))
    megabytes = [500.0]
    relay.relay.crowd.measure = lambda: megabytes[0]
    async with wire(relay) as streaming, wire(relay) as waiting, wire(relay) as slow:
        streaming.send(post(relay.key, stream=True))
        await streaming.reader.readuntil(b"one ")
        waiting.send(post(relay.key))
        await until(lambda: len(upstream.seen) == 2)
        assert await ready(relay) == (200, "ready")
        megabytes[0] = 1001.0
        relay.relay.crowd.look()
        assert await ready(relay) == (503, "overloaded")
        for plane in PLANES:
            got = await ask(relay, plane)
            assert got.status == 503, plane
            assert got.headers["retry-after"] == "2"
            assert b"as much in memory as it may have" in got.body
        # Before the body, which would only need more.
        slow.send(post(relay.key)[:-20])
        assert (await slow.answer()).error["code"] == "memory_full"
        async with relay.client.get(f"{relay.url}/v1/models") as response:
            assert response.status == 200
        async with relay.client.post(f"{relay.url}/v1/messages", headers={"Authorization": "Bearer no"}) as response:
            assert response.status == 401
        assert len(upstream.seen) == 2
        # A little less is not enough: else it would flap.
        megabytes[0] = 950.0
        relay.relay.crowd.look()
        assert (await ask(relay)).status == 503
        go_on.set()
        rest = await streaming.rest_of_stream()
        assert b"two" in rest
        assert b"[DONE]" in rest
        assert (await waiting.answer()).status == 200
    megabytes[0] = 899.0
    relay.relay.crowd.look()
    assert await ready(relay) == (200, "ready")
    for plane in PLANES:
        assert (await ask(relay, plane)).status == 200, plane
    rows = [(row.outcome, row.status, row.error_code) for row in await relay.rows() if row.operation == "generate"]
    assert sorted(rows, key=str) == sorted([("ok", 200, None)] * 5 + [("rejected", 503, "memory_full")] * 5, key=str)
    assert relay.relay.limiter.running() == 0


@pytest.mark.promise("F-19")
async def test_what_the_process_has_is_measured_by_itself(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(config(upstream, 1))
    await until(lambda: relay.relay.crowd.full)
    got: Got = await ask(relay)
    assert got.status == 503
    assert "MiB are in memory, and 1 may be: nobody new is let in" in caplog.text
    settings = relay.relay.settings
    relay.relay.settings = type("Settings", (), {"server": type("Server", (), {"max_memory_mb": 10**6})})()  # type: ignore[assignment]
    await until(lambda: not relay.relay.crowd.full)
    relay.relay.settings = settings
    assert "there is room again" in caplog.text


@pytest.mark.promise("F-19")
def test_memory_is_what_is_really_there() -> None:
    before = measured()
    assert 20 < before < 100_000
    held = b"x" * (64 * 1024 * 1024)
    assert 60 < measured() - before < 80
    del held
    assert measured() - before < 20


def test_without_a_limit_nothing_is_measured() -> None:
    def never() -> float:
        raise AssertionError("nobody asked")

    crowd = Crowd(lambda: 0, never)
    crowd.look()
    crowd.enter()
    assert not crowd.full


def test_those_who_want_to_know_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []
    levels = iter([5.0, 11.0, 12.0, 9.5, 8.0, 8.0])
    crowd = Crowd(lambda: 10, lambda: next(levels))
    crowd.changed.append(told.append)
    for _ in range(6):
        crowd.look()
    assert told == [True, False]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
