"""What is kept for the next turn, in the file: sealed by its owner's key, bounded in bytes and age.

Nobody waits for it. What is to be kept stands in a queue that a task writes from, all of it at once; what is asked for
comes within a second or counts as not there. A database that is locked, full or slow costs entries, and never a call.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import aiosqlite

from relay.store.database import Database, Reader, StoreError
from relay.store.keys import Key
from relay.store.seals import Seals

if TYPE_CHECKING:
    from relay.seal import Seal

__all__ = ["Found", "Kept", "Room"]

log = logging.getLogger(__name__)

OVERHEAD = 120
"""Bytes that a row takes beside what is sealed in it."""
QUEUE = 16 * 1024 * 1024
"""Bytes that wait to be written at most; the oldest go first."""
BATCH = 2 * 1024 * 1024
"""Bytes in one transaction, unless one entry has more: usage rows wait for it."""
GATHER = 0.005
"""Seconds that an entry waits for company."""
PAUSES = (0.25, 1.0, 2.0)
"""Seconds between attempts to write a batch; after the last one it is given up."""
READ_SECONDS = 1.0
"""How long a call waits for what it asks for."""
REST_SECONDS = 10.0
"""How long nothing is asked for after that was not enough."""
ASKED = 500
"""Places in one query."""
CHUNK = 2000
"""Rows deleted in one transaction."""
SLACK = 16
"""Each time that one part in so many of the room was written, this process looks whether there is too much."""
NEVER = 1000

FIND = "SELECT place, at, sealed FROM kept WHERE place IN (%s) AND at > ?"
# A key may have been revoked since: then nothing is kept for it any more.
STORE = (
    "INSERT INTO kept (place, kind, key_id, at, size, sealed)"
    " SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE EXISTS (SELECT 1 FROM keys WHERE id = ?3 AND revoked_at IS NULL)"
    " ON CONFLICT (place) DO UPDATE SET at = excluded.at, size = excluded.size, sealed = excluded.sealed"
)
DROP = "DELETE FROM kept WHERE place = ?"
EXPIRE = f"DELETE FROM kept WHERE id IN (SELECT id FROM kept WHERE kind = ? AND at <= ? LIMIT {CHUNK})"  # noqa: S608 - constants
HELD = "SELECT key_id, sum(size) FROM kept WHERE kind = ? GROUP BY key_id"
SHRINK = f"""
    DELETE FROM kept WHERE id IN (
        SELECT id FROM (
            SELECT id, sum(size) OVER (ORDER BY at DESC, id DESC) AS total FROM kept WHERE key_id = ? AND kind = ?
        ) WHERE total > ? LIMIT {CHUNK}
    )
"""  # noqa: S608 - constants


class Room(NamedTuple):
    """How much of one kind is kept, and for how long."""

    number: int
    """Stands for the kind in the file: never changes."""
    size: int
    """Bytes; 0: none is kept, and what is left of it goes."""
    age: int
    """Milliseconds."""


class Found(NamedTuple):
    """An entry as it was put in."""

    document: bytes
    at: int
    """Unix milliseconds."""


class _Entry(NamedTuple):
    key: Key
    kind: str
    space: str
    name: str
    found: Found

    @property
    def size(self) -> int:
        return len(self.found.document) + OVERHEAD

    @property
    def place(self) -> _Place:
        return (self.key.id, self.kind, self.space, self.name)


_Place = tuple[int, str, str, str]


class Kept:
    """The table, for the kinds that `rooms` names. Times are Unix milliseconds."""

    def __init__(self, database: Database, reader: Reader, rooms: Mapping[str, Room], seals: Seals) -> None:
        self._database = database
        self._reader = reader
        self._rooms = rooms
        self._queue: OrderedDict[_Place, _Entry] = OrderedDict()
        self._under_way: dict[_Place, _Entry] = {}
        self._queued = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._reads: set[asyncio.Task[list[tuple[bytes, int, bytes]]]] = set()
        self._never: OrderedDict[_Place, None] = OrderedDict()
        """What could not be stored: that it is not here tells nothing of it."""
        self._seals = seals
        self._unwritten = {kind: room.size for kind, room in rooms.items()}
        """Bytes written since this process last looked how many there are, or more: at first that is not known."""
        self._latest = 0
        self._resting = 0.0
        self._reported: dict[str, float] = {}
        self._closed = False
        self.written = 0
        """Entries stored since the start."""
        self.lost = 0
        """Entries that could not be."""

    def takes(self, kind: str, key: Key) -> bool:
        """Whether entries of this kind are kept for this key."""
        return self._rooms[kind].size > 0 and key.secret is not None and not self._closed

    def put(self, key: Key, kind: str, space: str, name: str, document: bytes, at: int) -> None:
        """Keep a document in its place. Never waits; what is larger than the queue is not kept."""
        if not self.takes(kind, key):
            return
        entry = _Entry(key, kind, space, name, Found(document, at))
        place = entry.place
        self._unqueue(place)
        if entry.size > min(QUEUE, self._rooms[kind].size):
            self._will_not_store(place)
            return
        self._never.pop(place, None)
        self._queue[place] = entry
        self._queued += entry.size
        while self._queued > QUEUE:
            oldest = next(iter(self._queue))
            self._unqueue(oldest)
            self._gave_up([oldest], "they came faster than they can be written")
        self._idle.clear()
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="relay-store-kept")

    def _unqueue(self, place: _Place) -> bool:
        entry = self._queue.pop(place, None)
        if entry is None:
            return False
        self._queued -= entry.size
        return True

    async def find(
        self, key: Key, kind: str, names: Sequence[tuple[str, str]], now: int
    ) -> dict[tuple[str, str], Found | None]:
        """What is kept under these names (space and name), and None for what is not. What is left out nobody can tell
        now."""
        found: dict[tuple[str, str], Found | None] = {}
        asked: list[tuple[str, str]] = []
        if not self.takes(kind, key):
            return found
        for space, name in names:
            place = (key.id, kind, space, name)
            waiting = self._queue.get(place) or self._under_way.get(place)
            if waiting is not None:
                found[space, name] = waiting.found
            elif place not in self._never:
                asked.append((space, name))
        if not asked or time.monotonic() < self._resting:
            return found
        seal = await self._seal(key)
        if seal is None:
            return found
        places = {seal.place(kind, *pair): pair for pair in asked}
        rows = await self._read(list(places), now - self._rooms[kind].age)
        if rows is None:
            return found
        found.update(dict.fromkeys(asked))
        for place_, at, sealed in rows:
            pair = places[place_]
            document = seal.open(sealed, at, *_about(key, kind, *pair))
            if document is not None:
                found[pair] = Found(document, at)
        return found

    async def _read(self, places: Sequence[bytes], since: int) -> list[tuple[bytes, int, bytes]] | None:
        rows: list[tuple[bytes, int, bytes]] = []
        for begin in range(0, len(places), ASKED):
            some = places[begin : begin + ASKED]
            # In a task of its own, for whom nobody waits if the disk does not answer.
            task = asyncio.create_task(self._query(FIND % ",".join("?" * len(some)), (*some, since)))
            self._reads.add(task)
            task.add_done_callback(self._has_read)
            await asyncio.wait({task}, timeout=READ_SECONDS)
            if not task.done():
                task.cancel()
                reason: object = f"no answer within {READ_SECONDS:g} s"
            elif task.cancelled():
                reason = "it is being closed"
            elif (error := task.exception()) is not None:
                reason = error
            else:
                rows += task.result()
                continue
            self._resting = time.monotonic() + REST_SECONDS
            self._report("read", "what is kept for the next turn cannot be read: %s", reason)
            return None
        return rows

    async def _query(self, sql: str, values: tuple[object, ...]) -> list[tuple[bytes, int, bytes]]:
        return [(place, at, sealed) for place, at, sealed in await self._reader.fetch(sql, values)]

    def _has_read(self, task: asyncio.Task[list[tuple[bytes, int, bytes]]]) -> None:
        self._reads.discard(task)
        if not task.cancelled():
            task.exception()

    async def drop(self, key: Key, kind: str, space: str, name: str) -> None:
        """Forget an entry. Raises sqlite3.Error or StoreError if it may still be there."""
        if not self.takes(kind, key):
            return
        gone = (key.id, kind, space, name)
        self._unqueue(gone)
        self._under_way.pop(gone, None)
        self._never.pop(gone, None)
        seal = await self._seal(key)
        if seal is None:
            return
        place = seal.place(kind, space, name)

        async def delete(connection: aiosqlite.Connection) -> None:
            # What is being written comes before: transactions stand in line.
            async with connection.execute(DROP, (place,)):
                pass

        await self._database.write(delete)

    async def flush(self, within: float = 10.0) -> bool:
        """Wait until the queue is empty. False if `within` (seconds) ran out first."""
        try:
            async with asyncio.timeout(within):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self, within: float = 2.0) -> None:
        """Write what waits, for at most `within` seconds, and stop."""
        if self._closed:
            return
        await self.flush(within)
        self._closed = True
        tasks = [task for task in (self._task, *self._reads) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=within)
        self._queue.clear()

    async def prune(self, now: int) -> None:
        """Delete what is too old, and what is too much. Raises sqlite3.Error."""
        for kind, room in self._rooms.items():
            await self._prune(kind, room, now)

    # Writing.

    async def _run(self) -> None:
        while True:
            if not self._queue:
                self._idle.set()
                self._wake.clear()
                await self._wake.wait()
            await asyncio.sleep(GATHER)
            size = 0
            while self._queue and size < BATCH:
                place, entry = self._queue.popitem(last=False)
                self._queued -= entry.size
                self._under_way[place] = entry
                size += entry.size
            if self._under_way:
                await self._write()
                self._under_way.clear()
                await self._prune_if_due()

    async def _write(self) -> None:
        """Store what is under way, or give it up. What is dropped meanwhile is not tried again."""
        rows: dict[_Place, tuple[object, ...]] = {}
        for place, entry in list(self._under_way.items()):
            seal = await self._seal(entry.key)
            if seal is None:
                self._gave_up([place], "they cannot be sealed")
                continue
            document, at = entry.found
            sealed = seal.close(document, at, *_about(entry.key, entry.kind, entry.space, entry.name))
            where, number = seal.place(entry.kind, entry.space, entry.name), self._rooms[entry.kind].number
            rows[place] = (where, number, entry.key.id, at, len(sealed) + OVERHEAD, sealed)
            self._unwritten[entry.kind] += len(sealed) + OVERHEAD
            self._latest = max(self._latest, at)
        for pause in (*PAUSES, None):
            left = [place for place in rows if place in self._under_way]
            try:
                await self._database.write(_insertion([rows[place] for place in left]))
            except (sqlite3.Error, StoreError) as error:
                if pause is None:
                    self._gave_up(left, error)
                else:
                    await asyncio.sleep(pause)
            else:
                self.written += len(left)
                return

    async def _prune_if_due(self) -> None:
        try:
            for kind, room in self._rooms.items():
                if self._unwritten[kind] * SLACK > room.size > 0:
                    await self._prune(kind, room, self._latest)
        except (sqlite3.Error, StoreError) as error:
            self._report("prune", "what is kept for too long, or too much of it, cannot be deleted now: %s", error)

    async def _prune(self, kind: str, room: Room, now: int) -> None:
        while await self._deleted(EXPIRE, (room.number, now - room.age if room.size else now)) == CHUNK:
            pass
        self._unwritten[kind] = 0
        rows = await self._reader.fetch(HELD, (room.number,))
        held: dict[int, int] = dict(rows)
        if sum(held.values()) <= room.size:
            return
        # To somewhat less, so that not every look has to delete.
        most = share(list(held.values()), room.size - room.size // SLACK)
        for owner, size in held.items():
            while size > most and await self._deleted(SHRINK, (owner, room.number, most)) == CHUNK:
                pass

    async def _deleted(self, sql: str, values: tuple[object, ...]) -> int:
        async def work(connection: aiosqlite.Connection) -> int:
            async with connection.execute(sql, values) as cursor:
                return cursor.rowcount

        return await self._database.write(work)

    # Sealing.

    async def _seal(self, key: Key) -> Seal | None:
        """What seals for this key; None if nothing can be sealed here."""
        try:
            return await self._seals.of(key)
        except ImportError as error:
            self._report("seal", "nothing is kept in the database: %s", error)
            return None

    def _will_not_store(self, place: _Place) -> None:
        self._never[place] = None
        if len(self._never) > NEVER:
            self._never.popitem(last=False)

    def _gave_up(self, places: Sequence[_Place], reason: object) -> None:
        self.lost += len(places)
        for place in places:
            self._will_not_store(place)
        self._report(
            "write", "of what is kept for the next turn, %d entries were not stored so far: %s", self.lost, reason
        )

    def _report(self, about: str, message: str, *arguments: object) -> None:
        """Log an error, each kind at most once a minute."""
        now = time.monotonic()
        if now - self._reported.get(about, -60.0) >= 60.0:
            self._reported[about] = now
            log.error(message, *arguments)


def _insertion(rows: Sequence[tuple[object, ...]]) -> Callable[[aiosqlite.Connection], Awaitable[None]]:
    async def insert(connection: aiosqlite.Connection) -> None:
        async with connection.executemany(STORE, rows):
            pass

    return insert


def _about(key: Key, kind: str, space: str, name: str) -> tuple[str, ...]:
    """What a sealed document belongs to: it opens for nothing else."""
    return (str(key.id), kind, space, name)


def share(sizes: Sequence[int], room: int) -> int:
    """The most that each may have, so that all together have no more than `room`: who has less keeps all of it."""
    rest = room
    for place, size in enumerate(sorted(sizes)):
        most = rest // (len(sizes) - place)
        if size > most:
            return most
        rest -= size
    return room
