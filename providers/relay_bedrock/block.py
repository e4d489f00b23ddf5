"""Content blocks of an answer as the hub's parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from relay import kit
from relay.ir import Citation, Media, Opaque, Part, Text, Thinking, ToolCall
from relay_bedrock.citation import citations_of
from relay_bedrock.wire import CLAUDE, DIALECT, Block

__all__ = ["SERVER_TOOL", "owner_of", "parts_of", "tool_call"]

SERVER_TOOL = "server_tool_use"
"""The type of a call that the vendor's own tools answer."""


def owner_of(*, claude: bool) -> str:
    """Who takes a model's reasoning back: Claude's, whoever serves that model."""
    return CLAUDE if claude else DIALECT


def parts_of(blocks: list[Any], *, claude: bool) -> list[Part]:
    """The parts that content blocks are. A block that only cites is about the text before it."""
    parts: list[Part] = []
    for block in blocks:
        if not isinstance(block, dict):
            parts.append(Opaque(DIALECT, block))
            continue
        cited = _bare(block)
        last = parts[-1] if parts else None
        if cited and isinstance(last, Text):
            last.citations = [*(last.citations or ()), *cited]
        else:
            parts.append(_part(block, claude))
    return parts


def tool_call(value: Mapping[str, Any], arguments: str) -> ToolCall | None:
    """A call with these arguments; None if it is no call."""
    call_id, name = value.get("toolUseId"), value.get("name")
    if not isinstance(call_id, str) or not isinstance(name, str):
        return None
    return ToolCall(call_id, name, arguments, server=value.get("type") == SERVER_TOOL)


def _part(block: Block, claude: bool) -> Part:
    for name, read in _READERS.items():
        if name in block:
            part = read(block[name], claude)
            if part is not None:
                return part
    return Opaque(DIALECT, block)


def _bare(block: Block) -> list[Citation]:
    """The citations of a block that has nothing else."""
    value = block.get("citationsContent")
    return citations_of(value.get("citations")) if isinstance(value, dict) and not _words(value) else []


def _words(value: Mapping[str, Any]) -> str:
    content = value.get("content")
    return "".join(
        item["text"]
        for item in (content if isinstance(content, list) else ())
        if isinstance(item, dict) and isinstance(item.get("text"), str)
    )


def _text(value: Any, claude: bool) -> Part | None:
    return Text(value) if isinstance(value, str) else None


def _cited(value: Any, claude: bool) -> Part | None:
    if not isinstance(value, dict):
        return None
    return Text(_words(value), citations=citations_of(value.get("citations")) or None)


def _reasoning(value: Any, claude: bool) -> Part | None:
    if not isinstance(value, dict):
        return None
    hidden, shown = value.get("redactedContent"), value.get("reasoningText")
    if isinstance(hidden, str):
        return Thinking("", signature=hidden, redacted=True, dialect=DIALECT)
    if not isinstance(shown, dict) or not isinstance(shown.get("text"), str):
        return None
    signature = shown.get("signature")
    signature = signature if isinstance(signature, str) and signature else None
    return Thinking(shown["text"], signature=signature, dialect=owner_of(claude=claude))


def _call(value: Any, claude: bool) -> Part | None:
    if not isinstance(value, dict):
        return None
    given = value.get("input")
    return tool_call(value, given if isinstance(given, str) else kit.dumps({} if given is None else given).decode())


def _media(kind: Literal["image", "audio", "video"]) -> Callable[[Any, bool], Part | None]:
    def read(value: Any, claude: bool) -> Part | None:
        source = value.get("source") if isinstance(value, dict) else None
        data = source.get("bytes") if isinstance(source, dict) else None
        return Media(kind, f"{kind}/{value.get('format') or '*'}", data=data) if isinstance(data, str) else None

    return read


_READERS: Mapping[str, Callable[[Any, bool], Part | None]] = {
    "text": _text,
    "citationsContent": _cited,
    "reasoningContent": _reasoning,
    "toolUse": _call,
    "image": _media("image"),
    "audio": _media("audio"),
    "video": _media("video"),
}
"""A block is one of these, by the name of its only field."""
