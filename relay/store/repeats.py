"""Answers that are kept for a day, by the name that their caller gave the request: sealed by their owner's key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiosqlite

from relay.store.database import Database, Reader, StoreError
from relay.store.keys import Key
from relay.store.seals import Seals

if TYPE_CHECKING:
    from relay.seal import Seal

__all__ = ["KEPT", "LARGEST", "Repeats", "Unopened"]

KEPT = 86_400_000
"""Milliseconds that an answer is kept."""
LARGEST = 2 * 1024 * 1024
"""Bytes of an answer that is kept."""
BYTES = 128 * 1024 * 1024
"""Bytes of all of them: the oldest go first."""
ROWS = 20_000
OFTEN = 32
"""Answers stored between two looks at how many there are."""

DIGEST = 32
"""Bytes of a request's digest, which stands in front of the answer that is sealed."""
UNSEALED = b"{"
"""Begins an answer that was stored before they were sealed."""

FIND = "SELECT digest, answer, at FROM repeats WHERE key_id = ? AND name = ? AND at > ?"
# The digest is sealed with the answer. A key may have been revoked since: then nothing is kept for it any more.
STORE = (
    "INSERT INTO repeats (key_id, name, digest, at, answer)"
    " SELECT ?1, ?2, x'', ?3, ?4 WHERE EXISTS (SELECT 1 FROM keys WHERE id = ?1 AND revoked_at IS NULL)"
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


class Unopened(Exception):
    """There is an answer, and the secret that came with the call does not open it: the key has another one now."""


class Repeats:
    """The table. Times are Unix milliseconds. Raises sqlite3.Error, or StoreError if nothing can be sealed."""

    def __init__(self, database: Database, reader: Reader, seals: Seals) -> None:
        self._database = database
        self._reader = reader
        self._seals = seals
        self._stored = 0

    async def find(self, key: Key, name: str, now: int) -> tuple[bytes, bytes] | None:
        """The request's digest and the answer, if there is one that is not too old. Raises Unopened."""
        rows = await self._reader.fetch(FIND, (key.id, name, now - KEPT))
        if not rows:
            return None
        digest, answer, at = rows[0]
        if answer.startswith(UNSEALED):
            return digest, answer
        document = (await self._seal(key)).open(answer, at, *_about(key, name))
        if document is None:
            raise Unopened
        return document[:DIGEST], document[DIGEST:]

    async def store(self, key: Key, name: str, digest: bytes, answer: bytes, now: int) -> None:
        """Keep an answer, and forget old ones."""
        shrink = self._stored % OFTEN == 0
        self._stored += 1
        sealed = (await self._seal(key)).close(digest + answer, now, *_about(key, name))

        async def work(connection: aiosqlite.Connection) -> None:
            steps: list[tuple[str, tuple[object, ...]]] = [
                (EXPIRE, (now - KEPT,)),
                (STORE, (key.id, name, now, sealed)),
            ]
            if shrink:
                steps.append((SHRINK, (BYTES, ROWS)))
            for sql, values in steps:
                async with connection.execute(sql, values):
                    pass

        await self._database.write(work)

    async def _seal(self, key: Key) -> Seal:
        try:
            seal = await self._seals.of(key)
        except ImportError as error:
            raise StoreError(f"answers cannot be sealed: {error}") from error
        if seal is None:
            raise StoreError("answers cannot be sealed without the key's secret")
        return seal


def _about(key: Key, name: str) -> tuple[str, ...]:
    """What a sealed answer belongs to: it opens for nothing else."""
    return (str(key.id), "repeat", name)
