"""Answers that the relay keeps: shown to the key that they were given to, and dropped when it says so."""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING

from aiohttp import web

from relay.bound import guarded
from relay.dialect import Dialect
from relay.errors import NoSuchRoute, RelayError, Unavailable
from relay.middleware import DIALECT
from relay.store import Key, StoreError
from relay.views.auth import authenticate

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["KEPT", "KeptView"]

KEPT = frozenset({"kept", "kept_input", "drop"})
"""The operations: show one, show what it was given, forget it."""


log = logging.getLogger("relay.kept")


class KeptView:
    """The handler of one such route of one dialect. Whatever is not this key's does not exist for it."""

    def __init__(self, relay: Relay, dialect: Dialect, operation: str) -> None:
        self.relay = relay
        self.dialect = dialect
        self.operation = operation

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, which leaves its usage row."""
        relay, dialect = self.relay, self.dialect
        request[DIALECT] = dialect
        call = await authenticate(relay, request, self.operation, dialect)
        call.dialect = dialect
        name = request.match_info["id"]
        try:
            document = body = None
            if relay.shelf is not None:
                place = (dialect.name, name)
                document = (await relay.shelf.fetch(call.key, [place], patient=True)).get(place)
            if document is not None:
                found = document
                body = guarded(
                    f"dialect {dialect.name}",
                    "show_kept",
                    lambda: dialect.show_kept(self.operation, name, found, request.query),
                )
            if body is None:
                raise NoSuchRoute("there is no such answer here: it was not stored, is too old, or is somebody else's")
            if self.operation == "drop" and relay.shelf is not None:
                await self._drop(call.key, name)
        except RelayError as error:
            call.failed(error)
            raise
        finally:
            relay.finish(call)
        return web.Response(body=body, content_type="application/json")

    async def _drop(self, key: Key, name: str) -> None:
        if self.relay.shelf is None:
            return
        try:
            await self.relay.shelf.drop(key, self.dialect.name, name)
        except (sqlite3.Error, StoreError) as error:
            log.error("a kept answer cannot be deleted: %s", error)
            raise Unavailable("the answer cannot be deleted now; try again", retry_after=1.0) from error
