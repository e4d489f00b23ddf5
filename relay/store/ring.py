"""The keys as the server sees them: looked up by digest in memory, and never older than a second.

A key is read from the database when it is first used, and kept. Triggers number every change to the table; the ring
asks twice a second for changes above the last number it saw, so what a command in another process revokes is refused
here at once, and neither start-up nor memory depends on how many keys there are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from relay.lasting import Lasting
from relay.secret import Secret
from relay.store.database import Reader
from relay.store.keys import COLUMNS, Key, digest, key_from_row, now_ms

__all__ = ["KeyRing"]

log = logging.getLogger(__name__)

POLL = 0.5
"""Seconds between looks at the version counter."""
ASK_ANYWAY = 10
"""Looks at an unmoved log file after which the database is asked all the same."""
CAPACITY = 10_000
"""Keys kept in memory, and as many digests known to be nobody's. About 1 KB each."""

LOOKUP = (
    f"SELECT {COLUMNS}, 0 FROM keys WHERE digest = ?1"  # noqa: S608 - constants
    f" UNION ALL SELECT {COLUMNS}, 1 FROM keys WHERE old_digest = ?1 LIMIT 1"
)
CHANGED = "SELECT id, revoked_at FROM keys WHERE version > ?"
AGAIN = f"SELECT {COLUMNS}, digest, old_digest FROM keys WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants


def _log_mark(database: Path) -> tuple[int, int] | None:
    """When the write-ahead log was last written, and its size; None if there is none."""
    try:
        status = os.stat(f"{database}-wal")
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


class KeyRing:
    """Keys by their secret. `path` is the database's file; `clock` gives Unix milliseconds."""

    def __init__(
        self,
        reader: Reader,
        *,
        path: Path | None = None,
        capacity: int = CAPACITY,
        poll: float = POLL,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._reader = reader
        self._path = path
        self._capacity = capacity
        self._poll = poll
        self._clock = clock
        self._lock = asyncio.Lock()
        self.work = Lasting("store-keys", self._watch, longest=5.0)
        self._version = -1
        self._complained = -60.0
        # Digest to (key, old): `old` marks a secret that was rotated away and lives until the key's `old_until`.
        self._hits: OrderedDict[bytes, tuple[Key, bool]] = OrderedDict()
        self._digests: dict[int, set[bytes]] = {}
        self._misses: OrderedDict[bytes, None] = OrderedDict()
        self.revoked: list[Callable[[int], None]] = []
        """Who wants to know that a key has ended, by its number."""

    def __len__(self) -> int:
        return len(self._hits)

    def get(self, token: str) -> Key | None:
        """The live key of a secret, from memory. None: ask `lookup`, which may have to read."""
        return self.known(digest(token))

    def known(self, mark: bytes) -> Key | None:
        """The same, by the secret's digest."""
        found = self._hits.get(mark)
        if found is None:
            return None
        self._hits.move_to_end(mark)
        return self._judge(found)

    async def lookup(self, token: str) -> Key | None:
        """The live key of a secret; None if it is unknown, expired or revoked. Raises sqlite3.Error."""
        mark = digest(token)
        found = self._hits.get(mark)
        if found is None and mark not in self._misses:
            # Storing under the lock: a change read by `refresh` cannot be overwritten by an older row read before it.
            async with self._lock:
                rows = await self._reader.fetch(LOOKUP, (mark,))
                if rows:
                    found = (replace(key_from_row(rows[0]), secret=Secret(token)), bool(rows[0][-1]))
                    self._keep(mark, found)
                else:
                    self._misses[mark] = None
                    if len(self._misses) > self._capacity:
                        self._misses.popitem(last=False)
        elif found is None:
            self._misses.move_to_end(mark)
        return None if found is None else self._judge(found)

    def latest(self, key: Key) -> Key | None:
        """What a key is by now; None if it has ended. One that memory has no room for is taken as it was."""
        for mark in self._digests.get(key.id, ()):
            key = self._hits[mark][0]
        return key if key.live(self._clock()) else None

    def _judge(self, found: tuple[Key, bool]) -> Key | None:
        key, old = found
        if not old and key.expires_at is None and key.revoked_at is None:
            # As nearly always: whatever the time is.
            return key
        now = self._clock()
        if not key.live(now) or (old and (key.old_until is None or now >= key.old_until)):
            return None
        return key

    def _keep(self, mark: bytes, found: tuple[Key, bool]) -> None:
        self._hits[mark] = found
        self._hits.move_to_end(mark)
        self._digests.setdefault(found[0].id, set()).add(mark)
        if len(self._hits) > self._capacity:
            oldest, (key, _) = self._hits.popitem(last=False)
            self._forget(key.id, oldest)

    def _forget(self, number: int, mark: bytes) -> None:
        marks = self._digests.get(number)
        if marks is not None:
            marks.discard(mark)
            if not marks:
                del self._digests[number]

    async def refresh(self) -> None:
        """Take in what changed since the last look. Raises sqlite3.Error."""
        async with self._lock:
            ((version,),) = await self._reader.fetch("SELECT version FROM keys_version")
            if version == self._version:
                return
            if self._version < 0:
                # Whatever was looked up before the first look may have changed since.
                self._hits.clear()
                self._digests.clear()
            elif self._hits:
                await self._take_in(self._version)
            # A secret that was nobody's may belong to a new key now.
            self._misses.clear()
            self._version = version

    async def _take_in(self, since: int) -> None:
        rows = await self._reader.fetch(CHANGED, (since,))
        for number, ended in rows:
            if ended is not None:
                for tell in self.revoked:
                    tell(number)
        changed = [number for number, _ in rows if number in self._digests]
        if not changed:
            return
        for row in await self._reader.fetch(AGAIN, (json.dumps(changed),)):
            key = key_from_row(row)
            new, old = row[-2], row[-1]
            for mark in tuple(self._digests.get(key.id, ())):
                if mark in (new, old):
                    self._hits[mark] = (replace(key, secret=self._hits[mark][0].secret), mark == old)
                else:
                    del self._hits[mark]
                    self._forget(key.id, mark)

    async def start(self) -> None:
        """Begin to watch for changes. Raises sqlite3.Error if the database cannot be read."""
        await self.refresh()
        if self.work.task is None:
            self.work.start()

    async def _watch(self) -> None:
        seen: tuple[int, int] | None = None
        quiet = 0
        while True:
            await asyncio.sleep(self._poll)
            # A commit is an entry in the log file. As long as that does not move, asking the database is not worth it;
            # now and then it is asked all the same, because file times have a grain.
            mark = None if self._path is None else _log_mark(self._path)
            quiet = quiet + 1 if mark == seen else 0
            if mark is not None and mark == seen and quiet % ASK_ANYWAY:
                continue
            seen = mark
            try:
                await self.refresh()
            except sqlite3.Error as error:
                # Serving goes on with what is known: a short lock must not refuse everyone.
                now = time.monotonic()
                if now - self._complained >= 60.0:
                    self._complained = now
                    log.error("changes to the keys cannot be read: %s", error)

    async def close(self) -> None:
        """Stop watching."""
        await self.work.stop()
