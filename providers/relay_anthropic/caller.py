"""Requests of this dialect's clients to the hub: every field checked, every fault named by its path.

A field whose value is null means the same as one that is absent. What the hub has no place for stays in
`extra["anthropic-messages"]` as it came, on the request, the block or the tool; so does `metadata`, from which the hub
takes only a name for the end user.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from relay.errors import BadParameter
from relay.fields import boolean, integer, items, number, obj, text, word
from relay.ir import Opaque, Output, Reasoning, Request, Tool, ToolChoice
from relay_anthropic.block import DIALECT
from relay_anthropic.turns import cache_of, own_rest, parse_system, parse_turns

__all__ = ["MAX_OUTPUT", "parse_request", "parse_tool"]

MAX_OUTPUT = 2**31 - 1
LONGEST_USER = 64
"""Characters of a user's name that other vendors accept. Agents of this dialect send longer ones."""


def parse_request(data: Mapping[str, Any]) -> Request:
    """The request that `data` spells. Raises BadParameter with the path of the first fault."""
    system = data.get("system")
    request = Request(
        model=word(data.get("model"), "model"),
        messages=[*([] if system is None else parse_system(system)), *parse_turns(data.get("messages"))],
    )
    own: dict[str, Any] = {}
    for name, value in data.items():
        if name in _READ_FIRST or value is None:
            continue
        read = _FIELDS.get(name)
        if read is None:
            own[name] = value
        else:
            read(request, value, own)
    request.extra = {DIALECT: own} if own else None
    return request


_READ_FIRST = frozenset(("model", "messages", "system"))
_Field = Callable[[Request, Any, dict[str, Any]], None]


def _sampling(name: str, read: Callable[[Any, str], Any]) -> _Field:
    """A reader for a field that goes into `Sampling` as it is."""

    def field_reader(request: Request, value: Any, own: dict[str, Any]) -> None:
        setattr(request.sampling, name, read(value, name))

    return field_reader


def _most(value: Any, path: str) -> int:
    return integer(value, path, 1, MAX_OUTPUT)


def _stream(request: Request, value: Any, own: dict[str, Any]) -> None:
    request.stream = boolean(value, "stream")


def _stop(request: Request, value: Any, own: dict[str, Any]) -> None:
    sequences = items(value, "stop_sequences")
    request.sampling.stop = [text(item, f"stop_sequences[{place}]") for place, item in enumerate(sequences)]


def _metadata(request: Request, value: Any, own: dict[str, Any]) -> None:
    user = obj(value, "metadata").get("user_id")
    own["metadata"] = value
    if user is not None:
        name = text(user, "metadata.user_id")
        if len(name) > LONGEST_USER:
            name = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:LONGEST_USER]
        request.user = name


# Tools.


_TOOL = frozenset(("type", "name", "description", "input_schema", "strict", "cache_control"))


def parse_tool(value: Any, path: str) -> Tool | Opaque:
    """One entry of `tools`. Tools that the vendor defines by a type of their own are carried as they are."""
    fields = obj(value, path)
    kind = fields.get("type")
    if kind is not None and text(kind, f"{path}.type") != "custom":
        return Opaque(DIALECT, fields)
    description, strict = fields.get("description"), fields.get("strict")
    return Tool(
        name=word(fields.get("name"), f"{path}.name"),
        description=None if description is None else text(description, f"{path}.description"),
        parameters=obj(fields.get("input_schema"), f"{path}.input_schema"),
        strict=None if strict is None else boolean(strict, f"{path}.strict"),
        cache=cache_of(fields, path),
        extra=own_rest(fields, _TOOL),
    )


def _tools(request: Request, value: Any, own: dict[str, Any]) -> None:
    request.tools = [parse_tool(item, f"tools[{place}]") for place, item in enumerate(items(value, "tools"))]


_CHOICES: Mapping[str, Literal["auto", "none", "required", "tool"]] = {
    "auto": "auto",
    "any": "required",
    "tool": "tool",
    "none": "none",
}


def _tool_choice(request: Request, value: Any, own: dict[str, Any]) -> None:
    path = "tool_choice"
    fields = obj(value, path)
    mode = _CHOICES.get(text(fields.get("type"), f"{path}.type"))
    if mode is None:
        raise BadParameter(f"{path}.type must be one of {', '.join(_CHOICES)}", param=f"{path}.type")
    request.tool_choice = ToolChoice(mode, word(fields.get("name"), f"{path}.name") if mode == "tool" else None)
    single = fields.get("disable_parallel_tool_use")
    if single is not None:
        request.parallel_tools = not boolean(single, f"{path}.disable_parallel_tool_use")


# Reasoning and the form of the answer.


def _reasoning_of(request: Request) -> Reasoning:
    if request.reasoning is None:
        request.reasoning = Reasoning()
    return request.reasoning


_SHOWN: Mapping[str, str] = {"omitted": "none", "summarized": "auto"}
"""How much of the thinking is shown, in the hub's words."""


def _thinking(request: Request, value: Any, own: dict[str, Any]) -> None:
    fields = obj(value, "thinking")
    kind = text(fields.get("type"), "thinking.type")
    if kind not in ("enabled", "adaptive", "disabled"):
        own["thinking"] = value
        return
    reasoning = _reasoning_of(request)
    reasoning.enabled = kind != "disabled"
    if kind == "enabled":
        reasoning.budget = integer(fields.get("budget_tokens"), "thinking.budget_tokens", 1, MAX_OUTPUT)
    display = fields.get("display")
    if display is not None:
        reasoning.summary = _SHOWN.get(text(display, "thinking.display"), "auto")
        if display not in _SHOWN:
            own["thinking"] = {"display": display}


def _output_config(request: Request, value: Any, own: dict[str, Any]) -> None:
    fields = obj(value, "output_config")
    rest = {name: item for name, item in fields.items() if name not in ("effort", "format") and item is not None}
    if fields.get("effort") is not None:
        _reasoning_of(request).effort = word(fields["effort"], "output_config.effort")
    if fields.get("format") is not None and not _format(request, fields["format"], "output_config.format"):
        rest["format"] = fields["format"]
    if rest:
        own["output_config"] = rest


def _output_format(request: Request, value: Any, own: dict[str, Any]) -> None:
    """The place of the same thing while it was new."""
    if not _format(request, value, "output_format"):
        own["output_format"] = value


def _format(request: Request, value: Any, path: str) -> bool:
    """Whether the form of the answer could be read."""
    fields = obj(value, path)
    if text(fields.get("type"), f"{path}.type") != "json_schema":
        return False
    request.output = Output("schema", schema=obj(fields.get("schema"), f"{path}.schema"))
    return True


_FIELDS: Mapping[str, _Field] = {
    "stream": _stream,
    "max_tokens": _sampling("max_tokens", _most),
    "temperature": _sampling("temperature", number),
    "top_p": _sampling("top_p", number),
    "top_k": _sampling("top_k", integer),
    "stop_sequences": _stop,
    "metadata": _metadata,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "thinking": _thinking,
    "output_config": _output_config,
    "output_format": _output_format,
}
