"""Pieces of answers that complete messages and streams spell alike: blocks, usage, the reason for the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.errors import RelayError
from relay.ir import Capacity, Extra, Media, StopKind, StopReason, Text, ToolCall, Usage
from relay.kit import json_object
from relay_anthropic.block import DIALECT
from relay_anthropic.citation import citation_block
from relay_anthropic.content import tool_id
from relay_anthropic.usage import STOP_KINDS

__all__ = [
    "CAPACITY",
    "STOP_WORDS",
    "call_block",
    "error_object",
    "is_silent",
    "media_block",
    "own_fields",
    "stop_word",
    "tool_input",
    "usage_object",
]

STOP_WORDS: Mapping[StopKind, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "filter": "refusal",
    "error": "end_turn",
    "other": "end_turn",
}
"""What clients are told. The vocabulary is closed: a client that checks it would refuse a word of another vendor."""

ERROR_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""The error type of each status; other statuses have that of 400, or of any fault of the server's."""


def own_fields(extra: Extra | None) -> dict[str, Any]:
    """What this dialect put into `extra`; empty if nothing."""
    return (extra or {}).get(DIALECT, {})


def stop_word(stop: StopReason | None, *, called: bool, refused: bool) -> str | None:
    """The `stop_reason`; None if the upstream gave none.

    This vendor's own word stays as it is. Elsewhere a turn that calls tools may end as any other does, and so may a
    turn in which the model declines: here both have a word of their own, by which clients decide what to do next.
    """
    if stop is not None and stop.raw is not None and STOP_KINDS.get(stop.raw) == stop.kind:
        return stop.raw
    if stop is None or stop.kind in ("stop", "other"):
        if refused:
            return "refusal"
        if called:
            return "tool_use"
        if stop is not None and stop.sequence is not None:
            return "stop_sequence"
    return None if stop is None else STOP_WORDS[stop.kind]


def usage_object(usage: Usage | None) -> dict[str, Any]:
    """`usage` in this format, where cached input stands beside `input_tokens`.

    Both totals are required numbers here: one that the upstream did not report is 0.
    """
    known = usage or Usage()
    total, read = known.input or 0, known.cache_read
    parts = (known.cache_write_5m, known.cache_write_1h)
    written = None if parts == (None, None) else sum(part or 0 for part in parts)
    if known.input is not None:
        # Some hosts count more tokens as cached than as given. What is paid for is the total.
        read = None if read is None else min(read, total)
        written = None if written is None else min(written, total - (read or 0))
    fresh = total - (read or 0) - (written or 0)
    fields: dict[str, Any] = {"input_tokens": max(fresh, 0), "output_tokens": known.output or 0}
    if read is not None:
        fields["cache_read_input_tokens"] = read
    if written is not None:
        fields["cache_creation_input_tokens"] = written
    if written is not None and known.cache_write_1h is not None:
        long = min(known.cache_write_1h, written)
        fields["cache_creation"] = {
            "ephemeral_5m_input_tokens": written - long,
            "ephemeral_1h_input_tokens": long,
        }
    if known.reasoning is not None:
        fields["output_tokens_details"] = {"thinking_tokens": known.reasoning}
    return fields


def call_block(part: ToolCall) -> dict[str, Any] | None:
    """A tool's block with its input still empty; None for a call that another vendor's server ran by itself."""
    own = own_fields(part.extra)
    if part.server and "type" not in own:
        return None
    return {"type": "tool_use", "id": tool_id(part.id), "name": part.name, "input": {}, **own}


def tool_input(arguments: str) -> Any:
    """A call's `input`, which must be an object. What the model wrote instead is shown inside of one, not hidden.

    `null` is how some models say that there are no arguments.
    """
    found = json_object(arguments)
    if found is not None:
        return found
    return {} if arguments.strip() == "null" else {"arguments": arguments}


def is_silent(part: Text) -> bool:
    """Whether a text is there for the sake of another vendor's marks alone."""
    return not part.text and bool(part.extra) and not own_fields(part.extra)


def media_block(part: Media) -> dict[str, Any] | None:
    """A picture or another medium in an answer, in the form that requests have for it; None for one without content."""
    if part.data is not None:
        source = {"type": "base64", "media_type": part.media_type or "application/octet-stream", "data": part.data}
    elif part.url is not None:
        source = {"type": "url", "url": part.url}
    elif part.file_id is not None:
        source = {"type": "file", "file_id": part.file_id}
    else:
        return None
    return {"type": part.kind, "source": source, **own_fields(part.extra)}


CAPACITY = Capacity(
    choices=False,
    logprobs=False,
    refusal=False,
    stops=frozenset(("stop", "length", "tool_calls", "filter")),
    words=frozenset(STOP_KINDS),
    media=lambda part: media_block(part) is not None,
    citation=lambda citation: citation_block(citation) is not None,
    server_call=lambda part: call_block(part) is not None,
)
"""What answers of this format have room for."""


def error_object(error: RelayError) -> dict[str, Any]:
    """The `error` of an error answer or of the event that ends a failed stream."""
    kind = ERROR_TYPES.get(error.status, ERROR_TYPES[400] if error.status < 500 else "api_error")
    details = {"error_code": error.code}
    if error.param is not None:
        details["param"] = error.param
    return {"type": kind, "message": error.message, "details": details}
