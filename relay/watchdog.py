"""Who holds up the event loop: while one piece of code runs, no other call goes on.

A thread looks ten times a second whether the loop still takes turns. If it does not, the thread looks at what the loop
is running, and the innermost frame that belongs to a plugin says whose code it is. Calls pay nothing for that.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import FrameType

__all__ = ["OURS", "Watchdog"]

INTERVAL = 0.1
"""Seconds between two looks."""
LONGEST = 0.1
"""Seconds for which the loop may stand still at a look. So what takes twice as long as that is always noticed."""
QUIET = 10.0
"""Seconds between two lines of the log about the same plugin."""
OURS = "relay"
"""Who is named where no plugin is to blame."""

log = logging.getLogger("relay.watchdog")


class Watchdog:
    """Watches one loop. `owners` tells whose plugin a top-level module is."""

    def __init__(self, owners: Mapping[str, str]) -> None:
        self._owners = owners
        self.stalls: Counter[str] = Counter()
        """How often each plugin held the loop up."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched = 0
        self._sent: float | None = None
        self._found: tuple[str, str] | None = None
        self._told: dict[str, float] = {}

    def start(self) -> None:
        """Watch the running loop from now on."""
        self._loop = asyncio.get_running_loop()
        self._watched = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="relay-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1.0)

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            sent, now = self._sent, time.monotonic()
            if sent is None:
                self._sent = now
                try:
                    self._ask()
                except RuntimeError:
                    # The loop is closed.
                    return
            elif now - sent >= LONGEST and self._found is None:
                self._found = self._blamed()

    def _ask(self) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._answered)

    def _answered(self) -> None:
        """In the loop: it takes turns again."""
        sent, found = self._sent, self._found
        self._sent = self._found = None
        if found is None or sent is None:
            return
        plugin, place = found
        self.stalls[plugin] += 1
        now = time.monotonic()
        if plugin != OURS and self._told.get(plugin, -QUIET) <= now - QUIET:
            self._told[plugin] = now
            log.warning("plugin %s held up all calls for %.2f seconds, in %s", plugin, now - sent, place)

    def _blamed(self) -> tuple[str, str]:
        frame: FrameType | None = sys._current_frames().get(self._watched)
        while frame is not None:
            module = str(frame.f_globals.get("__name__", ""))
            plugin = self._owners.get(module.partition(".")[0])
            if plugin is not None:
                return plugin, f"{module}.{frame.f_code.co_qualname}, line {frame.f_lineno}"
            frame = frame.f_back
        return OURS, ""
