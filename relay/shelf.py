"""What is kept for the next turn, for the key that it belongs to: in memory, and sealed in the database behind that.

There are two users: reasoning that clients drop (`relay.memory`), and answers that they refer to later. Both kinds are
bounded in bytes and in age, in memory and on disk; who holds most gives way first, with what it used longest ago.

What is in memory is found at once. The rest has to be fetched, which a call does in a task of its own: `Look` notes
what it did not find, and `fetch` brings it.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from relay.store.kept import Kept
from relay.store.keys import Key

__all__ = ["Look", "Shelf"]

OVERHEAD = 300
"""Bytes that an entry takes in memory beside what is in it."""
ABSENT = 20_000
"""Entries of which it is known that there are none."""
ABSENT_SECONDS = 30.0
"""How long that is believed of what another process may be writing right now."""
LATER = (0.05, 0.15)
"""Seconds after which another process has surely written what it has kept."""


class _Entry(NamedTuple):
    document: bytes
    at: int
    """Unix milliseconds."""


class Shelf:
    """The documents of one kind, by owner, space and name.

    `size` is in bytes of memory, `seconds` the age at which a document is forgotten. Where `shared`, another process
    may drop what is here, so the database is asked each time, and memory serves where that cannot be had.
    """

    def __init__(
        self,
        kind: str,
        size: int,
        seconds: float,
        *,
        clock: Callable[[], float] = time.time,
        kept: Kept | None = None,
        shared: bool = False,
    ) -> None:
        self.kind = kind
        self._most = size
        self._age = int(seconds * 1000)
        self._clock = clock
        self._kept = kept
        self._shared = shared
        self._owners: dict[int, OrderedDict[bytes, _Entry]] = {}
        """What was used longest ago comes first."""
        self._held: dict[int, int] = {}
        """Bytes by owner."""
        self._absent: OrderedDict[bytes, float] = OrderedDict()
        """Until when it is believed that there is no such entry."""
        self.size = 0
        """Bytes that are kept in memory."""

    def __len__(self) -> int:
        return sum(map(len, self._owners.values()))

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def put(self, key: Key, space: str, name: str, document: bytes) -> None:
        """Keep a document; one that is larger than all the room there is, is not kept."""
        # A copy: who writes JSON does so into a buffer of some KB, all of which would be kept along with little text.
        document = bytes(memoryview(document))
        now = self._now()
        self._place(key.id, _mark(key.id, space, name), _Entry(document, now))
        if self._kept is not None:
            self._kept.put(key, self.kind, space, name, document, now)

    def nothing(self, key: Key, space: str, name: str) -> None:
        """There is no such document, and there will be none: nobody has to look for it."""
        if self._kept is not None:
            self._missed(_mark(key.id, space, name), float("inf"))

    def get(self, owner: int, space: str, name: str) -> bytes | None:
        """A document of that owner, if it is in memory and not too old."""
        entries = self._owners.get(owner)
        if entries is None:
            return None
        mark = _mark(owner, space, name)
        entry = entries.get(mark)
        if entry is None:
            return None
        if entry.at + self._age < self._now():
            self._forget(owner, mark)
            return None
        entries.move_to_end(mark)
        return entry.document

    def elsewhere(self, key: Key, space: str, name: str) -> bool:
        """Whether a document that is not in memory may be in the database."""
        if self._kept is None or not self._kept.takes(self.kind, key):
            return False
        until = self._absent.get(_mark(key.id, space, name))
        return until is None or until < self._clock()

    @property
    def shared(self) -> bool:
        """Whether what is in memory does not count by itself."""
        return self._shared and self._kept is not None

    async def fetch(
        self, key: Key, names: Sequence[tuple[str, str]], *, patient: bool = False
    ) -> Mapping[tuple[str, str], bytes]:
        """What is kept under these names, wherever it is. Never fails: what cannot be had is not there.

        `patient`: another process may have kept it a moment ago, and it is worth waiting for.
        """
        found: dict[tuple[str, str], bytes] = {}
        stored = await self._stored(key, names, patient=patient)
        for pair in names:
            mark = _mark(key.id, *pair)
            entry = stored.get(pair)
            if entry is not None:
                self._place(key.id, mark, entry)
                found[pair] = entry.document
            elif pair not in stored:
                # Nobody could tell.
                document = self.get(key.id, *pair)
                if document is not None:
                    found[pair] = document
            else:
                self._forget(key.id, mark)
                self._missed(mark, self._clock() + ABSENT_SECONDS)
        return found

    async def _stored(
        self, key: Key, names: Sequence[tuple[str, str]], *, patient: bool
    ) -> Mapping[tuple[str, str], _Entry | None]:
        """What the database has, and None for what it has not; what is missing here it could not tell."""
        kept = self._kept
        if kept is None or not kept.takes(self.kind, key):
            return {}
        told: dict[tuple[str, str], _Entry | None] = {}
        for pause in (*LATER, None) if patient else (None,):
            asked = [pair for pair in names if told.get(pair) is None]
            for pair, found in (await kept.find(key, self.kind, asked, self._now())).items():
                told[pair] = None if found is None else _Entry(found.document, found.at)
            if pause is None or None not in told.values():
                break
            await asyncio.sleep(pause)
        return told

    async def drop(self, key: Key, space: str, name: str) -> None:
        """Forget a document. Raises sqlite3.Error or StoreError if the database may still have it."""
        self._forget(key.id, _mark(key.id, space, name))
        if self._kept is not None:
            await self._kept.drop(key, self.kind, space, name)

    def forget(self, owner: int) -> None:
        """All of an owner's in memory: its key was revoked, and the database has forgotten it already."""
        for mark in list(self._owners.get(owner, ())):
            self._forget(owner, mark)

    def _place(self, owner: int, mark: bytes, entry: _Entry) -> None:
        self._forget(owner, mark)
        self._absent.pop(mark, None)
        size = len(entry.document) + OVERHEAD
        if size > self._most:
            return
        self._owners.setdefault(owner, OrderedDict())[mark] = entry
        self._held[owner] = self._held.get(owner, 0) + size
        self.size += size
        while self.size > self._most:
            greatest = max(self._held, key=self._held.__getitem__)
            self._forget(greatest, next(iter(self._owners[greatest])))

    def _forget(self, owner: int, mark: bytes) -> None:
        entries = self._owners.get(owner)
        entry = None if entries is None else entries.pop(mark, None)
        if entries is None or entry is None:
            return
        size = len(entry.document) + OVERHEAD
        self.size -= size
        self._held[owner] -= size
        if not entries:
            del self._owners[owner], self._held[owner]

    def _missed(self, mark: bytes, until: float) -> None:
        self._absent[mark] = until
        self._absent.move_to_end(mark)
        if len(self._absent) > ABSENT:
            self._absent.popitem(last=False)


@dataclass(slots=True)
class Look:
    """What one call looks for, for its key: answered at once as far as that can be, the rest after `fetch`."""

    key: Key
    missing: dict[Shelf, list[tuple[str, str]]] = field(default_factory=dict)
    """What was asked for and is not in memory."""
    patient: bool = False
    """Whether it is an error if something is not there."""
    _found: dict[tuple[str, str, str], bytes | None] = field(default_factory=dict)

    def get(self, shelf: Shelf, space: str, name: str) -> bytes | None:
        """A document. None: there is none, or it is `missing`."""
        place = (shelf.kind, space, name)
        if place in self._found:
            return self._found[place]
        document = None if shelf.shared else shelf.get(self.key.id, space, name)
        if document is None:
            if shelf.elsewhere(self.key, space, name):
                self.missing.setdefault(shelf, []).append((space, name))
            elif shelf.shared:
                document = shelf.get(self.key.id, space, name)
        return document

    async def fetch(self) -> None:
        """Bring what is missing, as far as it is there."""
        for shelf, pairs in self.missing.items():
            names = list(dict.fromkeys(pairs))
            found = await shelf.fetch(self.key, names, patient=self.patient)
            for space, name in names:
                self._found[shelf.kind, space, name] = found.get((space, name))
        self.missing = {}


def _mark(owner: int, space: str, name: str) -> bytes:
    return hashlib.sha256(f"{owner}\0{space}\0{name}".encode("utf-8", "surrogatepass")).digest()[:16]
