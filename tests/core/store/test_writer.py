from __future__ import annotations

import asyncio
import logging
import sqlite3
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.store import Store, UsageRow
from relay.store.writer import Writer

ROOT = Path(__file__).parents[3]


class Sink:
    """Takes rows, unless told to fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.error: Exception | None = None
        self.bad: set[int] = set()

    async def __call__(self, rows: Sequence[int]) -> None:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if self.bad & set(rows):
            raise sqlite3.IntegrityError("a bad row")
        self.batches.append(list(rows))

    @property
    def rows(self) -> list[int]:
        return [row for batch in self.batches for row in batch]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event, and needs none outside of tests
            await asyncio.sleep(0.005)


LOCKED = sqlite3.OperationalError("database is locked")


async def test_rows_that_come_together_are_written_together_and_in_order() -> None:
    sink = Sink()
    writer = Writer(sink)
    for number in range(50):
        writer.put(number)
    assert writer.pending == 50
    assert await writer.flush(5)
    assert sink.batches == [list(range(50))]
    assert (writer.pending, writer.written, writer.dropped) == (0, 50, 0)
    await writer.close()


async def test_a_row_alone_is_written_within_the_interval() -> None:
    sink = Sink()
    writer = Writer(sink)
    started = time.monotonic()
    writer.put(1)
    await until(lambda: bool(sink.batches))
    assert 0.05 < time.monotonic() - started < 1
    await writer.close()


async def test_a_full_batch_does_not_wait_for_the_interval() -> None:
    sink = Sink()
    writer = Writer(sink, interval=60)
    writer.put(0)
    await asyncio.sleep(0.01)
    for number in range(1, 500):
        writer.put(number)
    await until(lambda: writer.written == 500)
    await writer.close()


@pytest.mark.promise("S-04")
async def test_while_the_database_is_locked_rows_wait_and_none_is_lost() -> None:
    sink = Sink()
    sink.error = LOCKED
    writer = Writer(sink, interval=0.01)
    for number in range(2000):
        writer.put(number)
    assert not await writer.flush(0.2)
    assert writer.pending == 2000
    sink.error = None
    assert await writer.flush(5)
    assert sink.rows == list(range(2000))
    await writer.close()


@pytest.mark.promise("S-04")
async def test_a_full_queue_drops_the_oldest_counts_them_and_complains_once(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    sink.error = LOCKED
    writer = Writer(sink, capacity=100, interval=0.01)
    with caplog.at_level(logging.ERROR):
        for number in range(400):
            writer.put(number)
    assert writer.pending == 100
    assert writer.dropped == 300
    lost = [record.getMessage() for record in caplog.records if "are lost" in record.getMessage()]
    assert len(lost) == 1, "one line a minute, not one a row"
    sink.error = None
    assert await writer.flush(5)
    assert sink.rows == list(range(300, 400))
    await writer.close()


async def test_a_row_that_can_never_be_stored_does_not_stop_the_others() -> None:
    sink = Sink()
    sink.bad = {3, 7}
    writer = Writer(sink)
    for number in range(10):
        writer.put(number)
    assert await writer.flush(5)
    assert sink.rows == [0, 1, 2, 4, 5, 6, 8, 9]
    assert (writer.written, writer.dropped) == (8, 2)
    await writer.close()


async def test_closing_writes_what_waits() -> None:
    sink = Sink()
    writer = Writer(sink, interval=60)
    writer.put(1)
    await asyncio.sleep(0.01)
    writer.put(2)
    await writer.close()
    assert sink.rows == [1, 2]
    writer.put(3)
    assert writer.dropped == 1, "a row that comes too late is counted"


async def test_closing_gives_up_in_time_and_counts_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    sink = Sink()
    sink.error = LOCKED
    writer = Writer(sink)
    for number in range(5):
        writer.put(number)
    started = time.monotonic()
    await writer.close(0.2)
    assert time.monotonic() - started < 2
    assert writer.dropped == 5
    assert "5 usage rows are lost" in caplog.text


async def test_closing_a_writer_that_never_wrote_is_immediate() -> None:
    writer = Writer(Sink())
    await writer.close()
    assert writer.written == 0


@pytest.mark.promise("S-01")
async def test_a_foreign_writer_holding_the_lock_loses_nothing(
    store: Store, path: Path, make: Callable[..., UsageRow]
) -> None:
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    slowest = 0.0
    for number in range(300):
        started = time.perf_counter()
        store.usage.put(make(number))
        slowest = max(slowest, time.perf_counter() - started)
        if number % 10 == 0:
            await asyncio.sleep(0.034)
    assert store.usage.writer.pending == 300
    foreign.execute("COMMIT")
    foreign.close()
    assert await store.usage.flush(10)
    (row,) = await store.usage.report("operation")
    assert row.requests == 300
    assert slowest < 0.05, "putting never waits for the database"
    assert store.usage.writer.dropped == 0


@pytest.mark.promise("S-01")
async def test_a_lock_longer_than_the_busy_timeout_loses_nothing(
    store: Store, path: Path, make: Callable[..., UsageRow]
) -> None:
    await store.database.connection.execute_fetchall("PRAGMA busy_timeout = 50")
    foreign = sqlite3.connect(path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    for number in range(100):
        store.usage.put(make(number))
    assert not await store.usage.flush(1.0)
    foreign.execute("COMMIT")
    foreign.close()
    assert await store.usage.flush(10)
    (row,) = await store.usage.report("operation")
    assert row.requests == 100


@pytest.mark.promise("S-03")
async def test_a_full_disk_keeps_rows_until_there_is_room_again(store: Store, make: Callable[..., UsageRow]) -> None:
    connection = store.database.connection
    ((pages,),) = await connection.execute_fetchall("PRAGMA page_count")
    await connection.execute_fetchall(f"PRAGMA max_page_count = {pages + 2}")
    for number in range(3000):
        store.usage.put(make(number, model=f"model {number % 7}"))
    assert not await store.usage.flush(1.0)
    # It tries again every now and then, and may be at it.
    await until(lambda: not connection.in_transaction)
    stored = await store.database.reader.fetch("SELECT count(*) FROM usage")
    assert stored[0][0] == store.usage.writer.written, "no half batches"
    await connection.execute_fetchall("PRAGMA max_page_count = 1073741823")
    assert await store.usage.flush(10)
    rows = await store.usage.report("model")
    assert sum(row.requests for row in rows) == 3000
    assert {row.group["model"] for row in rows} == {f"model {number}" for number in range(7)}
    assert store.usage.writer.dropped == 0


async def test_two_processes_write_the_same_file_at_once(
    store: Store, path: Path, make: Callable[..., UsageRow], sql: Callable[..., list[tuple[Any, ...]]]
) -> None:
    code = """
        import asyncio, sys
        from relay.store import Store, UsageRow
        async def main():
            async with await Store.open(sys.argv[1]) as store:
                print("ready", flush=True)
                for number in range(2000):
                    store.usage.put(UsageRow(request_id=f"b-{number}", at=number, key_id=None, operation="generate",
                                             model=f"shared {number % 50}", upstream="theirs"))
                    if number % 40 == 0:
                        await asyncio.sleep(0.005)
        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(code), str(path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    for number in range(2000):
        store.usage.put(make(number, model=f"shared {number % 50}", upstream="ours"))
        if number % 40 == 0:
            await asyncio.sleep(0.005)
    assert await store.usage.flush(20)
    assert await asyncio.wait_for(process.wait(), 20) == 0
    rows = await store.usage.report(["model", "upstream"])
    assert len(rows) == 100
    assert {row.requests for row in rows} == {40}
    assert sql("SELECT count(*) FROM names WHERE name LIKE 'shared %'") == [(50,)], "each word stored once"
    assert sql("PRAGMA integrity_check") == [("ok",)]


async def test_a_cancelled_caller_of_flush_leaves_the_writer_running(
    store: Store, make: Callable[..., UsageRow]
) -> None:
    store.usage.put(make(1))
    task = asyncio.create_task(store.usage.flush())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    store.usage.put(make(2))
    assert await store.usage.flush(5)
    assert len(await store.usage.rows()) == 2


@pytest.mark.promise("C-05")
async def test_a_killed_process_loses_no_row_that_was_written(
    path: Path, sql: Callable[..., list[tuple[Any, ...]]]
) -> None:
    code = """
        import asyncio, sys
        from relay.store import Store, UsageRow
        async def main():
            store = await Store.open(sys.argv[1])
            number = 0
            while True:
                for _ in range(20):
                    store.usage.put(UsageRow(request_id=f"r-{number}", at=number, key_id=None, operation="generate",
                                             model="m"))
                    number += 1
                await store.usage.flush()
                print(number, flush=True)
        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(code), str(path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    acknowledged = 0
    for _ in range(10):
        acknowledged = int(await process.stdout.readline())
    process.kill()
    await process.wait()
    async with await Store.open(path) as store:
        (row,) = await store.usage.report("model")
        assert row.requests >= acknowledged == 200
    assert sql("PRAGMA integrity_check") == [("ok",)]
