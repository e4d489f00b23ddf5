"""Whose request is it? Every place that clients put keys into, one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDictProxy, istr

from relay.call import Call
from relay.dialect import Dialect
from relay.errors import NoKey
from relay.middleware import HEADERS, REQUEST_ID

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["AUTHORIZATION", "OTHERS", "authenticate", "token_of"]

AUTHORIZATION = istr("Authorization")
OTHERS = (istr("x-api-key"), istr("api-key"), istr("x-goog-api-key"))
"""Where clients put keys that do not use Authorization."""


async def authenticate(relay: Relay, request: web.Request, operation: str, dialect: Dialect | None) -> Call:
    """The call that this request becomes. Raises NoKey; nothing of the body was read then."""
    parameter = "" if dialect is None else dialect.key_parameter
    token = token_of(request.headers, request.query.getall(parameter, ()) if parameter else ())
    key = relay.store.ring.get(token) or await relay.store.ring.lookup(token)
    if key is None:
        raise NoKey("the API key is unknown, expired or revoked")
    call = Call(
        id=request[REQUEST_ID],
        key=key,
        operation=operation,
        started=relay.clock(),
        at=int(relay.wall() * 1000),
    )
    request[HEADERS] = call.headers
    return call


def token_of(headers: CIMultiDictProxy[str], asked: Sequence[str] = ()) -> str:
    """The one key of a request: in its headers, or `asked`, in its query. Raises NoKey for none, and for several."""
    usual = headers.getall(AUTHORIZATION, ())
    if (
        len(usual) == 1
        and usual[0].startswith("Bearer sk-")
        and not asked
        and not any(name in headers for name in OTHERS)
    ):
        return usual[0][7:].strip()
    found = {value for name in OTHERS for value in headers.getall(name, ()) if value}
    for value in usual:
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            raise NoKey("the Authorization header must have the form: Bearer KEY")
        if token.strip():
            found.add(token.strip())
    found.update(value for value in asked if value)
    if not found:
        raise NoKey("no API key was sent; use the header Authorization: Bearer KEY", code="missing_api_key")
    if len(found) > 1:
        raise NoKey("the request carries several different API keys")
    return found.pop()
