"""Reasoning that a client dropped, put back beside the calls of tools that it led to."""

from __future__ import annotations

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


def reminded(message: Mapping[str, Any], recall: Callable[[str], Sequence[Thinking]]) -> Mapping[str, Any]:
    """The message with what preceded its calls; the very same one if it has reasoning, or none is known."""
    calls = message.get("tool_calls")
    if not isinstance(calls, list) or any(message.get(name) for name in REASONING_FIELDS):
        return message
    found: dict[str, Any] = {}
    for call in calls:
        name = call.get("id") if isinstance(call, dict) else None
        for part in recall(name) if isinstance(name, str) else ():
            if part.dialect == DIALECT:
                for field, value in reasoning_fields(part).items():
                    found[field] = found[field] + value if field in found else value
    return {**message, **found} if found else message
