"""How full the process is: above a mark of memory nobody new is let in until there is room again.

Open calls go on. What is refused is refused before its body is read, and told when to come back.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from relay.errors import Unavailable
from relay.heap import tidy

__all__ = ["Crowd", "measured"]

LOOK = 0.25
"""Seconds between two looks."""
SELDOM = 2.0
"""Seconds until it is asked again whether there is a mark, where there is none."""
ROOM = 0.9
"""The share of the mark below which there is room again."""
MEGABYTE = 1024 * 1024

log = logging.getLogger("relay")


def measured() -> float:
    """What the process has in memory, in MiB; 0 where that is not told."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / MEGABYTE


class Crowd:
    """Whether there is room. `limit` gives the mark in MiB; 0: there is always room."""

    def __init__(self, limit: Callable[[], int], measure: Callable[[], float] = measured) -> None:
        self._limit = limit
        self.measure = measure
        self.megabytes = 0.0
        """At the last look."""
        self.full = False
        self.changed: list[Callable[[bool], None]] = []
        """Who is told when it becomes full, and when there is room again."""

    def look(self) -> None:
        """Measure, and judge."""
        limit = self._limit()
        self.megabytes = self.measure() if limit else 0.0
        full = bool(limit) and self.megabytes > limit * (ROOM if self.full else 1.0)
        if full == self.full:
            return
        self.full = full
        if full:
            log.error("%d MiB are in memory, and %d may be: nobody new is let in", self.megabytes, limit)
        else:
            log.warning("there is room again: %d MiB are in memory", self.megabytes)
        for tell in self.changed:
            tell(full)

    def enter(self) -> None:
        """Let a call in. Raises Unavailable."""
        if self.full:
            raise Unavailable(
                "the relay has as much in memory as it may have; try again", code="memory_full", retry_after=2.0
            )

    async def watch(self) -> None:
        """Look for as long as the process lives."""
        while True:
            self.look()
            if self.full:
                # Aside, because it takes a while.
                await asyncio.to_thread(tidy)
            await asyncio.sleep(LOOK if self._limit() else SELDOM)
