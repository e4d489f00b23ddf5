"""How the whole application is served in tests: on asyncio's loop or uvloop's, with the lane or without."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp.test_utils import TestServer
from aiohttp.web import BaseRunner

from relay.door import RelayRunner

LOOP = os.environ.get("I8RELAY_TEST_LOOP", "asyncio")
LANE = os.environ.get("I8RELAY_TEST_LANE", "on") == "on"


class RelayServer(TestServer):
    """A relay on a free port, served as `relay serve` does; without the lane if `I8RELAY_TEST_LANE` says so."""

    async def _make_runner(self, **options: Any) -> BaseRunner:
        return RelayRunner(self.app, lane=LANE, **options)


def factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that `I8RELAY_TEST_LOOP` names."""
    if LOOP == "uvloop":
        import uvloop

        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
