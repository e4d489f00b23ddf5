"""The vendor's errors, from an error answer or from the middle of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay import Target, kit
from relay.errors import UpstreamError

__all__ = ["error_of", "translate_error"]

STATUSES: dict[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""The HTTP status that each error type has, for errors that come inside an answer with status 200."""

CREDIT = "Your credit balance is too low"
"""How the message begins when the relay's account is empty: typed as an invalid request, yet not the caller's fault."""


def translate_error(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """What an answer with a status of 400 or more means, with the vendor's own message."""
    kind, message = "", ""
    if target.upstream.api_key:
        # Before anything is cut off: half a key is too much as well.
        body = body.replace(target.upstream.api_key.reveal().encode(), b"***")
    try:
        value = kit.loads(body)
    except ValueError:
        value = None
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict):
        kind, message = _fields(error)
    elif isinstance(error, str):
        message = error
    elif isinstance(value, dict) and isinstance(value.get("message"), str):
        message = value["message"]
    if message.lstrip().startswith("<"):
        # A web page helps nobody, in JSON as little as by itself.
        message, body = "", b""
    return _error(status, kind, (message or kit.plain_message(body, status))[: kit.MAX_MESSAGE], headers)


def error_of(value: dict[str, Any]) -> UpstreamError:
    """What an `error` object inside an answer with status 200 means."""
    error = value.get("error")
    kind, message = _fields(error) if isinstance(error, dict) else ("", "")
    status = STATUSES.get(kind, 500)
    return _error(status, kind, message[: kit.MAX_MESSAGE] or "the upstream reported an error without a message", {})


def _fields(error: dict[str, Any]) -> tuple[str, str]:
    kind, message = error.get("type"), error.get("message")
    return kind if isinstance(kind, str) else "", message if isinstance(message, str) else ""


def _error(status: int, kind: str, message: str, headers: Mapping[str, str]) -> UpstreamError:
    if message.startswith(CREDIT):
        status = 402
    code = kind if status in (400, 404, 413) and kind else None
    return kit.error_for_status(status, message, headers, code=code)
