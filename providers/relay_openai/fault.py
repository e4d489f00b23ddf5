"""What the error objects of `openai-chat` hosts say, in every shape that has been seen.

The same reader serves HTTP errors, errors inside a 200 answer, and errors in mid-stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relay import Secret
from relay.errors import UpstreamError
from relay.kit import MAX_MESSAGE, error_for_status, loads, plain_message

__all__ = ["Fault", "is_fault", "read_fault", "tells_error", "upstream_error"]

_RENAMED: Mapping[str, str] = {
    "exceed_context_size_error": "context_length_exceeded",
    "context_length_exceeded_error": "context_length_exceeded",
}
"""Codes that clients act upon, by the names that some hosts have for them."""

_STATUS: Mapping[str, int] = {
    "invalid_api_key": 401,
    "invalid_authentication": 401,
    "insufficient_quota": 402,
    "insufficient_balance": 402,
}
"""Codes that say more than the HTTP status beside them: a quota that is spent comes as 429, a wrong key as 400."""

_HOLLOW = frozenset((b"{}", b"[]", b"null", b'""'))
"""JSON that says nothing."""

_GENERIC = "Provider returned error"
"""A gateway's own words when the real reason stands in `metadata.raw`."""


@dataclass(slots=True)
class Fault:
    """An upstream's own words: the message, its code, the parameter it blames, and an HTTP status if it names one."""

    message: str = ""
    code: str | None = None
    param: str | None = None
    status: int | None = None


def read_fault(body: Any) -> Fault:
    """The fault that a parsed error body describes; an empty one if it is in no known shape."""
    fault = Fault()
    if isinstance(body, list):
        # One vendor's streams wrap even their error in an array.
        body = body[0] if body else None
    if isinstance(body, str):
        fault.message = body
        return fault
    if not isinstance(body, dict):
        return fault
    error = body.get("error")
    inner = body.get("base_resp")
    if isinstance(inner, dict) and not error:
        fault.message = str(inner.get("status_msg") or "")
        fault.code = str(inner.get("status_code"))
    elif isinstance(error, dict):
        _read(fault, error)
    elif isinstance(error, str) and error:
        # {"error": "...", "code": "..."}: the code is a sentence there, so only a word is taken.
        fault.message = error
        _read_code(fault, body)
    else:
        _read(fault, body)
    return fault


def _read(fault: Fault, error: Mapping[str, Any]) -> None:
    detail = error.get("detail")
    message = error.get("message") or (detail if isinstance(detail, str) else None) or error.get("error")
    if isinstance(message, str):
        fault.message = message
    elif message is not None:
        fault.message = str(message)
    elif isinstance(detail, list):
        _read_details(fault, detail)
    param = error.get("param")
    if isinstance(param, str) and param:
        fault.param = param
    _read_code(fault, error)
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and fault.message == _GENERIC:
        _read_raw(fault, metadata.get("raw"))


def _read_details(fault: Fault, details: list[Any]) -> None:
    """Validation errors as web frameworks list them: `[{"loc": ["body", "messages"], "msg": "Field required"}]`."""
    for entry in details:
        if isinstance(entry, dict) and isinstance(entry.get("msg"), str):
            steps = entry.get("loc")
            place = [str(step) for step in steps if step != "body"] if isinstance(steps, list) else []
            fault.message = f"{'.'.join(place)}: {entry['msg']}" if place else entry["msg"]
            fault.param = ".".join(place) or None
            return


def _read_code(fault: Fault, error: Mapping[str, Any]) -> None:
    status = error.get("status_code", error.get("raw_status_code"))
    code = error.get("code")
    if type(code) is int:
        status = code if status is None else status
        code = None
    elif isinstance(code, str) and code.isdecimal():
        status = int(code) if status is None and len(code) == 3 else status
        code = None
    if not isinstance(code, str) or not code or " " in code:
        code = error.get("type")
    if isinstance(code, str) and code and " " not in code:
        fault.code = _RENAMED.get(code, code)
    if type(status) is int and 400 <= status <= 599:
        fault.status = status


def _read_raw(fault: Fault, raw: Any) -> None:
    """The message that a gateway got from the host behind it."""
    if not isinstance(raw, str) or not raw.strip():
        return
    try:
        inner = read_fault(loads(raw))
    except ValueError:
        inner = Fault(message=raw)
    if inner.message:
        fault.message = f"{_GENERIC}: {inner.message}"
    if inner.code and fault.code is None:
        fault.code = inner.code
    fault.param = fault.param or inner.param


def is_fault(body: Mapping[str, Any]) -> bool:
    """Whether the object of a 200 answer, or of a stream's event, tells of an error instead of an answer."""
    if body.get("error"):
        return True
    if body.get("choices"):
        return False
    base = body.get("base_resp")
    if isinstance(base, dict) and base.get("status_code"):
        return True
    return body.get("object") == "error" or body.get("type") == "error"


def tells_error(data: bytes) -> bool:
    """Whether clients take a chunk of a stream for an error: it has an `error` that is not empty."""
    try:
        value = loads(data)
    except ValueError:
        return False
    return isinstance(value, dict) and bool(value.get("error"))


def upstream_error(
    body: Any, raw: bytes, status: int | None, headers: Mapping[str, str], secret: Secret | None = None
) -> UpstreamError:
    """The error that `body` (its bytes are `raw`) means.

    `status` is the HTTP status, or None where the error came inside a 200 answer: then the one it names counts.
    """
    fault = read_fault(body)
    judged = _STATUS.get(fault.code or "", status if status is not None else fault.status)
    message = fault.message.strip()
    if not message or message.startswith("<"):
        # A web page, as HTML itself or as the text of a JSON error, helps nobody.
        shown = b"" if message or raw.strip() in _HOLLOW else raw
        message = "the upstream reported an error without a reason" if judged is None else plain_message(shown, judged)
    if secret is not None:
        message = secret.mask(message)
    message = message[:MAX_MESSAGE]
    if judged is None:
        return UpstreamError(message, code=fault.code, param=fault.param, upstream_status=200)
    return error_for_status(judged, message, headers, code=fault.code, param=fault.param)
