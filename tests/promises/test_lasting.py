"""What goes on beside the calls: whatever of it fails is told, counted and begun again, and the relay serves on."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import relay.app
import relay.lasting
from relay.cli.lifetime import Lifetime
from relay.cli.logs import Logs
from relay.exchange import Exchange
from relay.lasting import Lasting
from relay.store import upkeep as upkeep_module
from relay.store.ring import KeyRing
from relay.store.upkeep import Upkeep
from relay.store.writer import Writer
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer
from tests.promises.wire import eventually, post, until, wire


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for a second."""
    monkeypatch.setattr(relay.lasting, "FIRST", 0.01)


def failing(times: int, then: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A coroutine function that fails so often, in a way that nobody has foreseen."""
    left = [times]

    async def work(*arguments: Any, **options: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("nobody has foreseen this")
        return None if then is None else await then(*arguments, **options)

    return work


@pytest.mark.promise("C-07")
async def test_what_fails_begins_again_after_longer_and_longer_pauses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def paused(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(relay.lasting.asyncio, "sleep", paused)
    work = Lasting("odd", failing(8), first=1.0, longest=10.0)
    task = work.start()
    await task
    assert pauses == [1, 2, 4, 8, 10, 10, 10, 10]
    assert work.restarts == 8
    assert caplog.text.count("odd failed and begins again") == 8
    assert "nobody has foreseen this" in caplog.text


@pytest.mark.promise("C-07")
async def test_what_is_told_to_stop_stops_also_between_two_tries() -> None:
    work = Lasting("odd", failing(1000), first=60.0)
    work.start()
    await until(lambda: work.restarts == 1)
    await asyncio.wait_for(work.stop(), 2)
    assert work.restarts == 1
    await work.stop()


@pytest.mark.promise("C-07")
async def test_a_writer_that_failed_loses_no_row() -> None:
    stored: list[int] = []
    left = [3]

    async def sink(rows: Sequence[int]) -> None:
        if left[0]:
            left[0] -= 1
            raise RuntimeError("nobody has foreseen this")
        stored.extend(rows)

    writer = Writer(sink, interval=0)
    for number in range(20):
        writer.put(number)
    assert await writer.flush(5)
    assert sorted(stored) == list(range(20))
    assert (writer.dropped, writer.written, writer.pending) == (0, 20, 0)
    assert writer.work.restarts == 3
    await writer.close()


@pytest.mark.promise("C-07")
async def test_a_row_that_fails_each_time_is_the_only_one_lost() -> None:
    stored: list[int] = []

    async def sink(rows: Sequence[int]) -> None:
        if 7 in rows:
            raise KeyError("seven")
        stored.extend(rows)

    writer = Writer(sink, interval=0)
    for number in range(20):
        writer.put(number)
    assert await writer.flush(10)
    assert sorted(stored) == [number for number in range(20) if number != 7]
    assert (writer.dropped, writer.pending) == (1, 0)
    writer.put(21)
    assert await writer.flush(5)
    assert stored[-1] == 21
    await writer.close()


async def restarts(relay: Running) -> dict[str, int]:
    async with relay.client.get(f"{relay.url}/readyz") as response:
        assert response.status == 200
        found: dict[str, int] = (await response.json())["restarts"]
        return found


async def serves(relay: Running, streamed: bool = False) -> None:
    async with relay.chat(stream=streamed) as response:
        assert response.status == 200
        await response.read()


@pytest.mark.promise("C-07")
async def test_lists_of_models_are_asked_for_again(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.scripts = [chat_answer()]
    upstream.models = {"object": "list", "data": [{"id": "later", "object": "model"}]}
    monkeypatch.setattr(relay.app.Relay, "list_all", failing(2, relay.app.Relay.list_all))
    running = await start(openai_config(upstream))
    await serves(running)
    assert await restarts(running) == {"model-lists": 2}
    assert "model-lists failed and begins again" in caplog.text
    async with running.chat(model="later") as response:
        assert response.status == 200


@pytest.mark.promise("C-07")
async def test_old_rows_are_looked_after_again(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.scripts = [chat_answer()]
    looked = asyncio.Event()

    async def look(self: Upkeep, now: int) -> int:
        looked.set()
        return 0

    monkeypatch.setattr(upkeep_module, "FIRST", 0.0)
    monkeypatch.setattr(Upkeep, "run", failing(2, look))
    running = await start(openai_config(upstream))
    await asyncio.wait_for(looked.wait(), 5)
    await serves(running)
    assert await restarts(running) == {"store-upkeep": 2}


@pytest.mark.promise("C-07")
async def test_changes_of_keys_are_seen_again(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.scripts = [chat_answer()]
    running = await start(openai_config(upstream))
    await serves(running)
    ring = running.relay.store.ring
    monkeypatch.setattr(KeyRing, "refresh", failing(2, KeyRing.refresh))
    await until(lambda: ring.work.restarts == 2)
    await serves(running)
    assert await restarts(running) == {"store-keys": 2}
    await running.relay.store.keys.revoke("test")

    async def refused() -> bool:
        async with running.chat() as response:
            return response.status == 401

    await eventually(refused)


@pytest.mark.promise("C-07")
async def test_rows_are_written_again_and_none_is_missing(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.scripts = [chat_answer()]
    running = await start(openai_config(upstream))
    writer = running.relay.store.usage.writer
    monkeypatch.setattr(writer, "_sink", failing(2, writer._sink))
    for _ in range(5):
        await serves(running)
    assert [row.outcome for row in await running.rows()] == ["ok"] * 5
    assert await restarts(running) == {"store-writer": 2}


@pytest.mark.promise("C-07")
async def test_one_call_whose_end_fails_costs_no_other_its_deadline(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.scripts = [["stall"]]
    running = await start(openai_config(upstream).replace("[models.m]", "first_byte_timeout = 0.2\n    [models.m]"))
    expire, failed = Exchange.expire, []

    def broken(self: Exchange, now: float) -> None:
        if not failed or self in failed:
            failed.append(self)
            raise RuntimeError("nobody has foreseen this")
        expire(self, now)

    monkeypatch.setattr(Exchange, "expire", broken)

    async def asked() -> int:
        try:
            async with asyncio.timeout(1), running.chat() as response:
                return int(response.status)
        except TimeoutError:
            return 0

    statuses = sorted(await asyncio.gather(*(asked() for _ in range(5))))
    assert statuses[1:] == [504] * 4
    # Nor those that come later.
    assert await asked() == 504


@pytest.mark.promise("C-07")
async def test_a_dialect_that_cannot_tell_an_error_holds_nobody(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the second call: the first one opens the connection, and goes another way.
    upstream.scripts = [chat_answer(), ["fin"], chat_answer()]
    running = await start(openai_config(upstream) + "    [routing]\n    max_attempts = 1\n")
    await serves(running)
    dialect = type(running.relay.plugins.dialects["openai-chat"])

    def broken(*_: Any) -> bytes:
        raise RuntimeError("a dialect's fault")

    with monkeypatch.context() as patch:
        patch.setattr(dialect, "encode_error", broken)
        async with wire(running) as connection:
            connection.send(post(running.key))
            said = await connection.rest()
    assert said == b"" or b" 500 " in said.partition(b"\r\n")[0]
    await until(lambda: running.relay.limiter.running() == 0)
    rows = await running.rows()
    assert len(rows) == 2
    assert rows[0].outcome != "ok"
    await serves(running)


@pytest.mark.promise("C-07")
async def test_a_log_whose_thread_failed_is_written_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    try:
        logs = Logs(writing)
        put, left = logs._put, [2]

        def broken(line: bytes, *, wait: bool) -> bool:
            if left[0]:
                left[0] -= 1
                raise RuntimeError("nobody has foreseen this")
            return put(line, wait=wait)

        monkeypatch.setattr(logs, "_put", broken)
        logs.start()
        for number in range(5):
            logs.handle(logging.LogRecord("relay", logging.INFO, __file__, 1, f"line {number}", None, None))
        await until(lambda: logs.restarts == 2 and not logs._lines)
        logs.close()
        text = os.read(reading, 10_000).decode()
        # What it failed at is lost, and counted.
        assert "this log failed and goes on (RuntimeError)" in text
        assert "line 4" in text
        assert logs.lost == 2
        assert logs._came - logs._went == 0
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.promise("C-07")
async def test_a_reload_that_failed_in_an_odd_way_can_be_asked_for_again(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream.scripts = [chat_answer()]
    running = await start(openai_config(upstream))
    said: list[str] = []
    loads = [RuntimeError("nobody has foreseen this"), running.relay.config]

    def load() -> Any:
        found = loads.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def beating() -> None:
        await asyncio.Event().wait()

    notifier = SimpleNamespace(
        ready=lambda: said.append("ready"), reloading=lambda: said.append("reloading"), beating=beating
    )
    life = Lifetime(running.relay, load, notifier)  # type: ignore[arg-type]
    for work in life._works:
        work.start()
    running.relay.lasting += life._works
    life._again.set()
    await until(lambda: life._works[0].restarts == 1)
    life._again.set()
    await until(lambda: said == ["reloading", "ready"] * 2)
    assert not loads
    await serves(running)
    assert await restarts(running) == {"reloading": 1}
