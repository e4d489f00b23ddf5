"""The raw body of a request: read once, checked only where the relay itself depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from relay.body import read_body, read_model, read_stream
from relay.errors import BadParameter
from relay.fields import fault, integer, items, obj
from relay.kit import estimate_tokens
from relay.outline import MANY, ONE, REST, TEXT, WORD, Field, Texts
from relay_openai.request import MAX_CHOICES, MAX_OUTPUT

__all__ = ["TEXTS", "estimate_input", "max_output", "read_body", "read_choices", "read_model", "read_stream"]

_MEDIA_TOKENS: Mapping[str, int] = {
    "image_url": 1000,
    "input_audio": 1000,
    "video_url": 4000,
    "file": 3000,
    "document_url": 3000,
}
"""Tokens that media count for in a reservation: the usual size of each. Its data says nothing about its tokens."""

_MESSAGE_TOKENS = 4
"""What a message costs beside its text."""
_PART = Field(b"type", WORD, (b"text",)), Field(b"text", TEXT), Field(b"cache_control", REST)
_FUNCTION = Field(b"name", WORD), Field(b"arguments", TEXT)
_CALL = (
    *(Field(name, WORD) for name in (b"id", b"type", b"index")),
    Field(b"function", ONE, _FUNCTION, _MESSAGE_TOKENS),
)
_MESSAGE = (
    *(Field(name, WORD) for name in (b"role", b"tool_call_id", b"name")),
    Field(b"content", TEXT | MANY, _PART),
    Field(b"reasoning_content", TEXT),
    Field(b"refusal", TEXT),
    Field(b"tool_calls", MANY, _CALL),
    Field(b"cache_control", REST),
)
TEXTS = Texts(
    (b"messages",),
    (b"content", b"text", b"reasoning_content", b"refusal"),
    (b"url", b"data", b"file_data"),
    (b"tools",),
    items=(b"messages",),
    plain=_MESSAGE,
)
"""What is left out of a long body: texts that `estimate_input` would count all the same, and the data of media."""
_DEFINED = frozenset(("tools", "functions", "response_format"))
"""What is part of the prompt without being a message."""


def read_choices(data: Mapping[str, Any]) -> int:
    """How many answers the caller wants."""
    value = data.get("n")
    return 1 if value is None else integer(value, "n", 1, MAX_CHOICES)


def max_output(data: Mapping[str, Any]) -> int | None:
    """Tokens that each answer may have: if both names are given the larger, because hosts know one or the other."""
    older, newer = data.get("max_tokens"), data.get("max_completion_tokens")
    if older is not None and not (type(older) is int and 0 < older <= MAX_OUTPUT):
        older = integer(older, "max_tokens", 1, MAX_OUTPUT)
    if newer is None:
        return older
    newer = integer(newer, "max_completion_tokens", 1, MAX_OUTPUT)
    return newer if older is None or newer > older else older


def read_messages(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages, as objects; what is in them is looked at only in translation."""
    value = data.get("messages")
    if value is None:
        raise BadParameter("messages is missing", param="messages")
    messages = items(value, "messages")
    if not messages:
        raise BadParameter("messages must not be empty", param="messages")
    for place, message in enumerate(messages):
        if type(message) is not dict:
            obj(message, f"messages[{place}]")
    return messages


def read_definitions(data: Mapping[str, Any], name: str) -> list[Any]:
    """`tools` or `functions`, as objects; empty if there are none."""
    value = data.get(name)
    if value is None:
        return []
    definitions = items(value, name)
    for place, definition in enumerate(definitions):
        if type(definition) is not dict:
            fault(f"{name}[{place}]", "an object", definition)
    return definitions


def estimate_input(data: Mapping[str, Any], tools: bytes | None = None) -> int:
    """Tokens of the prompt, roughly: its text, a flat number for each piece of media, and the tools' definitions, which
    are `tools` if somebody has written them already."""
    messages = data["messages"]
    total = _MESSAGE_TOKENS * len(messages)
    for message in messages:
        if not message:
            # It was counted when it was left out.
            continue
        content = message.get("content")
        if type(content) is str and (len(message) == 2 or message.get("role") == "tool"):
            # Nothing but a text, as most messages are.
            total += estimate_tokens(content)
            continue
        total += _content(content)
        for name in ("reasoning_content", "refusal"):
            text = message.get(name)
            if isinstance(text, str):
                total += estimate_tokens(text)
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            for call in calls:
                total += _call(call)
    if not _DEFINED.isdisjoint(data):
        for name in _DEFINED:
            if data.get(name):
                total += len(tools if tools is not None and name == "tools" else orjson.dumps(data[name])) // 4
    return total


def _content(content: Any) -> int:
    if type(content) is str:
        return estimate_tokens(content)
    if type(content) is not list:
        return 0
    total = 0
    for part in content:
        if type(part) is not dict:
            continue
        text = part.get("text")
        if type(text) is str:
            total += estimate_tokens(text)
        kind = part.get("type")
        if type(kind) is str and kind in _MEDIA_TOKENS:
            total += _MEDIA_TOKENS[kind]
    return total


def _call(call: Any) -> int:
    body = call.get("function") or call.get("custom") if isinstance(call, dict) else None
    if not isinstance(body, dict):
        return 0
    text = body.get("arguments", body.get("input"))
    return _MESSAGE_TOKENS + (estimate_tokens(text) if isinstance(text, str) else 0)
