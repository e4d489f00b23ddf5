"""The raw body of a request: what the core must know before any translation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.errors import BadParameter
from relay.fields import fault, integer, items, obj
from relay.kit import dumps, estimate_tokens
from relay_openai.request import MAX_OUTPUT

__all__ = ["check_input", "estimate_input", "max_output", "read_tools"]

_MEDIA_TOKENS: Mapping[str, int] = {"input_image": 1000, "input_audio": 1000, "input_file": 3000}
"""Tokens that media count for in a reservation: the usual size of each. Its data says nothing about its tokens."""

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


def estimate_input(data: Mapping[str, Any]) -> int:
    """Tokens of the prompt, roughly: its text, a flat number for each piece of media, and the tools' definitions."""
    value = data.get("input")
    total = 0
    if isinstance(value, str):
        total += _ITEM_TOKENS + estimate_tokens(value)
    elif isinstance(value, list):
        total += sum(_item(item) for item in value)
    instructions = data.get("instructions")
    if isinstance(instructions, str):
        total += _ITEM_TOKENS + estimate_tokens(instructions)
    for name in ("tools", "text"):
        if data.get(name):
            total += len(dumps(data[name])) // 4
    return total


def _item(item: Mapping[str, Any]) -> int:
    """Encrypted reasoning is not counted: it is several times as long as what is in it."""
    total = _ITEM_TOKENS
    for name in ("content", "output", "summary"):
        total += _content(item.get(name))
    for name in ("arguments", "input", "name"):
        value = item.get(name)
        if isinstance(value, str):
            total += estimate_tokens(value)
    return total


def _content(content: Any) -> int:
    if isinstance(content, str):
        return estimate_tokens(content)
    if not isinstance(content, list):
        return 0
    total = 0
    for part in content:
        if isinstance(part, dict):
            text = part.get("text")
            total += estimate_tokens(text) if isinstance(text, str) else 0
            kind = part.get("type")
            total += _MEDIA_TOKENS.get(kind, 0) if isinstance(kind, str) else 0
    return total
