"""`GET /healthz`: the process answers. `GET /readyz`: it should be asked. Neither needs a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from aiohttp import web

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["Health", "Ready"]


class Health:
    """Alive."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one probe."""
        return web.Response(text='{"status":"ok"}', content_type="application/json")


class Ready:
    """Ready for calls: 503 from the moment in which the relay is told to stop, and while it has no room for more."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one probe."""
        told = self.relay.life.tell()
        status = 200 if told["status"] == "ready" else 503
        return web.Response(status=status, body=orjson.dumps(told), content_type="application/json")
