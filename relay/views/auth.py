"""Whose request is it? Every place that clients put keys into, one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from multidict import istr

from relay.call import Call
from relay.dialect import Dialect
from relay.errors import NoKey
from relay.middleware import HEADERS, REQUEST_ID

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["authenticate"]

KEY_HEADERS = (istr("x-api-key"), istr("api-key"), istr("x-goog-api-key"))


async def authenticate(relay: Relay, request: web.Request, operation: str, dialect: Dialect | None) -> Call:
    """The call that this request becomes. Raises NoKey; nothing of the body was read then."""
    token = _token(request, "" if dialect is None else dialect.key_parameter)
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


def _token(request: web.Request, parameter: str) -> str:
    """The one key of a request: in its headers, or in the parameter of its query that has this name."""
    headers = request.headers
    usual = headers.getall("Authorization", ())
    if (
        len(usual) == 1
        and usual[0].startswith("Bearer sk-")
        and not parameter
        and not any(name in headers for name in KEY_HEADERS)
    ):
        return usual[0][7:].strip()
    found = {value for name in KEY_HEADERS for value in headers.getall(name, ()) if value}
    for value in usual:
        scheme, _, token = value.partition(" ")
        if scheme.lower() != "bearer":
            raise NoKey("the Authorization header must have the form: Bearer KEY")
        if token.strip():
            found.add(token.strip())
    if parameter:
        found.update(value for value in request.query.getall(parameter, ()) if value)
    if not found:
        raise NoKey("no API key was sent; use the header Authorization: Bearer KEY", code="missing_api_key")
    if len(found) > 1:
        raise NoKey("the request carries several different API keys")
    return found.pop()
