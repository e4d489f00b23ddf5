"""What the relay remembers: keys and usage, in one SQLite file that several processes may use at once.

store = await Store.open(path)
key, secret = await store.keys.create("laptop")
store.ring.get(secret) or await store.ring.lookup(secret)
store.usage.put(UsageRow(...))
await store.close()
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from relay.store.database import Database, StoreError
from relay.store.journal import Journal, Open
from relay.store.kept import Kept, Room
from relay.store.keys import Key, Keys, Limits
from relay.store.repeats import Repeats
from relay.store.ring import KeyRing
from relay.store.seals import Seals
from relay.store.spending import Spending
from relay.store.usage import GROUPS, Outcome, ReportRow, UsageRow, UsageSource, UsageTable

__all__ = [
    "GROUPS",
    "Key",
    "KeyRing",
    "Keys",
    "Journal",
    "Kept",
    "Limits",
    "Open",
    "Outcome",
    "ReportRow",
    "Room",
    "Spending",
    "Store",
    "StoreError",
    "UsageRow",
    "UsageSource",
    "UsageTable",
]


log = logging.getLogger(__name__)


def _journal(path: Path) -> Journal | None:
    try:
        return Journal.open(path)
    except OSError as error:
        log.error("calls in flight are not kept, and a crash would lose them: %s", error)
        return None


class Store:
    """The open database: `keys` to manage them, `ring` to look them up while serving, `usage` for rows and reports."""

    def __init__(
        self,
        database: Database,
        keys: Keys,
        ring: KeyRing,
        usage: UsageTable,
        spending: Spending,
        repeats: Repeats,
        kept: Kept | None = None,
    ) -> None:
        self.database = database
        self.keys = keys
        self.ring = ring
        self.usage = usage
        self.spending = spending
        self.repeats = repeats
        self.kept = kept
        """What is kept for the next turn; None where nobody serves."""
        self.journal = usage.journal
        """The calls in flight; None unless they are kept."""

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        watch: bool = False,
        journal: bool = False,
        rooms: Mapping[str, Room] | None = None,
    ) -> Store:
        """Open the database, making it first if there is none, and bring its schema up to date.

        `watch` keeps `ring` up to date with changes made by other processes; serving needs it, commands do not.
        `journal` keeps the calls in flight in a file beside the database. `rooms` says what is kept for the next turn.
        Raises StoreError, whose message is for people.
        """
        database = await Database.open(Path(path))
        try:
            reader = await database.new_reader()
            ring = KeyRing(reader, path=database.path)
            if watch:
                await ring.start()
        except sqlite3.Error as error:
            await database.close()
            raise StoreError(f"the database {path} cannot be read: {error}") from error
        except BaseException:
            await database.close()
            raise
        seals = Seals()
        return cls(
            database,
            Keys(database, ring.refresh),
            ring,
            UsageTable(database, journal=_journal(database.path) if journal else None),
            Spending(reader),
            Repeats(database, reader, seals),
            None if rooms is None else Kept(database, reader, rooms, seals),
        )

    async def close(self, within: float = 10.0) -> None:
        """Store the rows that wait, for at most `within` seconds, and close the file. May be called twice."""
        await self.usage.close(within)
        if self.journal is not None:
            # A call that ends later finds none any more.
            self.journal.close()
            self.journal = self.usage.journal = None
        if self.kept is not None:
            await self.kept.close()
        await self.ring.close()
        await self.database.close()

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
