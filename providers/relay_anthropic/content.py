"""The hub's parts as content blocks of a request."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Callable
from typing import Any

from relay import kit
from relay.errors import BadParameter, Unsupported
from relay.ir import Cache, Media, Opaque, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from relay_anthropic.block import DIALECT
from relay_anthropic.losses import BLOCK, CITATIONS, DETAIL, RAW_ARGUMENTS, SERVER_CALL, THINKING, UNSIGNED

__all__ = ["blocks_of", "cached", "tool_id"]

Block = dict[str, Any]

_ID = re.compile(r"[a-zA-Z0-9_-]+", re.ASCII)
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_-]", re.ASCII)


def tool_id(call_id: str) -> str:
    """`call_id` in the alphabet that the vendor accepts: itself if it can be, else a stable name of its own."""
    if _ID.fullmatch(call_id):
        return call_id
    return f"toolu_{_FORBIDDEN.sub('_', call_id)[:40]}_{zlib.crc32(call_id.encode('utf-8', 'surrogatepass')):08x}"


def cached(block: Block, cache: Cache | None) -> Block:
    """`block` with the caller's cache marker on it, if there is one."""
    if cache is not None:
        block["cache_control"] = {"type": "ephemeral"} if cache.ttl is None else {"type": "ephemeral", "ttl": cache.ttl}
    return block


def blocks_of(parts: list[Part], where: str, losses: kit.Losses) -> list[Block]:
    """The blocks for one turn's parts. `where` is the turn's path, for errors and losses.

    Raises Unsupported for media that no model of this vendor takes.
    """
    blocks = []
    for part in parts:
        block = _WRITERS[type(part)](part, where, losses)
        if block is None:
            continue
        own = (part.extra or {}).get(DIALECT)
        if own and not isinstance(part, Opaque):
            block.update(own)
        blocks.append(cached(block, part.cache))
    return blocks


def _text(part: Text, where: str, losses: kit.Losses) -> Block | None:
    # Empty and blank text blocks are refused; they say nothing, so nothing is lost without them.
    if not part.text.strip():
        return None
    block: Block = {"type": "text", "text": part.text}
    if part.citations:
        # Another vendor's are not written: this one would look for what it has never found.
        own = [item.extra[DIALECT] for item in part.citations if item.extra is not None and DIALECT in item.extra]
        if own:
            block["citations"] = own
        if len(own) < len(part.citations):
            losses.add(CITATIONS, where=where)
    return block


def _refusal(part: Refusal, where: str, losses: kit.Losses) -> Block | None:
    return {"type": "text", "text": part.text} if part.text.strip() else None


def _thinking(part: Thinking, where: str, losses: kit.Losses) -> Block | None:
    if part.dialect != DIALECT:
        losses.add(THINKING, where=where)
        return None
    if part.signature is None:
        losses.add(UNSIGNED, where=where)
        return None
    if part.redacted:
        return {"type": "redacted_thinking", "data": part.signature}
    return {"type": "thinking", "thinking": part.text, "signature": part.signature}


def _call(part: ToolCall, where: str, losses: kit.Losses) -> Block | None:
    kind = "tool_use"
    if part.server:
        if DIALECT not in (part.extra or {}):
            losses.add(SERVER_CALL, where=where)
            return None
        kind = "server_tool_use"
    arguments = kit.json_object(part.arguments)
    if arguments is None:
        losses.add(RAW_ARGUMENTS, where=where)
        arguments = {"arguments": part.arguments}
    return {"type": kind, "id": tool_id(part.id), "name": part.name, "input": arguments}


def _result(part: ToolResult, where: str, losses: kit.Losses) -> Block | None:
    block: Block = {"type": "tool_result", "tool_use_id": tool_id(part.call_id)}
    content = blocks_of(part.parts, where, losses)
    if content:
        plain = len(content) == 1 and content[0].keys() == {"type", "text"}
        block["content"] = content[0]["text"] if plain else content
    if part.is_error:
        block["is_error"] = True
    return block


def _opaque(part: Opaque, where: str, losses: kit.Losses) -> Block | None:
    if part.dialect == DIALECT and isinstance(part.data, dict):
        return dict(part.data)
    losses.add(BLOCK, where=where, dialect=part.dialect)
    return None


def _media(part: Media, where: str, losses: kit.Losses) -> Block | None:
    writer = _MEDIA.get(part.kind)
    if writer is None:
        raise Unsupported(f"this upstream's models take no {part.kind}", param=f"{where}.content")
    if part.detail not in (None, "auto"):
        losses.add(DETAIL, where=where)
    return writer(part, where)


def _image(part: Media, where: str) -> Block:
    data, media_type, source = _source(part, where)
    if source is None:
        source = {"type": "base64", "media_type": kit.media_type_of(data) or media_type or "image/png", "data": data}
    return {"type": "image", "source": source}


def _document(part: Media, where: str) -> Block:
    data, media_type, source = _source(part, where)
    if source is None:
        media_type = media_type or kit.media_type_of(data) or "application/pdf"
        if media_type == "application/pdf":
            source = {"type": "base64", "media_type": media_type, "data": data}
        elif media_type.startswith("text/") or media_type in TEXT_TYPES:
            source = {"type": "text", "media_type": "text/plain", "data": _decoded(data, where)}
        else:
            message = f"this upstream's models take PDF and text documents, not {media_type}"
            raise Unsupported(message, param=f"{where}.content")
    block: Block = {"type": "document", "source": source}
    if part.name:
        block["title"] = part.name
    return block


TEXT_TYPES = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})
"""Media types that are text although they do not say so."""

FILE_PREFIX = "file_"
"""How this vendor's file ids begin. Another vendor's file cannot be reached from here."""


def _source(part: Media, where: str) -> tuple[str, str | None, Block | None]:
    """Base64 text and its media type, or else a finished source that names where the content is."""
    if part.file_id is not None:
        if not part.file_id.startswith(FILE_PREFIX):
            raise Unsupported(
                f"file {part.file_id!r} lives at another vendor; send its content instead", param=f"{where}.content"
            )
        return "", None, {"type": "file", "file_id": part.file_id}
    if part.url is None:
        return part.data or "", part.media_type, None
    try:
        inline = kit.parse_data_url(part.url)
    except ValueError as error:
        raise BadParameter(str(error), param=f"{where}.content") from None
    if inline is None:
        return "", None, {"type": "url", "url": part.url}
    return inline[1], inline[0], None


def _decoded(data: str, where: str) -> str:
    try:
        return base64.b64decode(data, validate=False).decode("utf-8")
    except (binascii.Error, ValueError):
        raise BadParameter("a text document must be base64 of UTF-8", param=f"{where}.content") from None


_MEDIA: dict[str, Callable[[Media, str], Block]] = {"image": _image, "document": _document}

_WRITERS: dict[type[Any], Callable[[Any, str, kit.Losses], Block | None]] = {
    Text: _text,
    Refusal: _refusal,
    Thinking: _thinking,
    ToolCall: _call,
    ToolResult: _result,
    Opaque: _opaque,
    Media: _media,
}
