"""Errors inside of answers: the `error` of a failed one, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay import Secret
from relay.errors import CallerError, OutOfBudget, RateLimited, RelayError, UpstreamBusy, UpstreamError, UpstreamRefused
from relay_openai.fault import upstream_error

__all__ = ["error_object", "failed"]

_STATUS: Mapping[str, int] = {
    "rate_limit_exceeded": 429,
    "insufficient_quota": 402,
    "server_is_overloaded": 503,
    "slow_down": 503,
    "server_error": 500,
    "context_length_exceeded": 400,
    "invalid_prompt": 400,
    "cyber_policy": 400,
    "bio_policy": 400,
    "misalignment_policy_violation": 400,
    "invalid_image": 400,
    "invalid_image_format": 400,
    "invalid_base64_image": 400,
    "invalid_image_url": 400,
    "image_too_large": 400,
    "image_too_small": 400,
    "image_parse_error": 400,
    "image_content_policy_violation": 400,
    "invalid_image_mode": 400,
    "image_file_too_large": 400,
    "unsupported_image_media_type": 400,
    "empty_image_file": 400,
    "failed_to_download_image": 400,
    "image_file_not_found": 400,
}
"""The HTTP status that each code would have been, had the answer not begun already."""

_CODES: tuple[tuple[type[RelayError], str], ...] = (
    (OutOfBudget, "insufficient_quota"),
    (RateLimited, "rate_limit_exceeded"),
    (UpstreamBusy, "rate_limit_exceeded"),
    (UpstreamRefused, "invalid_prompt"),
    (CallerError, "invalid_prompt"),
)
"""The code by the kind of error: clients decide by it whether to try again. Anything else is a `server_error`."""


def failed(body: Any, raw: bytes, secret: Secret | None) -> UpstreamError:
    """The error of a failed answer, or of an `error` event. `raw` are the bytes of `body`."""
    error: Any = body
    if isinstance(body, dict):
        inner = body.get("response")
        error = inner.get("error") if isinstance(inner, dict) else body.get("error")
        if not error:
            # An event may hold the fields of its error itself.
            error = {key: body[key] for key in ("message", "code", "param") if key in body}
    code = error.get("code") if isinstance(error, dict) else None
    status = _STATUS.get(code) if isinstance(code, str) else None
    return upstream_error({"error": error}, raw, status, {}, secret)


def error_object(error: RelayError) -> dict[str, Any]:
    """The `error` of a failed answer."""
    code = error.code if error.code in _STATUS else None
    if code is None:
        code = next((word for kind, word in _CODES if isinstance(error, kind)), "server_error")
    return {"code": code, "message": error.message, "type": error.type, "param": error.param}
