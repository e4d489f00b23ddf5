"""The vendor's errors, from an error answer or from the middle of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay import Target, kit
from relay.errors import UpstreamError

__all__ = ["error_in", "translate_error"]

STATUSES: Mapping[str, int] = {
    "accessdeniedexception": 403,
    "expiredtokenexception": 403,
    "internalserverexception": 500,
    "modelerrorexception": 424,
    "modelnotreadyexception": 429,
    "modelstreamerrorexception": 424,
    "modeltimeoutexception": 408,
    "resourcenotfoundexception": 404,
    "servicequotaexceededexception": 429,
    "serviceunavailableexception": 503,
    "throttlingexception": 429,
    "unrecognizedclientexception": 403,
    "validationexception": 400,
}
"""The HTTP status that each kind of error has, for those inside of a stream."""
MODEL_FAILED = 424
"""The model broke down on a request that is right: nobody's fault but the upstream's."""


def translate_error(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """What an answer with a status of 400 or more means, with the vendor's own message."""
    for part in _secrets(target):
        # Before anything is cut off: half a key is too much as well.
        body = body.replace(part.encode(), b"***")
    try:
        value = kit.loads(body)
    except ValueError:
        value = None
    kind = headers.get("x-amzn-errortype", "").partition(":")[0]
    message = _message(value) or kit.plain_message(body, status)
    return _error(status, kind or _kind(value), message, headers)


def error_in(headers: Mapping[str, str], payload: bytes) -> UpstreamError:
    """What a message of a stream means that is not an event."""
    kind = headers.get(":exception-type") or headers.get(":error-code") or ""
    try:
        value = kit.loads(payload) if payload else {}
    except ValueError:
        value = {}
    message = _message(value) or headers.get(":error-message") or kind or "an error without a message"
    status = STATUSES.get(kind.lower(), 500)
    if status == MODEL_FAILED and isinstance(value, dict):
        # What the model's own server said counts for more than that it failed.
        original = value.get("originalStatusCode")
        status = original if original in (429, 503) else status
    return _error(status, kind, message, {})


def _secrets(target: Target) -> list[str]:
    key = target.upstream.api_key.reveal() if target.upstream.api_key else ""
    return [part for part in (key, *key.split(":", 2)[1:]) if part]


def _message(value: Any) -> str:
    found = value.get("message", value.get("Message")) if isinstance(value, dict) else None
    return found if isinstance(found, str) else ""


def _kind(value: Any) -> str:
    found = value.get("__type") if isinstance(value, dict) else None
    return found.rpartition("#")[2] if isinstance(found, str) else ""


def _error(status: int, kind: str, message: str, headers: Mapping[str, str]) -> UpstreamError:
    code = kind if kind and status in (400, 404, 413) else None
    shown = 500 if status == MODEL_FAILED else status
    return kit.error_for_status(shown, message[: kit.MAX_MESSAGE], headers, code=code)
