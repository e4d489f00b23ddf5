"""Definitions of tools: what a request offers, under the names that models of any vendor get to see.

Functions are functions everywhere. Three kinds that clients run themselves become functions too, so that every model
can call them, and their calls become again what the client expects:

* a `custom` tool, whose input is free text, is a function of one string, `input`;
* the functions of a `namespace` are functions named `NAMESPACE__NAME`;
* a `tool_search` that the client executes is a function named `tool_search`.

Tools that the vendor runs itself are carried as they are, for the vendor's own models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from relay.fields import boolean, fault, items, obj, text, word
from relay.ir import Opaque, Tool
from relay_openai.custom import custom_tool
from relay_openai.responses.wire import DIALECT, own_extra

__all__ = ["SEARCH", "brings_tools", "defined", "flat_name", "kinds", "parse_tool"]

SEARCH = "tool_search"
"""The function that the search for tools becomes."""

Found = tuple[str, Tool | Opaque]


def flat_name(namespace: Any, name: str) -> str:
    """The function's name as models see it."""
    return f"{namespace}__{name}" if isinstance(namespace, str) and namespace else name


def parse_tool(value: Any, path: str) -> list[Found]:
    """One entry of `tools`, each function with the path of its schema. Kinds that only the vendor knows stay whole."""
    fields = obj(value, path)
    kind = text(fields.get("type"), f"{path}.type")
    if kind == "namespace":
        return list(_namespace(fields, path))
    if kind == SEARCH and fields.get("execution") == "client":
        return [(f"{path}.parameters", _search(fields, path))]
    read = _KINDS.get(kind)
    return [(f"{path}.parameters", read(fields, path))] if read is not None else [(path, Opaque(DIALECT, fields))]


def _namespace(fields: dict[str, Any], path: str) -> Iterator[Found]:
    name = word(fields.get("name"), f"{path}.name")
    for place, inner in enumerate(items(fields.get("tools"), f"{path}.tools")):
        for where, tool in parse_tool(inner, f"{path}.tools[{place}]"):
            if isinstance(tool, Tool):
                own = dict((tool.extra or {}).get(DIALECT, {}))
                tool.extra = own_extra({**own, "namespace": name, "name": tool.name})
                tool.name = flat_name(name, tool.name)
            yield where, tool


def _function(fields: dict[str, Any], path: str) -> Tool:
    description, parameters, strict = fields.get("description"), fields.get("parameters"), fields.get("strict")
    known = ("type", "name", "description", "parameters", "strict")
    return Tool(
        name=word(fields.get("name"), f"{path}.name"),
        description=None if description is None else text(description, f"{path}.description"),
        parameters=None if parameters is None else obj(parameters, f"{path}.parameters"),
        strict=None if strict is None else boolean(strict, f"{path}.strict"),
        extra=own_extra({key: item for key, item in fields.items() if key not in known and item is not None}),
    )


def _custom(fields: dict[str, Any], path: str) -> Tool:
    description, form = fields.get("description"), fields.get("format")
    return custom_tool(
        word(fields.get("name"), f"{path}.name"),
        "" if description is None else text(description, f"{path}.description"),
        None if form is None else obj(form, f"{path}.format"),
        own_extra({key: item for key, item in fields.items() if item is not None}),
    )


def _search(fields: dict[str, Any], path: str) -> Tool:
    description, parameters = fields.get("description"), fields.get("parameters")
    return Tool(
        name=SEARCH,
        description=None if description is None else text(description, f"{path}.description"),
        parameters=None if parameters is None else obj(parameters, f"{path}.parameters"),
        extra=own_extra({"type": SEARCH}),
    )


_KINDS = {"function": _function, "custom": _custom}
_LATER = frozenset(("tool_search_output", "additional_tools"))
"""Items of a conversation that define tools."""


def defined(data: Mapping[str, Any]) -> list[Found]:
    """All tools of a request: those of `tools`, and those that a search has brought in the course of the conversation.

    The same tool may be found twice; the first definition counts, except in `tools`, which is the caller's own list.
    """
    found: list[Found] = []
    listed = data.get("tools")
    for place, value in enumerate(items(listed, "tools") if listed is not None else ()):
        found += parse_tool(value, f"tools[{place}]")
    names = {tool.name for _, tool in found if isinstance(tool, Tool)}
    for path, values in _later(data.get("input")):
        for place, value in enumerate(values):
            for where, tool in parse_tool(value, f"{path}[{place}]"):
                if isinstance(tool, Tool):
                    if tool.name in names:
                        continue
                    names.add(tool.name)
                found.append((where, tool))
    return found


def brings_tools(data: Mapping[str, Any]) -> bool:
    """Whether tools are defined in the course of the conversation."""
    value = data.get("input")
    if isinstance(value, list):
        for item in value:
            # Whatever the caller sent.
            if item and type(kind := item.get("type")) is str and kind in _LATER:
                return True
    return False


def _later(value: Any) -> Iterator[tuple[str, list[Any]]]:
    """The lists of tools inside the conversation."""
    for place, item in enumerate(value if isinstance(value, list) else ()):
        if isinstance(item, dict) and type(kind := item.get("type")) is str and kind in _LATER:
            path = f"input[{place}].tools"
            inner = item.get("tools")
            if not isinstance(inner, list):
                fault(path, "an array", inner)
            yield path, inner


def kinds(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By the name that models see: the type of the call that the client expects, and what belongs to it.

    Plain functions are not in it.
    """
    special: dict[str, dict[str, Any]] = {}
    if all(tool.get("type") == "function" for tool in data.get("tools") or ()) and not brings_tools(data):
        return special
    for _, tool in defined(data):
        if isinstance(tool, Tool):
            own = (tool.extra or {}).get(DIALECT, {})
            kind = own.get("type")
            if kind is not None or "namespace" in own:
                special[tool.name] = {key: own[key] for key in ("type", "namespace", "name") if key in own}
    return special
