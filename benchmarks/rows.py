"""How many usage rows the store takes while the event loop has other things to do, and what each costs on disk.

    python benchmarks/rows.py             200,000 rows, as fast as they are taken
    python benchmarks/rows.py --rows N    that many

Rows are put in as calls put them, journal and all, as long as fewer wait than the writer's queue holds. Beside it a
task asks to be woken every millisecond: how late it is woken is what a call would have waited.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from pathlib import Path

from relay.envelope import new_request_id
from relay.ir import Usage
from relay.pricing import Price, Rates
from relay.store import Store, UsageRow

PRICE = Price(Rates(input=1_000_000_000, output=4_000_000_000), source="benchmark")
WAITING = 20_000
"""Rows that wait at most."""
AT_ONCE = 20
"""Rows between two turns of the loop, as when that many calls end in one."""
TICK = 0.001


def row(number: int) -> UsageRow:
    """A row as a call leaves it."""
    at = 1_790_000_000_000 + number // 20
    return UsageRow(
        request_id=new_request_id(at),
        at=at,
        key_id=number % 50 + 1,
        operation="generate",
        model=f"model {number % 7}",
        upstream="one",
        target_model="model-2026",
        family="family",
        dialect="dialect",
        stream=bool(number % 2),
        usage_source="provider",
        usage=Usage(input=1000 + number % 500, output=200, cache_read=number % 100, reasoning=0),
        price=PRICE,
        cost=1_800_000 + number,
        first_byte_ms=300,
        duration_ms=2500,
        attempts=1,
    )


async def late(delays: list[float]) -> None:
    """Note how late each turn comes."""
    while True:
        due = time.perf_counter() + TICK
        await asyncio.sleep(TICK)
        delays.append(max(0.0, time.perf_counter() - due))


async def measure(count: int, folder: Path) -> None:
    path = folder / "relay.db"
    async with await Store.open(path, journal=True) as store:
        journal, writer = store.journal, store.usage.writer
        delays: list[float] = []
        watch = asyncio.create_task(late(delays))
        began = time.perf_counter()
        for number in range(count):
            one = row(number)
            if journal is not None:
                place = journal.begin(one.request_id, one.operation, one.model, 1, one.at, 1, 1, 1, one.stream)
                journal.over(place, one.status, one.outcome, one.usage_source, one.stream, one.usage, one.cost)
                one = one._replace(place=place)
            store.usage.put(one)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
                if writer.pending > WAITING:
                    await store.usage.flush()
        await store.usage.flush()
        took = time.perf_counter() - began
        watch.cancel()
        lost = writer.dropped
    size = await asyncio.to_thread(os.path.getsize, path)
    delays.sort()
    print(f"{count / took:,.0f} rows/s over {took:.1f} s, {lost} lost")
    print(f"{size / count:.0f} bytes a row")
    print(
        f"the loop was late by {1000 * delays[len(delays) // 2]:.2f} ms in the middle, "
        f"{1000 * delays[len(delays) * 99 // 100]:.2f} ms at the 99th percentile, {1000 * delays[-1]:.2f} ms at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    count = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(measure(count, Path(folder)))


if __name__ == "__main__":
    main()
