"""From the first signal to the last row: how a serving process reloads, stops, and says so."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.cli.notify import Notifier
from relay.lasting import Lasting

if TYPE_CHECKING:
    from aiohttp import web

    from relay.app import Relay
    from relay.config import Config
    from relay.door import RelayRunner

__all__ = ["Lifetime"]

log = logging.getLogger("relay")


class Lifetime:
    """One process's. `load` reads the configuration again; it raises ConfigError."""

    def __init__(self, relay: Relay, load: Callable[[], Config], notifier: Notifier) -> None:
        self._relay = relay
        self._load = load
        self._notifier = notifier
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._again = asyncio.Event()
        self._works = (Lasting("reloading", self._reloading), Lasting("signs-of-life", notifier.beating))

    def listen(self, numbers: tuple[signal.Signals, ...]) -> None:
        """Take signals: `numbers` to stop, and to hurry if one comes again; SIGHUP to reload."""
        loop = asyncio.get_running_loop()
        for number in numbers:
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._again.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        for work in self._works:
            work.start()
        self._relay.lasting += self._works
        self._notifier.ready()

    def stop(self) -> None:
        """Somebody wants it to end; or wants so once more."""
        if self._stop.is_set():
            self._hurry.set()
        self._relay.life.stopping = True
        self._stop.set()

    async def over(self) -> None:
        """Wait until it is to end."""
        await self._stop.wait()

    async def end(self, site: web.BaseSite, runner: RelayRunner) -> None:
        """Finish what is open, in the time that the settings give, and leave everything settled."""
        server = self._relay.settings.server
        self._notifier.stopping()
        if server.pre_stop_seconds:
            log.info("stopping in %g seconds", server.pre_stop_seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(server.pre_stop_seconds):
                    await self._hurry.wait()
        log.info("stopping: open answers get %g seconds", server.drain_seconds)
        await site.stop()
        ended = await runner.drain(server.drain_seconds, self._hurry)
        if ended:
            log.warning("%d answers were not finished in time; their clients were told", ended)
        await asyncio.gather(*(work.stop() for work in self._works))
        await runner.cleanup()
        self._notifier.close()

    async def _reloading(self) -> None:
        while True:
            await self._again.wait()
            self._again.clear()
            self._notifier.reloading()
            try:
                if await self.reload():
                    await self._relay.list_all()
            finally:
                self._notifier.ready()

    async def reload(self) -> bool:
        """Read the configuration again. Whether it is in force now; if not, the log says why, and the old one stays."""
        from relay.config import ConfigError
        from relay.reload import reload

        try:
            config = self._load()
            left = await reload(self._relay, config)
        except ConfigError as error:
            self._relay.life.kept()
            log.error("the configuration was not reloaded, and the one before stays in force:\n%s", error)
            return False
        log.info("the configuration was reloaded")
        for name in left:
            log.warning("%s has changed as well: that takes a restart", name)
        return True
