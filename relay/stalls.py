"""Who holds the event loop up. While it is held up nobody is served, and only another thread can see that.

Four times a second the loop is asked to say something. If it does not in time, what it is doing is looked at and named:
the innermost place that is a plugin's or the relay's. So long computing and waiting in the wrong place are found in a
plugin, too; those shorter than the time between two looks are found by chance.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Collection
from types import FrameType

__all__ = ["Stalls"]

LOOK = 0.25
"""Seconds between two looks."""
LONG = 0.1
"""Seconds without a word after which the loop is held up."""
QUIET = 10.0
"""Seconds between two lines of the log at least."""

log = logging.getLogger("relay.stalls")


class Stalls:
    """Watches the loop that it is started on. `plugins` gives the first parts of the names of plugins' modules."""

    def __init__(self, plugins: Callable[[], Collection[str]] = tuple) -> None:
        self.count = 0
        """How often the loop was held up."""
        self.longest = 0.0
        """Seconds of the longest time."""
        self._plugins = plugins
        self._over = threading.Lock()
        """Open once nobody is to look any more."""
        self._thread: threading.Thread | None = None
        self._quiet_until = 0.0

    def start(self) -> None:
        """Begin to watch the running loop, from a thread."""
        loop, ident = asyncio.get_running_loop(), threading.get_ident()
        self._over = over = threading.Lock()
        over.acquire()
        self._thread = threading.Thread(target=self._watch, args=(loop, ident, over), name="relay-stalls", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        if self._thread is not None:
            self._over.release()
            self._thread.join()
            self._thread = None

    def tell(self) -> dict[str, int]:
        """How often, and how long at most, for a probe."""
        return {"stalls": self.count, "longest_ms": round(self.longest * 1000)}

    def _watch(self, loop: asyncio.AbstractEventLoop, ident: int, over: threading.Lock) -> None:
        # Locks, and not events, which are made of them in Python: of what an idle process does this was half.
        said = threading.Lock()
        said.acquire()
        while not over.acquire(timeout=LOOK):
            asked = time.monotonic()
            try:
                loop.call_soon_threadsafe(said.release)
            except RuntimeError:
                # It is closed.
                return
            if said.acquire(timeout=LONG):
                continue
            place = self._place(sys._current_frames().get(ident))
            while not said.acquire(timeout=LONG):
                if over.acquire(blocking=False):
                    return
            if place is not None:
                # Else nobody held it up: the process was not given its turn.
                self._note(place, time.monotonic() - asked)

    def _note(self, place: str, seconds: float) -> None:
        self.count += 1
        self.longest = max(self.longest, seconds)
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            log.warning(
                "the event loop was held up for %d ms in %s; that was time %d", seconds * 1000, place, self.count
            )

    def _place(self, frame: FrameType | None) -> str | None:
        """The innermost place that is a plugin's or the relay's; None if none of them is at work."""
        ours = {"relay", *self._plugins()}
        deepest = ""
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            deepest = deepest or f"{module}.{frame.f_code.co_name}"
            if module.partition(".")[0] in ours and not module.startswith("relay.cli."):
                place = f"{module}.{frame.f_code.co_qualname}, line {frame.f_lineno}"
                return place if deepest.startswith(module) else f"{place} ({deepest})"
            frame = frame.f_back
        return None
