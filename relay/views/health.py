"""`GET /healthz`: the process answers. Needs no key and tells nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["Health"]


class Health:
    """Alive."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one probe."""
        return web.Response(text='{"status":"ok"}', content_type="application/json")
