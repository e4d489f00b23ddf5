"""Messages of a caller's request to the hub's turns, one each; content blocks to its parts."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from relay.errors import BadParameter
from relay.fields import boolean, fault, items, obj, rest, text, word
from relay.ir import Cache, Extra, Media, Message, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from relay.kit import dumps
from relay_anthropic.block import DIALECT
from relay_anthropic.citation import citation_of
from relay_anthropic.foreign import is_labelled, thinking_of

__all__ = ["cache_of", "own_rest", "parse_system", "parse_turns"]

Fields = dict[str, Any]
ROLES = ("user", "assistant", "system")
# The fields of each that the hub has names for.
_TURN = frozenset(("role", "content"))
_TEXT = frozenset(("type", "text", "citations", "cache_control"))
_IMAGE = frozenset(("type", "source", "cache_control"))
_DOCUMENT = _IMAGE | {"title"}
_TOOL_USE = frozenset(("type", "id", "name", "input", "cache_control"))
_TOOL_RESULT = frozenset(("type", "tool_use_id", "content", "is_error", "cache_control"))
_THINKING = frozenset(("type", "thinking", "signature"))
_REDACTED = frozenset(("type", "data"))


def parse_system(value: Any) -> list[Message]:
    """`system`, a string or a list of blocks, as the conversation's first message; none if it holds nothing."""
    parts = _content(value, "system")
    return [Message("system", parts)] if parts else []


def parse_turns(value: Any) -> list[Message]:
    """`messages`. Raises BadParameter with the path of the first fault."""
    return [_turn(item, f"messages[{place}]") for place, item in enumerate(items(value, "messages"))]


def _turn(value: Any, path: str) -> Message:
    fields = obj(value, path)
    role = text(fields.get("role"), f"{path}.role")
    if role not in ROLES:
        raise BadParameter(f"{path}.role must be one of {', '.join(ROLES)}", param=f"{path}.role")
    if fields.get("content") is None:
        raise BadParameter(f"{path}.content is missing", param=f"{path}.content")
    parts = _content(fields["content"], f"{path}.content")
    extra = own_rest(fields, _TURN)
    if role == "system":
        return Message("system", parts, extra=extra)
    return Message("user" if role == "user" else "assistant", parts, extra=extra)


def _content(value: Any, path: str) -> list[Part]:
    if isinstance(value, str):
        return [Text(value)]
    if not isinstance(value, list):
        fault(path, "a string or an array of blocks", value)
    return [_part(item, f"{path}[{place}]") for place, item in enumerate(value)]


def _part(value: Any, path: str) -> Part:
    """One block. What the hub has no part for is carried as it stands: tools that run upstream, search results."""
    fields = obj(value, path)
    read = _KINDS.get(text(fields.get("type"), f"{path}.type"))
    part = None if read is None else read(fields, path)
    return Opaque(DIALECT, fields) if part is None else part


def cache_of(fields: Fields, path: str) -> Cache | None:
    """The cache marker of a block or a tool."""
    value = fields.get("cache_control")
    if value is None:
        return None
    ttl = obj(value, f"{path}.cache_control").get("ttl")
    return Cache(None if ttl is None else text(ttl, f"{path}.cache_control.ttl"))


def own_rest(fields: Fields, known: frozenset[str]) -> Extra | None:
    """The fields that the hub has no name for."""
    own = rest(fields, known)
    return {DIALECT: own} if own else None


def _text(fields: Fields, path: str) -> Part:
    citations = fields.get("citations")
    cited = [] if citations is None else items(citations, f"{path}.citations")
    return Text(
        text(fields.get("text"), f"{path}.text"),
        citations=[citation_of(one) for one in cited] or None,
        cache=cache_of(fields, path),
        extra=own_rest(fields, _TEXT),
    )


# Media.


def _source(fields: Fields, path: str) -> tuple[str, Fields]:
    source = obj(fields.get("source"), f"{path}.source")
    return text(source.get("type"), f"{path}.source.type"), source


def _located(media: Media, kind: str, source: Fields, path: str) -> Media | None:
    """`media` with its content or the place of it; None for a source of another kind."""
    if kind == "base64":
        media.media_type = word(source.get("media_type"), f"{path}.source.media_type")
        media.data = word(source.get("data"), f"{path}.source.data")
    elif kind == "url":
        media.url = word(source.get("url"), f"{path}.source.url")
    elif kind == "file":
        media.file_id = word(source.get("file_id"), f"{path}.source.file_id")
    else:
        return None
    return media


def _image(fields: Fields, path: str) -> Part | None:
    kind, source = _source(fields, path)
    extra = own_rest(fields, _IMAGE)
    return _located(Media("image", cache=cache_of(fields, path), extra=extra), kind, source, path)


def _document(fields: Fields, path: str) -> Part | None:
    kind, source = _source(fields, path)
    title = fields.get("title")
    media = Media(
        "document",
        name=None if title is None else text(title, f"{path}.title"),
        cache=cache_of(fields, path),
        extra=own_rest(fields, _DOCUMENT),
    )
    if kind == "text":
        media.media_type = "text/plain"
        plain = text(source.get("data"), f"{path}.source.data")
        media.data = base64.b64encode(plain.encode("utf-8", "replace")).decode("ascii")
        return media
    return _located(media, kind, source, path)


# Tools.


def _tool_use(fields: Fields, path: str) -> Part:
    return ToolCall(
        word(fields.get("id"), f"{path}.id"),
        word(fields.get("name"), f"{path}.name"),
        dumps(obj(fields.get("input"), f"{path}.input")).decode(),
        cache=cache_of(fields, path),
        extra=own_rest(fields, _TOOL_USE),
    )


def _tool_result(fields: Fields, path: str) -> Part:
    content = fields.get("content")
    is_error = fields.get("is_error")
    return ToolResult(
        word(fields.get("tool_use_id"), f"{path}.tool_use_id"),
        [] if content is None else _content(content, f"{path}.content"),
        is_error=False if is_error is None else boolean(is_error, f"{path}.is_error"),
        cache=cache_of(fields, path),
        extra=own_rest(fields, _TOOL_RESULT),
    )


# Reasoning.


def _thinking(fields: Fields, path: str) -> Part:
    shown = text(fields.get("thinking"), f"{path}.thinking")
    signature = fields.get("signature")
    signature = None if signature is None else text(signature, f"{path}.signature")
    if signature is not None and is_labelled(signature):
        return thinking_of(shown, signature, redacted=False)
    extra = own_rest(fields, _THINKING)
    return Thinking(shown, signature=signature or None, dialect=DIALECT, extra=extra)


def _redacted(fields: Fields, path: str) -> Part:
    data = text(fields.get("data"), f"{path}.data")
    if is_labelled(data):
        return thinking_of("", data, redacted=True)
    return Thinking("", signature=data, redacted=True, dialect=DIALECT, extra=own_rest(fields, _REDACTED))


_KINDS: dict[str, Callable[[Fields, str], Part | None]] = {
    "text": _text,
    "image": _image,
    "document": _document,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
}
