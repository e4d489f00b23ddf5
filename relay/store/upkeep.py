"""Looking after the file: old rows become sums by the hour, what is kept too long goes, the log is kept short.

Rows are added up and deleted in one transaction, so that each is counted once, whenever a process ends. What is deleted
is overwritten, in the file and, by emptying it, in the log.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable

import aiosqlite

from relay.store.database import Database
from relay.store.kept import Kept

__all__ = ["Upkeep"]

log = logging.getLogger(__name__)

HOUR = 3_600_000
DAY = 24 * HOUR
CHUNK = 2000
"""Rows in one transaction: others wait no longer than for that."""
FIRST, EVERY = 30.0, 600.0
"""Seconds from the start until the first look at old rows, and between two."""
LOOK = 10.0
"""Seconds between two looks at the size of the log."""
LOG_BYTES = 256 * 1024 * 1024
"""Size of the log above which something holds it back, and somebody should know."""

GROUPS = "key_id, operation, model, upstream, target_model, family, dialect, outcome, usage_source, error_code"
OLD = "SELECT id FROM usage WHERE at < ?1 ORDER BY at, id LIMIT ?2"
ADD_UP = f"""
    INSERT INTO hours (at, {GROUPS}, requests, input, output, cache_read, reasoning, cost, unpriced)
    SELECT at - at % {HOUR}, {GROUPS}, count(*), sum(coalesce(input, 0)), sum(coalesce(output, 0)),
        sum(coalesce(cache_read, 0)), sum(coalesce(reasoning, 0)), sum(coalesce(cost, 0)),
        sum(cost IS NULL AND coalesce(input, 0) + coalesce(output, 0) > 0)
    FROM usage WHERE id IN ({OLD}) GROUP BY at - at % {HOUR}, {GROUPS}
"""  # noqa: S608 - constants
DELETE = f"DELETE FROM usage WHERE id IN ({OLD})"  # noqa: S608 - constants


class Upkeep:
    """What is done now and then. `keep` is for how many days rows are kept; 0: for ever."""

    def __init__(self, database: Database, keep: int, kept: Kept | None = None) -> None:
        self._database = database
        self._kept = kept
        self.keep = keep
        self._told = 0
        """Size of the log when somebody was told of it."""
        self.in_place = True
        """Whether the file that is open was where it belongs at the last look."""

    async def run(self, now: int) -> int:
        """One look, at `now` in Unix milliseconds. Gives how many rows became sums. Raises sqlite3.Error."""
        done = 0
        if self.keep:
            # Whole hours only: a sum stands for all of its hour.
            before = now - self.keep * DAY
            before -= before % HOUR
            while step := await self._database.write(lambda connection: _add_up(connection, before)):
                done += step
                # Rows that wait come first.
                await asyncio.sleep(0.01)
        if self._kept is not None:
            await self._kept.prune(now)
        if done:
            log.info("%d usage rows older than %d days became sums by the hour", done, self.keep)
        await self._shorten(always=bool(done))
        return done

    def look(self) -> None:
        """Whether somebody took the file away, which no writing would tell."""
        in_place, path = self._database.in_place(), self._database.path
        if in_place and not self.in_place:
            log.warning("%s is in its place again", path)
        elif self.in_place and not in_place:
            log.error(
                "%s was moved, removed or replaced while it is open: what is stored goes where it went. If it is still"
                " anywhere, put it back with its -wal file; else restart the relay, and what it stored is lost",
                path,
            )
        self.in_place = in_place

    async def _shorten(self, *, always: bool) -> None:
        size = self.log_bytes()
        if not always and size <= LOG_BYTES // 4:
            return
        await self._database.empty_log()
        size = self.log_bytes()
        if size <= LOG_BYTES:
            self._told = 0
        elif size > 2 * self._told:
            # Once, and again when it is twice as much.
            self._told = size
            log.error(
                "the database's log has %d MB: a program that reads %s without an end holds it back",
                size // 2**20,
                self._database.path,
            )

    def log_bytes(self) -> int:
        """Size of the write-ahead log."""
        try:
            return os.stat(f"{self._database.path}-wal").st_size
        except OSError:
            return 0

    async def keep_on(self, now: Callable[[], float]) -> None:
        """Look now and then, until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + FIRST
        while True:
            await asyncio.sleep(min(LOOK, max(0.0, due - loop.time())))
            self.look()
            try:
                if loop.time() >= due:
                    due = loop.time() + EVERY
                    await self.run(int(now() * 1000))
                else:
                    await self._shorten(always=False)
            except sqlite3.Error as error:
                log.error("old usage rows cannot be added up now: %s", error)


async def _add_up(connection: aiosqlite.Connection, before: int) -> int:
    async with connection.execute(ADD_UP, (before, CHUNK)):
        pass
    async with connection.execute(DELETE, (before, CHUNK)) as cursor:
        return cursor.rowcount
