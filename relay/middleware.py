"""Around every request: a request id, and every error as JSON in the caller's own dialect."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from relay.dialect import Dialect
from relay.envelope import error_body, new_request_id
from relay.errors import BadParameter, InternalError, NoSuchMethod, NoSuchRoute, RelayError, TooLarge
from relay.outlet import STANDING

__all__ = [
    "CROSS_ORIGIN",
    "DIALECT",
    "EXPECTED",
    "HEADERS",
    "INVALID",
    "LEFT",
    "REQUEST_ID",
    "STOPPED",
    "Handler",
    "error_headers",
    "errors",
    "finish_headers",
]

DIALECT: web.RequestKey[Dialect] = web.RequestKey("dialect", Dialect)
"""Who renders this request's errors; not set where no dialect is spoken."""
HEADERS: web.RequestKey[dict[str, str]] = web.RequestKey("headers", dict)
"""Headers that the answer gets even if it is an error."""
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
CROSS_ORIGIN: web.RequestKey[Mapping[str, str]] = web.RequestKey("cross_origin", Mapping)
"""What the answer tells the browser of a page that may ask."""
EXPECTED: web.RequestKey[str] = web.RequestKey("expected", str)
"""What the client wants to be told before it sends the body."""

STOPPED: web.RequestKey[RelayError] = web.RequestKey("stopped", RelayError)
"""Why the handler is cancelled, if not because the client has gone."""
LEFT: web.RequestKey[Callable[[], None]] = web.RequestKey("left")
"""Called when the client has gone, before anybody else hears of it."""
INVALID = "invalid_http"
"""The code of errors after which nothing that comes on the same connection can be trusted."""

log = logging.getLogger("relay.requests")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever a handler raises into an answer. No traceback ever leaves; it stays in the log, under the id."""
    request_id = request[REQUEST_ID] = new_request_id(time.time_ns() // 1_000_000)
    try:
        return await handler(request)
    except RelayError as error:
        return _answer(request, error)
    except web.HTTPException as error:
        return _answer(request, _from_http(error), allow=error.headers.get("Allow"))
    except (ConnectionError, TimeoutError):
        # The client has gone: there is nobody to tell.
        raise
    except Exception:
        log.exception("request %s failed", request_id)
        return _answer(request, InternalError(f"internal error; the log has it under {request_id}"))


def _from_http(error: web.HTTPException) -> RelayError:
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge("the request body is over the limit")
    if isinstance(error, web.HTTPMethodNotAllowed):
        return NoSuchMethod("this path does not answer that method")
    if error.status == 404:
        return NoSuchRoute("there is nothing at this path")
    return BadParameter(error.reason, status=error.status) if error.status < 500 else InternalError("internal error")


def error_headers(error: RelayError) -> dict[str, str]:
    """What an error's answer says in its headers."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        # Rounded up, so that a client that waits as told is not told to wait again.
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after * 1000))
    if error.should_retry is not None:
        headers["x-should-retry"] = "true" if error.should_retry else "false"
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def _answer(request: web.Request, error: RelayError, allow: str | None = None) -> web.Response:
    dialect = request.get(DIALECT)
    body = error_body(error) if dialect is None else dialect.encode_error(error, request[REQUEST_ID])
    headers = {**request.get(HEADERS, {}), **error_headers(error), "Content-Type": "application/json"}
    if allow:
        headers["Allow"] = allow
    if not request.content.is_eof() and request.can_read_body:
        # What was not read is not waited for.
        headers["Connection"] = "close"
    response = web.Response(status=error.status, body=body, headers=headers)
    if error.code == INVALID:
        response.force_close()
    return response


async def finish_headers(request: web.Request, response: web.StreamResponse) -> None:
    """The last touch on every answer's headers, streams included."""
    headers = response.headers
    request_id = headers["x-request-id"] = request.get(REQUEST_ID, "")
    dialect = request.get(DIALECT)
    if dialect is not None and dialect.request_id_header:
        headers[dialect.request_id_header] = request_id
    headers.update(request.get(CROSS_ORIGIN, {}))
    headers.update(STANDING)
