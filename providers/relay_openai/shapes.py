"""Pieces of messages that complete answers and streamed ones spell alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from relay.ir import Capacity, Citation, Media, Thinking, ToolCall
from relay.kit import data_url
from relay_openai.custom import CUSTOM, input_of
from relay_openai.wire import DIALECT, RELAY_FORMAT, own_fields

__all__ = [
    "CAPACITY",
    "annotation",
    "citation_of",
    "citations_shown",
    "audio_object",
    "call_object",
    "image_object",
    "thinking_details",
]


def call_object(part: ToolCall, arguments: str, customs: frozenset[str] = frozenset()) -> dict[str, Any]:
    """An entry of `tool_calls`. `customs` are the caller's custom tools."""
    extra = dict(own_fields(part.extra))
    if extra.pop("type", None) == CUSTOM or part.name in customs:
        return {"id": part.id, "type": CUSTOM, CUSTOM: {"name": part.name, "input": input_of(arguments)}, **extra}
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": arguments}, **extra}


def annotation(citation: Citation, start: int, end: int) -> dict[str, Any] | None:
    """A citation as a `url_citation`; None for one that names no URL, for which there is no form.

    `start` and `end` are where in the message's content the text stands that it belongs to.
    """
    own = own_fields(citation.extra)
    if own:
        return own
    if not citation.url:
        return None
    fields = {
        "url": citation.url,
        "title": citation.title or "",
        "start_index": start + citation.start if citation.start is not None else start,
        "end_index": min(start + citation.end, end) if citation.end is not None else end,
    }
    return {"type": "url_citation", "url_citation": fields}


def citation_of(value: Any) -> Citation:
    """What an annotation of this format cites. Hosts that do not know for which words say so by an empty range."""
    if not isinstance(value, dict):
        return Citation()
    nested = value.get("url_citation")
    fields = nested if isinstance(nested, dict) else value
    url, title, start, end = (fields.get(name) for name in ("url", "title", "start_index", "end_index"))
    known = type(start) is int and type(end) is int and 0 <= start < end
    return Citation(
        url if isinstance(url, str) and url else None,
        title if isinstance(title, str) and title else None,
        start=start if known else None,
        end=end if known else None,
        extra={DIALECT: value},
    )


CAPACITY = Capacity(
    stops=frozenset(("stop", "length", "tool_calls", "filter", "error")),
    sequence=False,
    media=lambda part: part.kind == "audio" or (part.kind == "image" and image_object(part, 0) is not None),
    citation=lambda citation: annotation(citation, 0, 0) is not None,
    server_call=lambda part: False,
)
"""What answers of this format have room for."""


def citations_shown(citations: Iterable[Citation], start: int, end: int) -> list[dict[str, Any]]:
    """Those citations of a text that can be shown; the text stands there in the message's content."""
    return [shown for citation in citations if (shown := annotation(citation, start, end)) is not None]


def thinking_details(part: Thinking, text: str, signature: str | None, index: int) -> list[dict[str, Any]]:
    """`reasoning_details` of one block: what has to come back unchanged if the client replays the conversation.

    Reasoning of this dialect brought its own. Of another dialect, a block with a signature is written so that the
    relay knows it again (`RELAY_FORMAT`); one without a signature is only text and needs no entry.
    """
    own = own_fields(part.extra).get("reasoning_details")
    if isinstance(own, list):
        return own
    if signature is None and not part.redacted:
        return []
    form = RELAY_FORMAT + (part.dialect or DIALECT)
    if part.redacted:
        return [{"type": "reasoning.encrypted", "data": signature or "", "format": form, "index": index}]
    return [{"type": "reasoning.text", "text": text, "signature": signature, "format": form, "index": index}]


def image_object(part: Media, index: int) -> dict[str, Any] | None:
    """An entry of `images`, the field in which gateways of this format return pictures; None without any."""
    url = part.url or (data_url(part.media_type or "image/png", part.data) if part.data else None)
    return {"type": "image_url", "image_url": {"url": url}, "index": index} if url else None


def audio_object(part: Media) -> dict[str, Any]:
    """The `audio` of a message."""
    fields = own_fields(part.extra)
    return {
        "id": fields.get("id") or "audio",
        "data": part.data or "",
        "expires_at": fields.get("expires_at") or 0,
        "transcript": fields.get("transcript") or "",
    }
