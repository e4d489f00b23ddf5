"""Old rows become sums: reports and budgets stay as they were, and the rows are really gone."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.ir import Usage
from relay.store import GROUPS, Store, UsageRow
from relay.store import upkeep as module
from relay.store.upkeep import DAY, HOUR, Upkeep
from tests.core.store.conftest import make
from tests.promises.wire import until

__all__ = ["make"]

Make = Callable[..., UsageRow]
NOW = 1_900_000_000_000


async def filled(store: Store, make: Make, count: int = 3000) -> None:
    """Rows of twelve days, of every kind."""
    outcomes = ("ok", "client_abort", "timeout", "crashed")
    for number in range(count):
        kinds: dict[str, Any] = {
            "outcome": outcomes[number % 4],
            "model": None if number % 11 == 0 else f"model {number % 3}",
            "key_id": number % 2 + 1,
            "error_code": "e" if number % 5 == 0 else None,
            "cost": None if number % 7 == 0 else number,
            "usage": None if number % 13 == 0 else Usage(number, 2 * number, cache_read=number // 2),
        }
        store.usage.put(make(number, at=NOW - number * 12 * DAY // count, **kinds))
    await store.usage.flush()


@pytest.mark.promise("S-10")
async def test_reports_and_budgets_are_the_same_before_and_after(tmp_path: Path, make: Make) -> None:
    async with await Store.open(tmp_path / "relay.db") as store:
        for name in ("one", "two"):
            await store.keys.create(name)
        await filled(store, make)

        async def told() -> list[Any]:
            said: list[Any] = [await store.usage.report(by) for by in GROUPS]
            said.append(await store.usage.report(("day", "model", "key"), key_id=1))
            said.append(await store.usage.report("model", since=NOW - NOW % HOUR - 6 * DAY, until=NOW - NOW % HOUR))
            said += [await store.spending.of(key, moment) for key in (1, 2) for moment in (NOW, NOW - 9 * DAY)]
            return said

        before = await told()
        upkeep = Upkeep(store.database, 3)
        gone = await upkeep.run(NOW)
        ((left, first),) = await store.database.reader.fetch("SELECT count(*), min(at) FROM usage")
        assert gone + left == 3000
        assert NOW - 3 * DAY - HOUR <= first <= NOW - 3 * DAY + 12 * DAY // 3000
        assert await told() == before
        assert await upkeep.run(NOW) == 0
        # Nothing of it is younger than an hour that was not whole.
        assert await Upkeep(store.database, 1).run(NOW + 20 * DAY) == left
        assert await told() == before
        store.usage.put(make(9000, at=NOW))
        await store.usage.flush()
        assert sum(row.requests for row in await store.usage.report("outcome")) == 3001


@pytest.mark.promise("S-10")
async def test_what_is_deleted_is_in_no_file_any_more(tmp_path: Path, make: Make) -> None:
    canary = "req_CANARY_of_an_old_call"
    async with await Store.open(tmp_path / "relay.db") as store:
        for number in range(500):
            store.usage.put(make(number, at=NOW, request_id=f"{canary} {number}"))
        await store.usage.flush()

        def found() -> bool:
            return any(canary.encode() in file.read_bytes() for file in tmp_path.iterdir())

        assert await asyncio.to_thread(found)
        assert await Upkeep(store.database, 1).run(NOW + 3 * DAY) == 500
        assert not await asyncio.to_thread(found)


async def test_for_ever_is_for_ever(tmp_path: Path, make: Make) -> None:
    async with await Store.open(tmp_path / "relay.db") as store:
        store.usage.put(make(1, at=5))
        await store.usage.flush()
        assert await Upkeep(store.database, 0).run(NOW) == 0
        assert len(await store.usage.rows()) == 1


@pytest.mark.promise("S-05")
async def test_a_look_that_is_cancelled_anywhere_counts_every_row_once(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 50)
    async with await Store.open(tmp_path / "relay.db") as store:
        await filled(store, make, 1000)
        before = await store.usage.report("day")
        for turns in range(0, 60, 3):
            task = asyncio.create_task(Upkeep(store.database, 1).run(NOW + 30 * DAY))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await store.usage.report("day") == before
        await Upkeep(store.database, 1).run(NOW + 30 * DAY)
        assert await store.usage.rows() == []
        assert await store.usage.report("day") == before


@pytest.mark.promise("S-02")
async def test_the_log_shrinks_again_after_a_reader_held_it_back(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 200_000)
    async with await Store.open(tmp_path / "relay.db") as store:
        upkeep = Upkeep(store.database, 0)
        store.usage.put(make(0))
        await store.usage.flush()
        reader = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM usage").fetchall()
        for number in range(1, 8000):
            store.usage.put(make(number))
        await store.usage.flush()
        began = time.monotonic()
        await upkeep.run(NOW)
        assert time.monotonic() - began < 3, "rows do not wait for somebody else's reader"
        assert upkeep.log_bytes() > 200_000
        assert "holds it back" in caplog.text
        reader.close()
        await upkeep.run(NOW)
        assert upkeep.log_bytes() == 0
        store.usage.put(make(9000))
        assert await store.usage.flush(5)


@pytest.mark.promise("S-02")
async def test_the_log_stays_short_where_nobody_holds_it_back(tmp_path: Path, make: Make) -> None:
    async with await Store.open(tmp_path / "relay.db") as store:
        upkeep = Upkeep(store.database, 0)
        largest = 0
        # Reports are read all the while, as long as they take and no longer.
        for number in range(60):
            for place in range(100):
                store.usage.put(make(number * 100 + place))
            await asyncio.gather(store.usage.flush(), store.usage.report("model"), store.usage.rows(100))
            largest = max(largest, upkeep.log_bytes())
        size = (tmp_path / "relay.db").stat().st_size
        assert size > 500_000
        # Some thousand pages, after which the log begins anew, however many rows there are.
        assert largest < 6_000_000


@pytest.mark.promise("S-02")
async def test_a_log_that_is_held_back_grows_by_little_and_is_told_of_before_long(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOG_BYTES", 400_000)
    monkeypatch.setattr(module, "LOOK", 0.05)
    async with await Store.open(tmp_path / "relay.db") as store:
        upkeep = Upkeep(store.database, 0)
        watch = asyncio.create_task(upkeep.keep_on(time.time))
        try:
            reader = sqlite3.connect(tmp_path / "relay.db", isolation_level=None)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM keys").fetchall()

            async def put(count: int) -> None:
                """So many rows in batches of a hundred, as a thousand calls a second make them."""
                for start in range(0, count, 100):
                    for number in range(start, start + 100):
                        store.usage.put(make(number))
                    assert await store.usage.flush(5)

            await put(3000)
            assert upkeep.log_bytes() < 3000 * 4096
            await until(lambda: "holds it back" in caplog.text)
            told = caplog.text.count("holds it back")
            await put(500)
            await asyncio.sleep(0.5)
            assert caplog.text.count("holds it back") <= told + 1, "when it has doubled, and not with every look"
            reader.close()
            await until(lambda: upkeep.log_bytes() < 400_000)
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
