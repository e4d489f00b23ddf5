"""Answers that clients may refer to later: kept for the key they were given to, bounded in bytes and age. Sans-IO."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["Shelf"]

OVERHEAD = 300
"""Bytes that an entry takes beside what is in it."""


class Shelf:
    """Documents by owner, kind and name. `size` is in bytes, `seconds` the age at which one is forgotten."""

    def __init__(self, size: int, seconds: float, *, clock: Callable[[], float] = time.time) -> None:
        self._most = size
        self._seconds = seconds
        self._clock = clock
        self._documents: OrderedDict[tuple[int, str, str], tuple[bytes, float]] = OrderedDict()
        self.size = 0
        """Bytes that are kept."""

    def __len__(self) -> int:
        return len(self._documents)

    def put(self, owner: int, kind: str, name: str, document: bytes) -> None:
        """Keep a document; one that is larger than all the room there is, is not kept."""
        self.drop(owner, kind, name)
        if len(document) + OVERHEAD > self._most:
            return
        # A copy: who writes JSON does so into a buffer of some KB, all of which would be kept along with little text.
        self._documents[owner, kind, name] = (bytes(memoryview(document)), self._clock())
        self.size += len(document) + OVERHEAD
        while self.size > self._most:
            self.drop(*next(iter(self._documents)))

    def get(self, owner: int, kind: str, name: str) -> bytes | None:
        """A document of that owner; None if there is none, or it is too old."""
        found = self._documents.get((owner, kind, name))
        if found is None:
            return None
        if found[1] + self._seconds < self._clock():
            self.drop(owner, kind, name)
            return None
        self._documents.move_to_end((owner, kind, name))
        return found[0]

    def drop(self, owner: int, kind: str, name: str) -> bool:
        """Forget a document. Whether there was one."""
        found = self._documents.pop((owner, kind, name), None)
        if found is None:
            return False
        self.size -= len(found[0]) + OVERHEAD
        return True
