"""Work that has to go on for as long as the process lives: what it raises is told and counted, and it begins again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

__all__ = ["Lasting"]

FIRST, LONGEST = 1.0, 60.0
"""Seconds of the first pause before it begins again; each further one is twice as long, up to this."""
CALM = 60.0
"""Seconds of work after which a failure is the first one again."""

log = logging.getLogger("relay.lasting")


class Lasting:
    """One task. `work` is called again whenever what it gave raised; if that returns, it is over."""

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        *,
        first: float | None = None,
        longest: float = LONGEST,
    ) -> None:
        self.name = name
        self.restarts = 0
        """How often it failed and began again."""
        self.task: asyncio.Task[None] | None = None
        """Set by `start`."""
        self._work = work
        self._first = FIRST if first is None else first
        self._longest = longest

    def start(self) -> asyncio.Task[None]:
        """Begin. Needs a running event loop."""
        self.task = asyncio.create_task(self._run(), name=f"relay-{self.name}")
        return self.task

    async def stop(self) -> None:
        """End it, and wait until that has happened."""
        task, self.task = self.task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = self._first
        while True:
            began = loop.time()
            try:
                await self._work()
                return
            except Exception:
                self.restarts += 1
                log.exception("%s failed and begins again; that was time %d", self.name, self.restarts)
            if loop.time() - began > CALM:
                pause = self._first
            await asyncio.sleep(pause)
            pause = min(2 * pause, self._longest)
