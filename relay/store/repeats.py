"""Answers that are kept for a day, by the name that their caller gave the request."""

from __future__ import annotations

import aiosqlite

from relay.store.database import Database, Reader

__all__ = ["KEPT", "LARGEST", "Repeats"]

KEPT = 86_400_000
"""Milliseconds that an answer is kept."""
LARGEST = 2 * 1024 * 1024
"""Bytes of an answer that is kept."""
BYTES = 128 * 1024 * 1024
"""Bytes of all of them: the oldest go first."""
ROWS = 20_000
OFTEN = 32
"""Answers stored between two looks at how many there are."""

FIND = "SELECT digest, answer FROM repeats WHERE key_id = ? AND name = ? AND at > ?"
STORE = (
    "INSERT INTO repeats (key_id, name, digest, at, answer) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (key_id, name) DO UPDATE SET digest = excluded.digest, at = excluded.at, answer = excluded.answer"
)
EXPIRE = "DELETE FROM repeats WHERE at <= ?"
SHRINK = """
    DELETE FROM repeats WHERE id IN (
        SELECT id FROM (
            SELECT id, sum(length(answer)) OVER newest AS bytes, count(*) OVER newest AS rows
            FROM repeats WINDOW newest AS (ORDER BY id DESC)
        ) WHERE bytes > ? OR rows > ?
    )
"""


class Repeats:
    """The table. Times are Unix milliseconds. Everything raises sqlite3.Error."""

    def __init__(self, database: Database, reader: Reader) -> None:
        self._database = database
        self._reader = reader
        self._stored = 0

    async def find(self, key: int, name: str, now: int) -> tuple[bytes, bytes] | None:
        """The request's digest and the answer, if there is one that is not too old."""
        rows = await self._reader.fetch(FIND, (key, name, now - KEPT))
        return (rows[0][0], rows[0][1]) if rows else None

    async def store(self, key: int, name: str, digest: bytes, answer: bytes, now: int) -> None:
        """Keep an answer, and forget old ones."""
        shrink = self._stored % OFTEN == 0
        self._stored += 1

        async def work(connection: aiosqlite.Connection) -> None:
            steps: list[tuple[str, tuple[object, ...]]] = [
                (EXPIRE, (now - KEPT,)),
                (STORE, (key, name, digest, now, answer)),
            ]
            if shrink:
                steps.append((SHRINK, (BYTES, ROWS)))
            for sql, values in steps:
                async with connection.execute(sql, values):
                    pass

        await self._database.write(work)
