"""What the core must know of a caller's request before any translation, read from the body without the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from relay.errors import BadParameter
from relay.fields import fault, header, integer, items, obj
from relay.kit import estimate_tokens
from relay.outline import DATA, MANY, REST, TEXT, WORD, Field, Texts
from relay_anthropic.caller import MAX_OUTPUT
from relay_anthropic.endpoint import VERSIONING
from relay_anthropic.wire import LABEL

__all__ = ["TEXTS", "caller_headers", "check_messages", "estimate_input", "has_definitions", "read_limit"]

_MEDIA_TOKENS: Mapping[str, int] = {"image": 1500, "document": 3000}
"""Tokens that media count for in an estimate: the usual size of each. Its data says nothing about its tokens."""
_MESSAGE_TOKENS = 4
"""What a message costs beside its text."""
_RESULT = Field(b"type", WORD, (b"text",)), Field(b"text", TEXT), Field(b"cache_control", REST)
_BLOCK = (
    Field(b"type", WORD, (b"text", b"thinking", b"tool_use", b"server_tool_use", b"tool_result")),
    *(Field(name, TEXT) for name in (b"text", b"thinking")),
    *(Field(name, WORD) for name in (b"signature", b"id", b"name", b"tool_use_id", b"is_error")),
    Field(b"input", DATA, (), _MESSAGE_TOKENS),
    Field(b"content", TEXT | MANY, _RESULT),
    Field(b"cache_control", REST),
)
TEXTS = Texts(
    (b"messages", b"system"),
    (b"content", b"text", b"thinking", b"system"),
    (b"signature", b"data"),
    (b"tools",),
    (LABEL.encode(),),
    items=(b"messages",),
    plain=(Field(b"role", WORD), Field(b"content", TEXT | MANY, _BLOCK)),
)
"""What is left out of a long body: texts that `estimate_input` would count all the same, and what it never counts."""


def read_limit(data: Mapping[str, Any]) -> int:
    """Output tokens that the caller allows; this format requires the number."""
    if data.get("max_tokens") is None:
        raise BadParameter("max_tokens is missing", param="max_tokens")
    return integer(data["max_tokens"], "max_tokens", 1, MAX_OUTPUT)


def check_messages(data: Mapping[str, Any]) -> None:
    """The messages are objects; what is in them is looked at only in translation."""
    if data.get("messages") is None:
        raise BadParameter("messages is missing", param="messages")
    messages = items(data["messages"], "messages")
    if not messages:
        raise BadParameter("messages must not be empty", param="messages")
    for place, message in enumerate(messages):
        if type(message) is not dict:
            obj(message, f"messages[{place}]")


def has_definitions(data: Mapping[str, Any]) -> bool:
    """Whether there are tools. They must be objects."""
    if data.get("tools") is None:
        return False
    tools = items(data["tools"], "tools")
    for place, tool in enumerate(tools):
        if type(tool) is not dict:
            fault(f"tools[{place}]", "an object", tool)
    return bool(tools)


def caller_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The caller's choice of API version and of beta features: all that reaches an upstream. Raises BadParameter."""
    return {name: header(headers[name], name) for name in VERSIONING if name in headers}


def estimate_input(data: Mapping[str, Any], tools: bytes | None = None) -> int:
    """Tokens of the prompt, roughly: its text, a flat number for each piece of media, and the tools' definitions, which
    are `tools` if somebody has written them already."""
    messages = data["messages"]
    total = _content(data.get("system")) + _MESSAGE_TOKENS * len(messages)
    for message in messages:
        # An empty one was counted when it was left out.
        if message:
            total += _content(message.get("content"))
    if data.get("tools"):
        total += len(orjson.dumps(data["tools"]) if tools is None else tools) // 4
    config = data.get("output_config")
    if isinstance(config, dict) and config.get("format"):
        total += len(orjson.dumps(config["format"])) // 4
    return total


def _content(content: Any) -> int:
    if type(content) is str:
        return estimate_tokens(content)
    if type(content) is not list:
        return 0
    total = 0
    for block in content:
        if type(block) is not dict:
            continue
        # The blocks of which an agent's conversation is made; this runs for each of them in every turn.
        kind = block.get("type")
        if kind == "text":
            text = block.get("text")
            total += estimate_tokens(text) if type(text) is str else 0
        elif kind == "tool_result":
            total += _content(block.get("content"))
        elif kind == "tool_use":
            total += _MESSAGE_TOKENS + len(orjson.dumps(block.get("input"))) // 4
        else:
            total += _other(block)
    return total


def _other(block: Mapping[str, Any]) -> int:
    """Any other block: whatever text it has, wherever, and the input of a tool."""
    total = 0
    for name in ("text", "thinking", "title", "context"):
        value = block.get(name)
        if isinstance(value, str):
            total += estimate_tokens(value)
    kind, source = block.get("type"), block.get("source")
    if isinstance(source, dict) and source.get("type") in ("text", "content"):
        total += _content(source.get("data")) + _content(source.get("content"))
    elif isinstance(kind, str):
        total += _MEDIA_TOKENS.get(kind, 0)
    if isinstance(block.get("input"), dict):
        total += _MESSAGE_TOKENS + len(orjson.dumps(block["input"])) // 4
    return total + _content(block.get("content"))
