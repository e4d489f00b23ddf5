"""Which event loop the tests of the whole application run on: asyncio's, or uvloop's as `relay serve` does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

LOOP = os.environ.get("I8RELAY_TEST_LOOP", "asyncio")


def factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that `I8RELAY_TEST_LOOP` names."""
    if LOOP == "uvloop":
        import uvloop

        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}
