"""The raw body of a request: what the core must know before any translation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.errors import BadParameter
from relay.fields import fault, integer, items, obj
from relay.kit import dumps, estimate_tokens
from relay.outline import MANY, REST, TEXT, WORD, Field, Texts
from relay_openai.request import MAX_OUTPUT

__all__ = ["TEXTS", "check_input", "estimate_input", "max_output", "read_tools"]

_MEDIA_TOKENS: Mapping[str, int] = {"input_image": 1000, "input_audio": 1000, "input_file": 3000}
"""Tokens that media count for in a reservation: the usual size of each. Its data says nothing about its tokens."""

_PART = (
    Field(b"type", WORD, (b"input_text", b"output_text", b"summary_text", b"reasoning_text", b"text")),
    Field(b"text", TEXT),
    *(Field(name, REST) for name in (b"annotations", b"logprobs")),
)
_CALLS = b"function_call", b"custom_tool_call"
_KINDS = (b"message", b"reasoning", *_CALLS, *(kind + b"_output" for kind in _CALLS))
"""Items that refer to nothing else, nor bring tools."""
TEXTS = Texts(
    (b"input", b"instructions"),
    (b"text", b"content", b"output", b"arguments", b"input", b"instructions"),
    (b"encrypted_content", b"image_url", b"file_data", b"data"),
    (b"tools",),
    items=(b"input",),
    plain=(
        Field(b"type", WORD, _KINDS),
        *(Field(name, WORD) for name in (b"role", b"id", b"call_id", b"status", b"phase", b"encrypted_content")),
        *(Field(name, TEXT) for name in (b"name", b"arguments", b"input")),
        *(Field(name, TEXT | MANY, _PART) for name in (b"content", b"output")),
        Field(b"summary", MANY, _PART),
    ),
)
"""What is left out of a long body: texts that `estimate_input` would count all the same, and what it never counts."""
_ITEM_TOKENS = 4
"""What an item costs beside its text."""
_STORED = ("previous_response_id", "conversation", "prompt")
"""Fields that bring an input of their own."""


def check_input(data: Mapping[str, Any]) -> None:
    """The input is there, and is a string or a list of objects; what is in them is looked at only in translation."""
    value = data.get("input")
    if value is None:
        if all(data.get(name) is None for name in _STORED):
            raise BadParameter("input is missing", param="input")
        return
    if isinstance(value, str):
        return
    if not isinstance(value, list):
        fault("input", "a string or an array", value)
    for place, item in enumerate(value):
        if type(item) is not dict:
            obj(item, f"input[{place}]")


def max_output(data: Mapping[str, Any]) -> int | None:
    """Tokens that the answer may have."""
    value = data.get("max_output_tokens")
    return None if value is None else integer(value, "max_output_tokens", 1, MAX_OUTPUT)


def read_tools(data: Mapping[str, Any]) -> list[Any]:
    """`tools`, as objects; empty if there are none."""
    value = data.get("tools")
    if value is None:
        return []
    for place, item in enumerate(items(value, "tools")):
        obj(item, f"tools[{place}]")
    return items(value, "tools")


def estimate_input(data: Mapping[str, Any], tools: bytes | None = None) -> int:
    """Tokens of the prompt, roughly: its text, a flat number for each piece of media, and the tools' definitions, which
    are `tools` if somebody has written them already."""
    value = data.get("input")
    total = 0
    if isinstance(value, str):
        total += _ITEM_TOKENS + estimate_tokens(value)
    elif isinstance(value, list):
        total += _ITEM_TOKENS * len(value)
        for item in value:
            # An empty one was counted when it was left out.
            if item:
                total += _item(item)
    instructions = data.get("instructions")
    if isinstance(instructions, str):
        total += _ITEM_TOKENS + estimate_tokens(instructions)
    for name in ("tools", "text"):
        if data.get(name):
            total += len(tools if tools is not None and name == "tools" else dumps(data[name])) // 4
    return total


def _item(item: Mapping[str, Any]) -> int:
    """Encrypted reasoning is not counted: it is several times as long as what is in it."""
    total = 0
    for name, value in item.items():
        # There are few in an item, and this runs for each item of every turn of an agent.
        if type(value) is str:
            if name in _WORDS:
                total += estimate_tokens(value)
        elif type(value) is list and name in _CONTENT:
            total += _content(value)
    return total


_CONTENT = frozenset(("content", "output", "summary"))
"""Fields of an item with text, or with parts that have some."""
_WORDS = _CONTENT | {"arguments", "input", "name"}
"""Fields with text."""


def _content(content: list[Any]) -> int:
    total = 0
    for part in content:
        if type(part) is dict:
            text = part.get("text")
            total += estimate_tokens(text) if type(text) is str else 0
            kind = part.get("type")
            if type(kind) is str and kind in _MEDIA_TOKENS:
                total += _MEDIA_TOKENS[kind]
    return total
