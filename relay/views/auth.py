"""Whose request is it? Every place that clients put keys into, one answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDictProxy, istr

from relay.call import Call
from relay.dialect import Dialect
from relay.errors import NoKey, RateLimited
from relay.middleware import CROSS_ORIGIN, HEADERS, REQUEST_ID
from relay.store import Key
from relay.throttle import neighbourhood

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
    key = relay.store.ring.get(token) or await _looked_up(relay, request, token)
    call = Call(request[REQUEST_ID], key, operation, relay.clock(), int(relay.wall() * 1000))
    call.headers.update(request.get(CROSS_ORIGIN, ()))
    request[HEADERS] = call.headers
    return call


async def _looked_up(relay: Relay, request: web.Request, token: str) -> Key:
    """The key of a secret that is not in memory. Raises NoKey, and RateLimited for an address that only guesses."""
    address = neighbourhood(request.remote or "")
    wait = relay.throttle.wait(address, relay.clock())
    if wait:
        raise RateLimited(
            "too many unknown API keys came from this address",
            limit="unknown keys per address",
            retry_after=wait,
            code="too_many_unknown_keys",
        )
    key = await relay.store.ring.lookup(token)
    if key is None:
        relay.throttle.failed(address, relay.clock())
        raise NoKey("the API key is unknown, expired or revoked")
    return key


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
