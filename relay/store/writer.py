"""The queue between the request path and the disk.

`put` costs an append and never waits. One task writes what has gathered, many rows in one transaction. A database that
is locked, full or on a slow disk delays rows and loses none until the queue is full; then the oldest go, counted.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from relay.lasting import Lasting

__all__ = ["Writer"]

log = logging.getLogger(__name__)

Row = TypeVar("Row")

INTERVAL = 0.25
"""Seconds that a row waits for company."""
BATCH = 500
"""Rows that are not kept waiting any longer."""
LARGEST = 1000
"""Rows in one transaction while catching up: more would hold the event loop too long."""
CAPACITY = 50_000
"""Rows kept, besides the batch under way, while the database cannot be written: about 40 MB."""
PAUSES = (0.1, 0.25, 0.5, 1.0)
"""Seconds between attempts to write; the last one repeats."""

TRIES = 3
"""Times that a row is tried by itself which fails in a way that nobody has foreseen."""

BAD_ROW = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    TypeError,
    ValueError,
    OverflowError,
    AttributeError,
)
"""Errors that the rows themselves cause: trying again cannot help."""


class Writer(Generic[Row]):
    """Collects rows and hands them to `sink` in batches, each of which is one transaction.

    `sink` raises sqlite3.OperationalError for "not now" and one of `BAD_ROW` for "never". It must be all or nothing.
    """

    def __init__(
        self,
        sink: Callable[[Sequence[Row]], Awaitable[None]],
        *,
        capacity: int = CAPACITY,
        interval: float = INTERVAL,
    ) -> None:
        self._sink = sink
        self._capacity = capacity
        self._interval = interval
        self._rows: deque[Row] = deque()
        self._batch: list[Row] = []
        self._wake = asyncio.Event()
        self._full = asyncio.Event()
        self._progress = asyncio.Condition()
        self._tries = 0
        # It begins again soon: rows wait for it.
        self.work = Lasting("store-writer", self._run, first=PAUSES[0], longest=PAUSES[-1])
        self._put = 0
        self._settled = 0
        self._flushing = 0
        self._closing = False
        self._closed = False
        self._reported: dict[str, float] = {}
        self.written = 0
        """Rows stored since the start."""
        self.dropped = 0
        """Rows lost since the start: the queue was full, or the row could not be stored at all."""

    @property
    def pending(self) -> int:
        """Rows that wait."""
        return len(self._rows) + len(self._batch)

    def put(self, row: Row) -> None:
        """Queue one row. Never waits; starts the writing task on first use, so it needs a running event loop."""
        if self._closed:
            self.dropped += 1
            self._report("closed", "a usage row came after the store was closed and is lost")
            return
        if len(self._rows) >= self._capacity:
            self._rows.popleft()
            self.dropped += 1
            self._settled += 1
            self._report(
                "full", "the database cannot be written: %d usage rows are lost so far, oldest first", self.dropped
            )
        self._rows.append(row)
        self._put += 1
        if self.work.task is None:
            self.work.start()
        self._wake.set()
        if len(self._rows) >= BATCH:
            self._full.set()

    async def flush(self, within: float | None = None) -> bool:
        """Wait until every row put before is stored or lost. False if `within` (seconds) ran out first."""
        goal = self._put
        self._flushing += 1
        self._full.set()
        try:
            async with asyncio.timeout(within):
                async with self._progress:
                    await self._progress.wait_for(lambda: self._settled >= goal)
        except TimeoutError:
            return False
        finally:
            self._flushing -= 1
        return True

    async def close(self, within: float = 10.0) -> None:
        """Store what waits, for at most `within` seconds, and stop. What is left then is counted and logged."""
        if self._closed:
            return
        self._closed = True
        task = self.work.task
        if task is None:
            return
        self._closing = True
        self._wake.set()
        self._full.set()
        _, late = await asyncio.wait([task], timeout=within)
        if late:
            task.cancel()
            await asyncio.wait([task])
        lost = self.pending
        if lost:
            self.dropped += lost
            self._rows.clear()
            self._batch = []
            log.error("the database could not be written before the end: %d usage rows are lost", lost)

    async def _run(self) -> None:
        # What it broke off at, the last time.
        await self._one_by_one()
        while True:
            if not self._rows:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
            if len(self._rows) < BATCH and not (self._closing or self._flushing):
                self._full.clear()
                await self._pause(self._interval)
            self._batch = [self._rows.popleft() for _ in range(min(len(self._rows), LARGEST))]
            try:
                await self._store(self._batch)
            except BAD_ROW as error:
                log.debug("a batch of usage rows was refused: %s", error)
                await self._one_by_one()
            self._settled += len(self._batch)
            self._batch = []
            await self._tell()
            # Others come first, however much there is to catch up on.
            await asyncio.sleep(0)

    async def _store(self, rows: Sequence[Row]) -> None:
        """Store these rows, however long it takes. Raises one of `BAD_ROW` if they never can be."""
        failures = 0
        while True:
            try:
                await self._sink(rows)
            except BAD_ROW:
                raise
            except sqlite3.Error as error:
                self._report("write", "usage rows cannot be written and wait (%d so far): %s", self.pending, error)
                await asyncio.sleep(PAUSES[min(failures, len(PAUSES) - 1)])
                failures += 1
            else:
                self.written += len(rows)
                return

    async def _one_by_one(self) -> None:
        """Store those rows of the batch that can be stored."""
        while self._batch:
            try:
                if self._tries >= TRIES:
                    raise ValueError("it fails each time, as the log tells")
                self._tries += 1
                await self._store(self._batch[:1])
            except BAD_ROW as error:
                self.dropped += 1
                self._report("bad", "a usage row cannot be stored and is lost: %s", error)
            self._tries = 0
            del self._batch[0]
            self._settled += 1
            await self._tell()

    async def _tell(self) -> None:
        """Let those go on who wait for rows to be stored."""
        async with self._progress:
            self._progress.notify_all()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._full.wait()
        except TimeoutError:
            pass

    def _report(self, kind: str, message: str, *arguments: object) -> None:
        """Log an error, each kind at most once a minute."""
        now = time.monotonic()
        if now - self._reported.get(kind, -60.0) >= 60.0:
            self._reported[kind] = now
            log.error(message, *arguments)
