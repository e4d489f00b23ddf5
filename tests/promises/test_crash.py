"""`kill -9`: every call that had begun has its row after the next start, once, and money is not forgotten."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from relay.app import RELAY, Relay, create_app
from relay.config import read_text
from relay.store import Store, UsageRow
from tests.flow.fake import FakeUpstream, chat_answer, chat_chunk, chat_stream, stream
from tests.promises.served import ALONE, Served, served
from tests.promises.test_budgets import UNIT, config, spends
from tests.promises.wire import until

TIMEOUT = 20.0
KILLS = int(os.environ.get("I8RELAY_KILLS", "8"))
"""Moments at which a serving process is killed; each takes more than a second."""


async def restarted(folder: Path, text: str) -> tuple[list[UsageRow], float]:
    """The rows that the next start finds or makes, and how long it took."""
    began = time.monotonic()
    app = await create_app(read_text(ALONE + text, "test.toml", {}), database=folder / "relay.db")
    took = time.monotonic() - began
    relay: Relay = app[RELAY]
    try:
        assert relay.store.journal is not None
        assert relay.store.journal.in_use() == 0
        rows = await relay.store.usage.rows(limit=1000)
    finally:
        await relay.close()
    return rows, took


async def kill(relay: Served) -> None:
    relay.signal(signal.SIGKILL)
    await relay.process.wait()


def plain(upstream: FakeUpstream) -> str:
    return "\n".join(line.strip() for line in config(upstream).splitlines())


@pytest.mark.promise("C-06")
@pytest.mark.promise("F-03")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("streamed", [False, True])
async def test_calls_in_flight_at_a_kill_are_settled_as_estimated_once(
    tmp_path: Path, upstream: FakeUpstream, streamed: bool
) -> None:
    upstream.answer = lambda seen: (
        [*stream(chat_chunk({"content": "x"}), end=False), "stall"] if seen.json.get("stream") else ["stall"]
    )
    text = plain(upstream)
    async with served(tmp_path, text) as relay, relay.wire() as one, relay.wire() as other:
        for connection in (one, other):
            connection.send(relay.chat(stream=streamed, max_tokens=1000))
        await until(lambda: len(upstream.seen) == 2, TIMEOUT)
        await kill(relay)
    saved = tmp_path / "saved"
    left = tmp_path / "relay.db-calls-0"
    shutil.copyfile(left, saved)
    rows, _ = await restarted(tmp_path, text)
    assert [(row.outcome, row.usage_source, row.model, row.stream) for row in rows] == [
        ("crashed", "estimate", "m", streamed)
    ] * 2
    for row in rows:
        assert row.usage is not None
        assert row.usage.input
        assert row.usage.output == 1000
        assert row.cost == 1000 * 1000
    assert len({row.request_id for row in rows}) == 2
    assert left.name not in os.listdir(tmp_path)
    # A second crash, after the rows were stored and before the file was cleared.
    os.replace(saved, left)
    assert (await restarted(tmp_path, text))[0] == rows


@pytest.mark.promise("C-05")
@pytest.mark.timeout(60 + 10 * KILLS)
async def test_a_kill_at_any_moment_loses_no_call_and_counts_none_twice(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: chat_stream() if seen.json.get("stream") else chat_answer()
    text = plain(upstream)
    dice = random.Random(7)
    for round_number in range(KILLS):
        folder = tmp_path / str(round_number)
        await asyncio.to_thread(folder.mkdir)
        upstream.seen.clear()
        answered: set[str] = set()
        async with served(folder, text) as relay:

            async def client(relay: Served, answered: set[str], number: int) -> None:
                async with relay.wire() as connection:
                    while True:
                        connection.send(relay.chat(stream=bool(number % 2)))
                        said = await connection.answer()
                        assert said.status == 200
                        answered.add(said.headers["x-request-id"])

            clients = [asyncio.create_task(client(relay, answered, number)) for number in range(8)]
            await until(lambda: len(upstream.seen) > 20, TIMEOUT)
            await asyncio.sleep(dice.random() * 0.3)
            await kill(relay)
            await asyncio.gather(*clients, return_exceptions=True)
        database = folder / "relay.db"
        # Everything is counted in the database itself, which is sound.
        rows, took = await restarted(folder, text)
        connection = sqlite3.connect(database)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        ((count, distinct),) = connection.execute("SELECT count(*), count(DISTINCT request_id) FROM usage").fetchall()
        connection.close()
        async with await Store.open(database) as store:
            missing = [name for name in answered if await store.usage.row(name) is None]
        assert not missing
        assert count == distinct
        assert count >= len(upstream.seen), "what reached the upstream has a row"
        assert count <= len(upstream.seen) + 8, "and only what was asked"
        assert {row.outcome for row in rows} <= {"ok", "crashed"}
        assert took < 2


@pytest.mark.promise("C-05")
@pytest.mark.timeout(60)
async def test_money_that_was_set_aside_at_a_kill_is_charged(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: ["stall"]
    text = plain(upstream) + f"\n[keys.budget]\ntotal = {2.5 * UNIT / 10**9}\n"
    async with served(tmp_path, text) as relay, relay.wire() as one, relay.wire() as other:
        for connection in (one, other):
            connection.send(relay.chat(max_tokens=10_000))
        await until(lambda: len(upstream.seen) == 2, TIMEOUT)
        await kill(relay)
    rows, _ = await restarted(tmp_path, text)
    assert [row.cost for row in rows] == [UNIT, UNIT]
    async with await Store.open(tmp_path / "relay.db") as store:
        assert (await store.spending.of(rows[0].key_id or 0, rows[0].at)).total == 2 * UNIT


@pytest.mark.promise("C-05")
@pytest.mark.timeout(60)
async def test_rows_on_their_way_at_a_kill_are_what_they_were(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer = spends(70)
    text = plain(upstream)
    async with served(tmp_path, text) as relay, relay.wire() as connection:
        # While somebody else holds the database, no row can be stored.
        foreign = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")
        for body in ({}, {"model": "nobody"}, {"stream": True}):
            connection.send(relay.chat(**body))
            await connection.answer()
        # Whatever it had to do after the last answer it has done when it answers again.
        assert (await relay.ready())[0] == 200
        await kill(relay)
        foreign.close()
    rows, _ = await restarted(tmp_path, text)
    assert sorted((row.outcome, row.usage_source, row.status, row.cost) for row in rows) == [
        ("ok", "provider", 200, 70_000),
        ("ok", "provider", 200, 70_000),
        ("rejected", "none", 404, 0),
    ]


@pytest.mark.promise("C-05")
@pytest.mark.timeout(60)
async def test_without_the_journal_there_is_no_file(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: chat_answer()
    async with served(tmp_path, plain(upstream) + "\n[store]\njournal = false\n") as relay:
        assert (await relay.ask(relay.chat())).status == 200
        assert not [name for name in os.listdir(tmp_path) if "calls" in name]


@pytest.mark.promise("C-05")
@pytest.mark.timeout(60)
async def test_a_relay_that_ends_as_told_leaves_no_file(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: chat_answer()
    async with served(tmp_path, plain(upstream)) as relay:
        assert (await relay.ask(relay.chat())).status == 200
        assert len([name for name in os.listdir(tmp_path) if "calls" in name]) == 1
        relay.signal(signal.SIGTERM)
        assert (await relay.end())[0] == 0
    assert sorted(os.listdir(tmp_path)) == ["relay.db", "relay.toml"]
