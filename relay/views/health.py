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
    """Ready for calls: 503 from the moment in which the relay is told to stop."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one probe."""
        life = self.relay.life
        return web.Response(
            status=503 if life.stopping else 200, body=orjson.dumps(life.tell()), content_type="application/json"
        )
