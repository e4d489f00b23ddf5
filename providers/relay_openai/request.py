"""Requests of `openai-chat` clients to the hub: every field checked, every fault named by its path.

A field whose value is null means the same as one that is absent. What the hub has no place for stays in
`extra["openai-chat"]` as it came, on the request, the message, the part or the tool; so do fields that the hub knows
in a form that it does not (a `tool_choice` of several allowed tools), beside the nearest thing that the hub can say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import BadParameter
from relay.fields import boolean, fault, integer, items, number, obj, text, word
from relay.ir import Opaque, Output, Reasoning, Request, Tool, ToolChoice
from relay_openai.content import cache_of
from relay_openai.custom import CUSTOM, custom_tool
from relay_openai.turns import parse_messages
from relay_openai.wire import DIALECT, own_extra

__all__ = ["MAX_CHOICES", "MAX_OUTPUT", "parse_request", "parse_tool"]

MAX_CHOICES = 128
MAX_OUTPUT = 2**31 - 1


def parse_request(data: Mapping[str, Any]) -> Request:
    """The request that `data` spells. Raises BadParameter with the path of the first fault."""
    request = Request(
        model=word(data.get("model"), "model"),
        messages=parse_messages(items(data.get("messages"), "messages")),
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
    if data.get("max_completion_tokens") is not None:
        # The newer name wins where both are given, whatever their order.
        request.sampling.max_tokens = integer(data["max_completion_tokens"], "max_completion_tokens", 1, MAX_OUTPUT)
    request.extra = own_extra(own)
    return request


_READ_FIRST = frozenset(("model", "messages"))
_Field = Callable[[Request, Any, dict[str, Any]], None]


def _sampling(name: str, read: Callable[[Any, str], Any], field: str = "") -> _Field:
    """A reader for a field that goes into `Sampling` as it is."""

    def field_reader(request: Request, value: Any, own: dict[str, Any]) -> None:
        setattr(request.sampling, field or name, read(value, name))

    return field_reader


def _stream(request: Request, value: Any, own: dict[str, Any]) -> None:
    request.stream = boolean(value, "stream")


def _user(request: Request, value: Any, own: dict[str, Any]) -> None:
    request.user = text(value, "user")


def _stop(request: Request, value: Any, own: dict[str, Any]) -> None:
    if isinstance(value, str):
        request.sampling.stop = [value]
        return
    if not isinstance(value, list):
        fault("stop", "a string or an array of strings", value)
    request.sampling.stop = [text(item, f"stop[{number_}]") for number_, item in enumerate(value)]


def _choices(value: Any, path: str) -> int:
    return integer(value, path, 1, MAX_CHOICES)


def _max_tokens(value: Any, path: str) -> int:
    return integer(value, path, 1, MAX_OUTPUT)


def _whole(value: Any, path: str) -> int:
    return integer(value, path)


def _count(value: Any, path: str) -> int:
    return integer(value, path, 0, MAX_OUTPUT)


# Tools.


def parse_tool(value: Any, path: str) -> Tool | Opaque:
    """One entry of `tools`. Kinds other than functions and custom tools are carried as they are."""
    fields = obj(value, path)
    kind = fields.get("type")
    if kind is None and "function" in fields:
        kind = "function"
    if kind == CUSTOM:
        return _custom(fields, path)
    if text(kind, f"{path}.type") != "function":
        return Opaque(DIALECT, fields)
    tool = parse_function(fields.get("function"), f"{path}.function")
    own = {key: item for key, item in fields.items() if key not in ("type", "function", "cache_control")}
    inner = (tool.extra or {}).get(DIALECT, {})
    tool.extra = own_extra({**own, **({"function": inner} if inner else {})})
    tool.cache = cache_of(fields, path)
    return tool


def _custom(fields: dict[str, Any], path: str) -> Tool:
    inner = obj(fields.get(CUSTOM), f"{path}.{CUSTOM}")
    description, form = inner.get("description"), inner.get("format")
    tool = custom_tool(
        word(inner.get("name"), f"{path}.{CUSTOM}.name"),
        "" if description is None else text(description, f"{path}.{CUSTOM}.description"),
        None if form is None else obj(form, f"{path}.{CUSTOM}.format"),
        own_extra({key: item for key, item in fields.items() if key != "cache_control"}),
    )
    tool.cache = cache_of(fields, path)
    return tool


def parse_function(value: Any, path: str) -> Tool:
    """A function's definition, as it stands in a tool or, before there were tools, alone."""
    fields = obj(value, path)
    description = fields.get("description")
    parameters = fields.get("parameters")
    strict = fields.get("strict")
    known = ("name", "description", "parameters", "strict")
    return Tool(
        name=word(fields.get("name"), f"{path}.name"),
        description=None if description is None else text(description, f"{path}.description"),
        parameters=None if parameters is None else obj(parameters, f"{path}.parameters"),
        strict=None if strict is None else boolean(strict, f"{path}.strict"),
        extra=own_extra({key: item for key, item in fields.items() if key not in known and item is not None}),
    )


def _tools(request: Request, value: Any, own: dict[str, Any]) -> None:
    for place, item in enumerate(items(value, "tools")):
        tool = parse_tool(item, f"tools[{place}]")
        own_tool = (tool.extra or {}).get(DIALECT, {}) if isinstance(tool, Tool) else {}
        form = own_tool.get(CUSTOM, {}).get("format")
        if form is not None and form.get("type") != "text":
            # The grammar is told to the model, which is all that a target can do with it.
            own[f"tools[{place}].format"] = form
        request.tools.append(tool)


def _functions(request: Request, value: Any, own: dict[str, Any]) -> None:
    """The interface before tools; upstreams are told in today's words."""
    for place, item in enumerate(items(value, "functions")):
        tool = parse_function(item, f"functions[{place}]")
        inner = (tool.extra or {}).get(DIALECT)
        tool.extra = own_extra({"function": inner} if inner else {})
        request.tools.append(tool)


def _tool_choice(request: Request, value: Any, own: dict[str, Any]) -> None:
    path = "tool_choice"
    if isinstance(value, str):
        request.tool_choice = _CHOICE_WORDS.get(value, lambda: None)()
        if request.tool_choice is None:
            raise BadParameter("tool_choice must be auto, none, required or an object", param=path)
        return
    if not isinstance(value, dict):
        fault(path, "a string or an object", value)
    kind = text(value.get("type", "function"), f"{path}.type")
    if kind == "allowed_tools":
        allowed = obj(value.get("allowed_tools"), f"{path}.allowed_tools")
        mode = allowed.get("mode", "auto")
        if mode not in ("auto", "required"):
            raise BadParameter("tool_choice.allowed_tools.mode must be auto or required", param=f"{path}.{kind}.mode")
        items(allowed.get("tools"), f"{path}.allowed_tools.tools")
        request.tool_choice = ToolChoice("required" if mode == "required" else "auto")
        own["tool_choice"] = value
        return
    holder = value.get(kind)
    if kind == "function" or isinstance(holder, dict):
        name = word(obj(holder, f"{path}.{kind}").get("name"), f"{path}.{kind}.name")
        request.tool_choice = ToolChoice("tool", name)
        if kind not in ("function", CUSTOM):
            own["tool_choice"] = value
        return
    # The flat form of other dialects, which some hosts take: {"type": "tool", "name": "..."}.
    if isinstance(value.get("name"), str):
        request.tool_choice = ToolChoice("tool", word(value["name"], f"{path}.name"))
    own["tool_choice"] = value


_CHOICE_WORDS: Mapping[str, Callable[[], ToolChoice | None]] = {
    "auto": lambda: ToolChoice("auto"),
    "none": lambda: ToolChoice("none"),
    "required": lambda: ToolChoice("required"),
    "any": lambda: ToolChoice("required"),
}


def _function_call(request: Request, value: Any, own: dict[str, Any]) -> None:
    if value in ("auto", "none"):
        request.tool_choice = ToolChoice("none" if value == "none" else "auto")
    elif isinstance(value, dict):
        request.tool_choice = ToolChoice("tool", word(value.get("name"), "function_call.name"))
    else:
        raise BadParameter("function_call must be auto, none or an object", param="function_call")


def _parallel(request: Request, value: Any, own: dict[str, Any]) -> None:
    request.parallel_tools = boolean(value, "parallel_tool_calls")


# The form of the answer.


def _response_format(request: Request, value: Any, own: dict[str, Any]) -> None:
    path = "response_format"
    fields = obj(value, path)
    kind = text(fields.get("type"), f"{path}.type")
    if kind == "text":
        request.output = Output("text")
    elif kind == "json_object":
        schema = fields.get("schema")
        if schema is None:
            request.output = Output("json")
        else:
            # Local servers take the schema right here.
            request.output = Output("schema", schema=obj(schema, f"{path}.schema"))
            own[path] = value
    elif kind == "json_schema":
        inner = obj(fields.get("json_schema"), f"{path}.json_schema")
        schema, strict, description = inner.get("schema"), inner.get("strict"), inner.get("description")
        name = inner.get("name")
        request.output = Output(
            "schema",
            schema=None if schema is None else obj(schema, f"{path}.json_schema.schema"),
            name=None if name is None else word(name, f"{path}.json_schema.name"),
            description=None if description is None else text(description, f"{path}.json_schema.description"),
            strict=None if strict is None else boolean(strict, f"{path}.json_schema.strict"),
        )
    else:
        own[path] = value


# Reasoning.


def _thinking_of(request: Request) -> Reasoning:
    if request.reasoning is None:
        request.reasoning = Reasoning()
    return request.reasoning


def _effort(request: Request, value: Any, own: dict[str, Any]) -> None:
    _thinking_of(request).effort = word(value, "reasoning_effort")


def _reasoning(request: Request, value: Any, own: dict[str, Any]) -> None:
    """The object form that gateways take, with a budget in tokens."""
    fields = obj(value, "reasoning")
    reasoning = _thinking_of(request)
    if fields.get("effort") is not None:
        reasoning.effort = word(fields["effort"], "reasoning.effort")
    if fields.get("max_tokens") is not None:
        reasoning.budget = integer(fields["max_tokens"], "reasoning.max_tokens", 0, MAX_OUTPUT)
    if fields.get("enabled") is not None:
        reasoning.enabled = boolean(fields["enabled"], "reasoning.enabled")
    if fields.get("summary") is not None:
        reasoning.summary = word(fields["summary"], "reasoning.summary")
    own["reasoning"] = value


def _thinking(request: Request, value: Any, own: dict[str, Any]) -> None:
    """The switch of several model vendors: `{"type": "disabled"}`."""
    own["thinking"] = value
    if isinstance(value, dict) and value.get("type") in ("enabled", "disabled"):
        _thinking_of(request).enabled = value["type"] == "enabled"


_FIELDS: Mapping[str, _Field] = {
    "stream": _stream,
    "user": _user,
    "stop": _stop,
    "n": _sampling("n", _choices, "choices"),
    "max_tokens": _sampling("max_tokens", _max_tokens),
    "max_completion_tokens": _sampling("max_completion_tokens", _max_tokens, "max_tokens"),
    "temperature": _sampling("temperature", number),
    "top_p": _sampling("top_p", number),
    "top_k": _sampling("top_k", _whole),
    "seed": _sampling("seed", _whole),
    "frequency_penalty": _sampling("frequency_penalty", number),
    "presence_penalty": _sampling("presence_penalty", number),
    "logprobs": _sampling("logprobs", boolean),
    "top_logprobs": _sampling("top_logprobs", _count),
    "tools": _tools,
    "functions": _functions,
    "tool_choice": _tool_choice,
    "function_call": _function_call,
    "parallel_tool_calls": _parallel,
    "response_format": _response_format,
    "reasoning_effort": _effort,
    "reasoning": _reasoning,
    "thinking": _thinking,
}
