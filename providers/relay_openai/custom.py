"""Custom tools, whose input is free text: functions of one string for models that know no other kind.

In the hub they are such functions, and so are their calls: the text is the string of a JSON object. What the client
expects is known by the names of its tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.ir import Extra, Tool
from relay.kit import dumps, loads

__all__ = ["CUSTOM", "HEAD", "INPUT", "TAIL", "arguments_of", "custom_names", "custom_tool", "escaped", "input_of"]

CUSTOM = "custom"
"""The kind of tool."""
INPUT = "input"
"""The one argument of the function that it becomes."""
HEAD, TAIL = '{"' + INPUT + '":"', '"}'
"""What stands before and behind the text in the function's arguments."""


def custom_tool(name: str, description: str, form: Mapping[str, Any] | None, extra: Extra | None) -> Tool:
    """The function that a custom tool becomes. `form` is what it demands of its input."""
    if form is not None:
        # The two formats of this vendor differ in where the grammar stands.
        grammar = form.get("grammar") if isinstance(form.get("grammar"), dict) else form
        definition, syntax = (grammar or {}).get("definition"), (grammar or {}).get("syntax")
        if isinstance(definition, str):
            # No other vendor can hold a model to a grammar, but a model that knows it can keep to it.
            description += f"\n\nThe input must match this {syntax if isinstance(syntax, str) else 'formal'} grammar:\n"
            description += definition
    argument = {"type": "string", "description": "The whole input of the tool, as plain text."}
    return Tool(
        name=name,
        description=description.strip() or None,
        parameters={
            "type": "object",
            "properties": {INPUT: argument},
            "required": [INPUT],
            "additionalProperties": False,
        },
        extra=extra,
    )


def arguments_of(text: str) -> str:
    """The function's arguments for an input."""
    return dumps({INPUT: text}).decode("utf-8")


def escaped(piece: str) -> str:
    """A piece of an input as it stands inside of the arguments."""
    return dumps(piece)[1:-1].decode("utf-8")


def input_of(arguments: str) -> str:
    """The input that a custom tool is called with; arguments that hold no such text are themselves it."""
    try:
        value = loads(arguments)
    except ValueError:
        return arguments
    found = value.get(INPUT) if isinstance(value, dict) else None
    return found if isinstance(found, str) else arguments


def custom_names(data: Mapping[str, Any]) -> frozenset[str]:
    """The custom tools of a request, by their names."""
    found = []
    for tool in data.get("tools") or ():
        inner = tool.get(CUSTOM) if isinstance(tool, dict) and tool.get("type") == CUSTOM else None
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            found.append(inner["name"])
    return frozenset(found)
