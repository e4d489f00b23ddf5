"""The vendor's errors, from an error answer or from inside a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay import Target, kit
from relay.errors import UpstreamError

__all__ = ["error_of", "find_error", "translate_error"]

STATUSES: dict[str, int] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "CANCELLED": 499,
    "INTERNAL": 500,
    "UNKNOWN": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""The HTTP status of each error status, for errors inside an answer with status 200 that give no code."""

KEY_REASONS = frozenset({"API_KEY_INVALID", "API_KEY_EXPIRED", "API_KEY_SERVICE_BLOCKED", "CONSUMER_SUSPENDED"})
"""Reasons in the details that say it is the relay's key: some come as status 400, which the caller's is not."""


def find_error(value: Any) -> dict[str, Any] | None:
    """The `error` object in an answer, also where the answer is a list, as streams without `alt=sse` are."""
    if isinstance(value, list):
        return next((found for entry in value if (found := find_error(entry)) is not None), None)
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else None


def translate_error(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """What an answer with a status of 400 or more means, with the vendor's own message."""
    if target.upstream.api_key:
        # Before anything is cut off: half a key is too much as well.
        body = body.replace(target.upstream.api_key.reveal().encode(), b"***")
    try:
        error = find_error(kit.loads(body))
    except ValueError:
        error = None
    text = kit.plain_message(body, status) if error is None else _message(error)
    return _error(status, text, error or {}, headers)


def error_of(error: dict[str, Any]) -> UpstreamError:
    """What an `error` object inside an answer with status 200 means."""
    code = error.get("code")
    if not isinstance(code, int) or not 400 <= code <= 599:
        code = STATUSES.get(str(error.get("status")), 500)
    return _error(code, _message(error), error, {})


def _message(error: dict[str, Any]) -> str:
    message = error.get("message")
    # A web page helps nobody, in JSON as little as by itself.
    if isinstance(message, str) and message.strip() and not message.lstrip().startswith("<"):
        return message[: kit.MAX_MESSAGE]
    return "the upstream reported an error without a message"


def _error(status: int, message: str, error: dict[str, Any], headers: Mapping[str, str]) -> UpstreamError:
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if not isinstance(detail, dict):
            continue
        reason = detail.get("reason")
        if isinstance(reason, str) and reason in KEY_REASONS:
            status = 401
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and "retry-after" not in headers:
            headers = {**headers, "retry-after": delay.removesuffix("s")}
    name = error.get("status")
    code = name.lower() if isinstance(name, str) and status in (400, 404) else None
    return kit.error_for_status(status, message, headers, code=code)
