"""Reasoning that a client dropped, put back beside the calls of tools that it led to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relay.ir import Thinking
from relay_openai.turns import REASONING_FIELDS
from relay_openai.wire import DIALECT, own_fields

__all__ = ["reasoning_fields", "reminded"]


def reasoning_fields(part: Thinking) -> dict[str, Any]:
    """A message's fields for one thought of this format: as its host named them, else `reasoning_content`."""
    own = own_fields(part.extra)
    given = {name: own[name] for name in REASONING_FIELDS if name in own}
    return given or ({"reasoning_content": part.text} if part.text else {})


def reminded(
    message: Mapping[str, Any], recall: Callable[[str, int], Sequence[Thinking]], seen: Counter[str]
) -> Mapping[str, Any]:
    """The message with what preceded its calls; the very same one if it has reasoning, or none is known.

    `seen` counts the calls of each id so far.
    """
    calls = message.get("tool_calls")
    if message.get("role") != "assistant" or not isinstance(calls, list):
        return message
    has_reasoning = any(message.get(name) for name in REASONING_FIELDS)
    found: dict[str, Any] = {}
    for call in calls:
        name = call.get("id") if isinstance(call, dict) else None
        if not isinstance(name, str):
            continue
        number, seen[name] = seen[name], seen[name] + 1
        for part in () if has_reasoning else recall(name, number):
            if part.dialect == DIALECT:
                for field, value in reasoning_fields(part).items():
                    found[field] = found[field] + value if field in found else value
    return {**message, **found} if found else message
