"""The hub's requests to the bodies that `openai-chat` hosts take.

Reached by callers of other dialects. A request of this dialect comes back equal, but for: null fields and default
values are left out; the parts of a system, assistant or tool message that are all text become one string; `functions`
become `tools`; the limit of output is named as the host wants it; empty arguments become `{}`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from relay import Target
from relay.ir import Loss, Opaque, Output, Reasoning, Request, Sampling, Tool, ToolChoice
from relay.kit import dumps, foreign_fields
from relay_openai.custom import CUSTOM
from relay_openai.history import History, cache_control
from relay_openai.losses import (
    CACHE,
    EFFORT,
    FIXED,
    NO_BUDGET,
    NO_OFF,
    NO_REASONING,
    REFUSED,
    SCHEMA,
    SWITCH,
    TOOL,
    TOP_K,
)
from relay_openai.models import FIXED_SAMPLING, capabilities_of
from relay_openai.wire import DIALECT, own_fields

__all__ = ["adapt", "compose_request"]


def compose_request(request: Request, target: Target, losses: list[Loss]) -> bytes:
    """The body to send. What cannot be carried is appended to `losses`, once for each kind of thing.

    Raises Unsupported for content that the model would have to see and cannot.
    """
    return dumps(compose(request, target, losses))


def compose(request: Request, target: Target, losses: list[Loss]) -> dict[str, Any]:
    """The body before it is written as JSON."""
    options = target.upstream.options
    # What is said of single tools stands in these.
    own = {name: value for name, value in request.own(DIALECT).items() if not name.startswith("tools[")}
    lost = foreign_fields(request, DIALECT)
    history = History(options, lost)
    body: dict[str, Any] = {"model": target.model, "messages": history.compose(request.messages)}
    _tools(body, request, own, options, lost)
    _sampling(body, request.sampling, target, lost)
    _reasoning(body, request.reasoning, own, target, lost)
    if request.output is not None and "response_format" not in own:
        _output(body, request.output, options, lost)
    if request.user is not None:
        body["user"] = request.user
    stream_options = own.pop("stream_options", None)
    if request.stream:
        body["stream"] = True
        wanted = dict(stream_options) if isinstance(stream_options, dict) else {}
        if options.get("include_usage", True):
            wanted["include_usage"] = True
        if wanted:
            body["stream_options"] = wanted
    body.update(own)
    adapt(body, options, lost)
    losses.extend(dict.fromkeys(lost))
    return body


def adapt(body: dict[str, Any], options: Mapping[str, Any], lost: list[Loss]) -> None:
    """Leave out what the host refuses, and call by its own names what it has others for."""
    for name in options.get("drop", ()):
        if body.pop(name, None) is not None:
            lost.append(REFUSED.at(name=name))
    for name, renamed in options.get("rename", {}).items():
        if name in body:
            body[renamed] = body.pop(name)


# Tools.


def _tool(tool: Tool, options: Mapping[str, Any], lost: list[Loss]) -> dict[str, Any]:
    own = dict(own_fields(tool.extra))
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    # Several hosts refuse a function without a schema, and none refuses the empty one.
    function["parameters"] = tool.parameters if tool.parameters is not None else {"type": "object", "properties": {}}
    if tool.strict is not None:
        function["strict"] = tool.strict
    function.update(own.pop("function", {}))
    shown = own if own.get("type") == CUSTOM else {"type": "function", "function": function, **own}
    if tool.cache is not None:
        if options.get("cache_control"):
            shown["cache_control"] = cache_control(tool.cache.ttl)
        else:
            lost.append(CACHE.at())
    return shown


def _tools(
    body: dict[str, Any], request: Request, own: dict[str, Any], options: Mapping[str, Any], lost: list[Loss]
) -> None:
    tools = []
    for tool in request.tools:
        if isinstance(tool, Tool):
            tools.append(_tool(tool, options, lost))
        elif tool.dialect == DIALECT:
            tools.append(tool.data)
        else:
            kind = tool.data.get("type", "unknown") if isinstance(tool.data, dict) else "unknown"
            lost.append(TOOL.at(kind=kind))
    if not tools:
        # Without tools there is nothing to choose, and hosts refuse a choice.
        own.pop("tool_choice", None)
        return
    body["tools"] = tools
    if request.tool_choice is not None and "tool_choice" not in own:
        body["tool_choice"] = _choice(request.tool_choice, request.tools)
    if request.parallel_tools is not None:
        body["parallel_tool_calls"] = request.parallel_tools


def _choice(choice: ToolChoice, tools: Sequence[Tool | Opaque]) -> Any:
    if choice.mode == "tool" and choice.name is not None:
        chosen = next((tool for tool in tools if isinstance(tool, Tool) and tool.name == choice.name), None)
        kind = CUSTOM if chosen is not None and own_fields(chosen.extra).get("type") == CUSTOM else "function"
        return {"type": kind, kind: {"name": choice.name}}
    return "required" if choice.mode == "tool" else choice.mode


# Sampling and the form of the answer.

_SAMPLING = (
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("stop", "stop"),
    ("seed", "seed"),
    ("choices", "n"),
    ("frequency_penalty", "frequency_penalty"),
    ("presence_penalty", "presence_penalty"),
    ("logprobs", "logprobs"),
    ("top_logprobs", "top_logprobs"),
)
_FIXED: Mapping[str, Any] = {
    "temperature": 1,
    "top_p": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "top_logprobs": 0,
}
"""What reasoning models insist on, with the one value that changes nothing."""


def _sampling(body: dict[str, Any], sampling: Sampling, target: Target, lost: list[Loss]) -> None:
    options = target.upstream.options
    fixed = any(fnmatchcase(target.model, pattern) for pattern in FIXED_SAMPLING)
    if sampling.max_tokens is not None:
        body[options.get("max_tokens_field", "max_tokens")] = sampling.max_tokens
    for field, name in _SAMPLING:
        value = getattr(sampling, field)
        if value is None:
            continue
        if fixed and name in _FIXED:
            if value != _FIXED[name]:
                lost.append(FIXED.at(name=name, model=target.model))
            continue
        body[name] = value
    if sampling.top_k is not None:
        if options.get("top_k"):
            body["top_k"] = sampling.top_k
        else:
            lost.append(TOP_K.at())


def _output(body: dict[str, Any], output: Output, options: Mapping[str, Any], lost: list[Loss]) -> None:
    if output.kind == "json":
        body["response_format"] = {"type": "json_object"}
    elif output.kind == "schema" and not options.get("json_schema", True):
        lost.append(SCHEMA.at())
        body["response_format"] = {"type": "json_object"}
    elif output.kind == "schema":
        schema: dict[str, Any] = {"name": output.name or "answer"}
        for name in ("description", "schema", "strict"):
            if (value := getattr(output, name)) is not None:
                schema[name] = value
        body["response_format"] = {"type": "json_schema", "json_schema": schema}


# Reasoning.

_EFFORTS: tuple[tuple[int, str], ...] = ((2048, "low"), (12288, "medium"))
"""Effort by budget, in tokens: up to the bound. Above the last it is `high`."""


def _reasoning(
    body: dict[str, Any], reasoning: Reasoning | None, own: dict[str, Any], target: Target, lost: list[Loss]
) -> None:
    if reasoning is None or "reasoning" in own or ("thinking" in own and reasoning.effort is None):
        return
    able = target.upstream.capabilities.get("reasoning", capabilities_of(target.model).get("reasoning"))
    form = target.upstream.options.get("reasoning", "effort")
    wanted = reasoning.effort is not None or reasoning.budget is not None or reasoning.enabled is True
    if able is False or form == "none":
        if wanted:
            lost.append(NO_REASONING.at(model=target.model))
        return
    _REASONING[form](body, reasoning, lost)


def _effort(body: dict[str, Any], reasoning: Reasoning, lost: list[Loss]) -> None:
    """One word. A budget becomes the nearest; that reasoning is off cannot be said to all models that way."""
    if reasoning.enabled is False:
        lost.append(NO_OFF.at())
        return
    word = reasoning.effort
    if word is None and reasoning.budget is not None:
        word = next((word for bound, word in _EFFORTS if reasoning.budget <= bound), "high")
        lost.append(NO_BUDGET.at(word=word))
    if word == "max":
        word = "high"
        lost.append(EFFORT.at())
    if word is not None:
        body["reasoning_effort"] = word


def _object(body: dict[str, Any], reasoning: Reasoning, lost: list[Loss]) -> None:
    """The gateways' object, which has a place for everything but takes either a word or a budget."""
    fields: dict[str, Any] = {}
    if reasoning.budget is not None:
        fields["max_tokens"] = reasoning.budget
    elif reasoning.effort is not None:
        fields["effort"] = reasoning.effort
    if reasoning.enabled is not None:
        fields["enabled"] = reasoning.enabled
    if fields:
        body["reasoning"] = fields


def _switch(body: dict[str, Any], reasoning: Reasoning, lost: list[Loss]) -> None:
    """On or off, with the effort beside it if there is one."""
    off = reasoning.enabled is False or reasoning.effort == "none"
    body["thinking"] = {"type": "disabled" if off else "enabled"}
    if off:
        return
    if reasoning.effort is not None:
        body["reasoning_effort"] = "high" if reasoning.effort == "max" else reasoning.effort
    if reasoning.budget is not None:
        lost.append(SWITCH.at())


_REASONING = {"effort": _effort, "object": _object, "thinking": _switch}
