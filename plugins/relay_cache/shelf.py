"""Answers that are kept: by their place, bounded in bytes and age. Sans-IO; `now` is always an argument."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from relay import Given

__all__ = ["Answers"]

OVERHEAD = 1500
"""Bytes that an entry takes beside its body."""


class Answers:
    """Answers and when they were given, in seconds. What was not used for longest goes first."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most = most
        self._seconds = seconds
        self._kept: OrderedDict[bytes, tuple[Given, float]] = OrderedDict()
        self.size = 0
        """Bytes that are kept."""

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, place: bytes, given: Given, now: float) -> None:
        """Keep an answer; one that is larger than all the room there is, is not kept."""
        self._drop(place)
        size = len(given.body) + OVERHEAD
        if size > self._most:
            return
        # A copy: what is kept may be a view of something larger.
        self._kept[place] = (replace(given, body=bytes(memoryview(given.body))), now)
        self.size += size
        while self.size > self._most:
            self._drop(next(iter(self._kept)))

    def get(self, place: bytes, now: float, youngest: float | None = None) -> tuple[Given, float] | None:
        """An answer and its age, if there is one that is not older than it may be, or than `youngest` says."""
        found = self._kept.get(place)
        if found is None:
            return None
        given, at = found
        age = now - at
        if age >= self._seconds or age < 0:
            # A clock that was set back says nothing of what is old.
            self._drop(place)
            return None
        if youngest is not None and age > youngest:
            return None
        self._kept.move_to_end(place)
        return given, age

    def _drop(self, place: bytes) -> None:
        found = self._kept.pop(place, None)
        if found is not None:
            self.size -= len(found[0].body) + OVERHEAD
