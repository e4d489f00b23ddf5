"""Pieces of answers that complete answers and streams spell alike: parts, usage, the reason for the end, errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from relay.errors import RelayError
from relay.ir import Capacity, Extra, Media, Response, StopKind, StopReason, Thinking, ToolCall, Usage
from relay.kit import json_object
from relay_gemini.citation import Cited, grounding, is_shown
from relay_gemini.enums import BLOCK_REASONS, FINISH_REASONS, STOP_KINDS
from relay_gemini.foreign import call_label, thought_label
from relay_gemini.stream import DIALECT

__all__ = [
    "CAPACITY",
    "Thoughts",
    "beside",
    "call_part",
    "ending",
    "error_object",
    "finish_word",
    "logprobs_result",
    "media_part",
    "own_fields",
    "prompt_feedback",
    "thought_part",
    "usage_object",
]

Wire = dict[str, Any]
SOURCES = ("groundingMetadata", "citationMetadata")

FINISH_WORDS: Mapping[StopKind, str] = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "filter": "SAFETY",
    "error": "OTHER",
    "other": "OTHER",
}
"""What clients are told. The vocabulary is closed: a client that checks it would refuse a word of another vendor."""


def own_fields(extra: Extra | None) -> dict[str, Any]:
    """What this dialect put into `extra`; empty if nothing."""
    return (extra or {}).get(DIALECT, {})


# Parts.


class Thoughts:
    """What was thought in one candidate and not yet tied to a function call."""

    __slots__ = ("_called", "_foreign")

    def __init__(self) -> None:
        self._foreign: list[Thinking] = []
        self._called = False

    def add(self, part: Thinking) -> None:
        """Take in a complete thought. Those of this dialect carry their own signatures."""
        if part.dialect != DIALECT:
            self._foreign.append(part)

    def signature(self, part: ToolCall) -> dict[str, Any]:
        """The signature that a call gets: its own, or a label if it is the first one or there are thoughts for it."""
        own = own_fields(part.extra)
        first, self._called = not self._called, True
        if "thoughtSignature" in own or not (first or self._foreign):
            return own
        thoughts, self._foreign = self._foreign, []
        return {**own, "thoughtSignature": call_label(thoughts)}


def thought_part(part: Thinking) -> Wire:
    """A thought that is shown."""
    if part.dialect == DIALECT:
        return {"text": part.text, "thought": True, **own_fields(part.extra)}
    return {"text": part.text, "thought": True, "thoughtSignature": thought_label(part)}


def call_part(part: ToolCall, signature: Mapping[str, Any]) -> Wire:
    """A function call. What the model wrote instead of an object is shown inside of one, not hidden.

    `null` is how some models say that there are no arguments.
    """
    arguments = json_object(part.arguments)
    if arguments is None:
        arguments = {} if part.arguments.strip() == "null" else {"arguments": part.arguments}
    call: Wire = {"name": part.name, "args": arguments}
    if part.id:
        call["id"] = part.id
    return {"functionCall": call, **signature}


def media_part(part: Media) -> Wire | None:
    """A picture or another medium; None for one without content."""
    named = {"displayName": part.name} if part.name else {}
    if part.data is not None:
        blob = {"mimeType": part.media_type or "application/octet-stream", "data": part.data, **named}
        return {"inlineData": blob, **own_fields(part.extra)}
    place = part.url or part.file_id
    if place is None:
        return None
    typed = {"mimeType": part.media_type} if part.media_type else {}
    return {"fileData": {"fileUri": place, **typed, **named}, **own_fields(part.extra)}


# How a candidate ends.


def finish_word(stop: StopReason | None, *, refused: bool) -> str:
    """The `finishReason`. This vendor's own word stays as it is.

    An answer that is complete has one even if the upstream gave none: without it, clients take a stream for broken off.
    """
    if stop is None:
        return "SAFETY" if refused else "STOP"
    raw = stop.raw
    if raw in FINISH_REASONS and STOP_KINDS.get(raw, "other") in (
        stop.kind,
        "stop" if stop.kind == "tool_calls" else "",
    ):
        return raw
    if refused and stop.kind in ("stop", "other"):
        return "SAFETY"
    return FINISH_WORDS[stop.kind]


def prompt_feedback(stop: StopReason | None, extra: Extra | None, *, silent: bool) -> Wire | None:
    """What is said in place of a candidate whose prompt was blocked; None if there is a candidate to show.

    `silent`: it had no content. Another vendor's filter that let nothing at all through is told the same way.
    """
    feedback = own_fields(extra).get("promptFeedback")
    if isinstance(feedback, dict):
        return feedback
    if silent and stop is not None and stop.kind == "filter" and stop.raw not in FINISH_REASONS:
        return {"blockReason": stop.raw if stop.raw in BLOCK_REASONS else "SAFETY"}
    return None


def ending(stop: StopReason | None, extra: Extra | None, texts: Iterable[Cited], *, refused: bool) -> Wire:
    """The fields of a candidate that tell how it ended, and on what its texts rest."""
    fields: Wire = {"finishReason": finish_word(stop, refused=refused), **own_fields(extra)}
    # What the vendor itself said of that is among its own.
    if fields.keys().isdisjoint(SOURCES) and (grounded := grounding(texts)) is not None:
        fields["groundingMetadata"] = grounded
    return fields


CAPACITY = Capacity(
    refusal=False,
    stops=frozenset(("stop", "length", "tool_calls", "filter")),
    words=FINISH_REASONS,
    sequence=False,
    media=lambda part: media_part(part) is not None,
    citation=is_shown,
    server_call=lambda part: False,
)
"""What answers of this format have room for."""


# Beside the candidates.


def beside(response: Response, *, model: str, new_id: str) -> Wire:
    """The fields of an answer that stand beside its candidates. `model` and `new_id` stand in for what is missing."""
    fields: Wire = {"modelVersion": response.model or model, "responseId": response.id or new_id}
    if (created := _moment(response.created)) is not None:
        fields["createTime"] = created
    return {**fields, **own_fields(response.extra)}


def _moment(seconds: int | None) -> str | None:
    """The time as the vendor writes it. Some hosts count milliseconds, which makes a time beyond all calendars."""
    if seconds is None:
        return None
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return None


def usage_object(usage: Usage | None) -> Wire | None:
    """`usageMetadata`, where thinking is counted beside the answer; None if nothing is known."""
    if usage is None:
        return None
    fields: Wire = {}
    made = usage.output
    # Some hosts count more for thinking than for all that the model wrote.
    thoughts = usage.reasoning if usage.reasoning is None or made is None else min(usage.reasoning, made)
    if usage.input is not None:
        fields["promptTokenCount"] = usage.input
    if made is not None:
        fields["candidatesTokenCount"] = made - (thoughts or 0)
        fields["totalTokenCount"] = made + (usage.input or 0)
    for name, count in (("cachedContentTokenCount", usage.cache_read), ("thoughtsTokenCount", thoughts)):
        if count is not None:
            fields[name] = count
    for name, heard in (("promptTokensDetails", usage.audio_in), ("candidatesTokensDetails", usage.audio_out)):
        if heard is not None:
            fields[name] = [{"modality": "AUDIO", "tokenCount": heard}]
    return fields or None


def logprobs_result(content: Sequence[Any]) -> Wire | None:
    """`logprobsResult` for token objects in the hub's shape; None if there are none."""
    tokens = [entry for entry in content if isinstance(entry, dict) and isinstance(entry.get("token"), str)]
    if not tokens:
        return None
    return {
        "chosenCandidates": [_token(entry) for entry in tokens],
        "topCandidates": [{"candidates": [_token(top) for top in entry.get("top_logprobs") or ()]} for entry in tokens],
    }


def _token(entry: Mapping[str, Any]) -> Wire:
    return {"token": entry["token"], "logProbability": entry.get("logprob")}


# Errors.

STATUSES: Mapping[int, str] = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""The vendor's word for each status; other statuses have that of 400, or of a fault of the server's."""

_TYPE = "type.googleapis.com/google.rpc."
DOMAIN = "i8relay"


def error_object(error: RelayError, request_id: str = "") -> Wire:
    """The `error` of an error answer or of the last event of a failed stream, with what the relay knows of it."""
    word = STATUSES.get(error.status, STATUSES[400] if error.status < 500 else "INTERNAL")
    details: list[Wire] = [{"@type": f"{_TYPE}ErrorInfo", "reason": error.code.upper(), "domain": DOMAIN}]
    if error.param is not None:
        violation = {"field": error.param, "description": error.message}
        details.append({"@type": f"{_TYPE}BadRequest", "fieldViolations": [violation]})
    if error.retry_after is not None:
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{max(1, math.ceil(error.retry_after))}s"})
    if request_id:
        details.append({"@type": f"{_TYPE}RequestInfo", "requestId": request_id})
    return {"code": error.status, "message": error.message, "status": word, "details": details}
