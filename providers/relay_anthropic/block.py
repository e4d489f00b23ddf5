"""Content blocks of an answer as the hub's parts: the one place that both complete and streamed answers read from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay import kit
from relay.fields import rest
from relay.ir import Extra, Opaque, Part, Text, Thinking, ToolCall
from relay_anthropic.citation import citation_of
from relay_anthropic.wire import DIALECT

__all__ = ["DIALECT", "part_of"]


def part_of(block: dict[str, Any]) -> Part:
    """The part that a content block is. A block of an unknown type, or a broken one, is carried as it stands."""
    reader = _READERS.get(str(block.get("type")))
    part = reader(block) if reader is not None else None
    return Opaque(DIALECT, block) if part is None else part


def _rest(block: dict[str, Any], *known: str) -> Extra | None:
    """The fields of a block that the hub has no name for."""
    own = rest(block, frozenset(known))
    return {DIALECT: own} if own else None


def _text(block: dict[str, Any]) -> Part | None:
    text = block.get("text")
    if not isinstance(text, str):
        return None
    citations = block.get("citations")
    return Text(
        text,
        citations=[citation_of(one) for one in citations] if isinstance(citations, list) and citations else None,
        extra=_rest(block, "type", "text", "citations"),
    )


def _thinking(block: dict[str, Any]) -> Part | None:
    text = block.get("thinking")
    if not isinstance(text, str):
        return None
    signature = block.get("signature")
    return Thinking(
        text,
        signature=signature if isinstance(signature, str) and signature else None,
        dialect=DIALECT,
        extra=_rest(block, "type", "thinking", "signature"),
    )


def _redacted(block: dict[str, Any]) -> Part | None:
    data = block.get("data")
    if not isinstance(data, str):
        return None
    return Thinking("", signature=data, redacted=True, dialect=DIALECT, extra=_rest(block, "type", "data"))


def _tool(block: dict[str, Any]) -> Part | None:
    return _call(block, False, _rest(block, "type", "id", "name", "input"))


def _server_tool(block: dict[str, Any]) -> Part | None:
    # The type stays: it is what tells, on the way back, whose tool this was.
    return _call(block, True, _rest(block, "id", "name", "input"))


def _call(block: dict[str, Any], server: bool, extra: Extra | None) -> ToolCall | None:
    call_id, name, value = block.get("id"), block.get("name"), block.get("input")
    if not isinstance(call_id, str) or not isinstance(name, str):
        return None
    arguments = value if isinstance(value, str) else kit.dumps({} if value is None else value).decode()
    return ToolCall(call_id, name, arguments or "{}", server=server, extra=extra)


_READERS: dict[str, Callable[[dict[str, Any]], Part | None]] = {
    "text": _text,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
    "tool_use": _tool,
    "server_tool_use": _server_tool,
    "mcp_tool_use": _server_tool,
}
