"""The hub's requests to the bodies that `openai-responses` hosts take.

Reached by callers of other dialects where an upstream speaks this one and not `openai-chat`. A request of this dialect
comes back equal, but for: null fields and default values are left out; a leading system text is `instructions`; what
tools answered stands before everything else of its turn; strictness of a function is always said, because saying
nothing would switch it on.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from relay import Target
from relay.errors import Unsupported
from relay.ir import Loss, LossKind, Message, Output, Reasoning, Request, Sampling, Text, Tool, ToolChoice
from relay.kit import Losses, dumps, foreign_fields
from relay_openai.custom import CUSTOM
from relay_openai.losses import CACHE, FIXED, NO_BUDGET, NO_REASONING, REFUSED, TOOL, TOP_K, UNKNOWN
from relay_openai.models import FIXED_SAMPLING, capabilities_of
from relay_openai.responses.rows import Rows
from relay_openai.responses.wire import DIALECT, own_fields
from relay_openai.wire import DIALECT as CHAT

__all__ = ["compose_request"]


def compose_request(request: Request, target: Target, found: list[Loss]) -> bytes:
    """The body to send. What cannot be carried is appended to `found`, once for each kind of thing.

    Raises Unsupported for what makes the request another one.
    """
    losses = Losses(found)
    options = target.upstream.options
    own = dict(request.own(DIALECT))
    shared = {name: request.own(CHAT)[name] for name in SHARED if name in request.own(CHAT)}
    instructions, messages = _instructions(request.messages)
    body: dict[str, Any] = {"model": target.model}
    if instructions is not None:
        body["instructions"] = instructions
    # The vendor refuses an empty conversation, even where instructions say all there is to say.
    body["input"] = Rows(losses).compose(messages)
    if not body["input"]:
        raise Unsupported("there is nothing to answer: every message is empty", param="messages")
    _tools(body, request, own, losses)
    _sampling(body, request.sampling, target, losses)
    _reasoning(body, request.reasoning, target, losses)
    if request.output is not None:
        _output(body, request.output)
    if request.user is not None:
        body["user"] = request.user
    if request.stream:
        body["stream"] = True
    for loss in foreign_fields(request, DIALECT):
        if loss.field not in shared:
            losses.take(loss)
    _merge(body, {**shared, **own})
    # Nobody could come back for an answer that the vendor keeps: its id is not the one that the caller gets.
    body.setdefault("store", False)
    for name in options.get("drop", ()):
        if body.pop(name, None) is not None and name != "store":
            losses.add(REFUSED, name=name)
    for name, renamed in options.get("rename", {}).items():
        if name in body:
            body[renamed] = body.pop(name)
    return dumps(body)


SHARED = ("verbosity", "metadata", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier")
"""Fields that the vendor's two dialects have in common."""


def _merge(body: dict[str, Any], own: dict[str, Any]) -> None:
    """Lay the fields that the vendor's dialects kept over the body; objects on both sides are joined."""
    verbosity = own.pop("verbosity", None)
    if verbosity is not None:
        body["text"] = {**body.get("text", {}), "verbosity": verbosity}
    include = [*body.get("include", ()), *own.pop("include", ())]
    if include:
        body["include"] = list(dict.fromkeys(include))
    for name, value in own.items():
        old = body.get(name)
        body[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value


def _instructions(messages: list[Message]) -> tuple[str | None, list[Message]]:
    """The text of the first message if it is the system's and nothing but text, and the rest."""
    first = messages[0] if messages else None
    if first is None or first.role != "system" or first.extra or first.name or len(messages) == 1:
        return None, messages
    if not first.parts or not all(isinstance(part, Text) for part in first.parts):
        return None, messages
    return "\n\n".join(part.text for part in first.parts if isinstance(part, Text)), messages[1:]


# Tools.


def _tools(body: dict[str, Any], request: Request, own: dict[str, Any], losses: Losses) -> None:
    tools = []
    for tool in request.tools:
        if isinstance(tool, Tool):
            tools.append(_tool(tool, losses))
        elif tool.dialect == DIALECT:
            tools.append(tool.data)
        else:
            kind = tool.data.get("type", "unknown") if isinstance(tool.data, dict) else "unknown"
            losses.add(TOOL, kind=kind)
    if not tools:
        own.pop("tool_choice", None)
        return
    body["tools"] = tools
    if request.tool_choice is not None and "tool_choice" not in own:
        body["tool_choice"] = _choice(request.tool_choice)
    if request.parallel_tools is not None:
        body["parallel_tool_calls"] = request.parallel_tools


def _tool(tool: Tool, losses: Losses) -> dict[str, Any]:
    if tool.cache is not None:
        losses.add(CACHE)
    own = {key: value for key, value in own_fields(tool.extra).items() if key not in ("namespace", "name")}
    if own.get("type") == CUSTOM:
        return {**own, "name": tool.name}
    shown: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description is not None:
        shown["description"] = tool.description
    shown["parameters"] = tool.parameters if tool.parameters is not None else {"type": "object", "properties": {}}
    shown["strict"] = bool(tool.strict)
    return {**shown, **{key: value for key, value in own.items() if key != "type"}}


def _choice(choice: ToolChoice) -> Any:
    if choice.mode == "tool" and choice.name is not None:
        return {"type": "function", "name": choice.name}
    return "required" if choice.mode == "tool" else choice.mode


# Sampling and the form of the answer.

_UNKNOWN: Mapping[str, LossKind] = {"top_k": TOP_K, **UNKNOWN}
LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"


def _sampling(body: dict[str, Any], sampling: Sampling, target: Target, losses: Losses) -> None:
    if sampling.choices is not None and sampling.choices > 1:
        raise Unsupported("this upstream gives one choice per request", param="n")
    for name, kind in _UNKNOWN.items():
        value = getattr(sampling, name)
        if value or (name == "seed" and value is not None):
            losses.add(kind)
    if sampling.max_tokens is not None:
        body["max_output_tokens"] = sampling.max_tokens
    fixed = any(fnmatchcase(target.model, pattern) for pattern in FIXED_SAMPLING)
    for name in ("temperature", "top_p"):
        value = getattr(sampling, name)
        if value is None:
            continue
        if not fixed:
            body[name] = value
        elif value != 1:
            losses.add(FIXED, name=name, model=target.model)
    if sampling.logprobs and fixed:
        losses.add(FIXED, name="logprobs", model=target.model)
    elif sampling.logprobs:
        body["include"] = [LOGPROBS]
        if sampling.top_logprobs is not None:
            body["top_logprobs"] = sampling.top_logprobs


def _output(body: dict[str, Any], output: Output) -> None:
    form: dict[str, Any] = {"type": "text"}
    if output.kind == "json" or (output.kind == "schema" and output.schema is None):
        form = {"type": "json_object"}
    elif output.kind == "schema":
        form = {"type": "json_schema", "name": output.name or "answer", "schema": output.schema}
        if output.description is not None:
            form["description"] = output.description
        form["strict"] = bool(output.strict)
    body["text"] = {"format": form}


# Reasoning.

_EFFORTS: tuple[tuple[int, str], ...] = ((2048, "low"), (12288, "medium"))
"""Effort by budget, in tokens: up to the bound. Above the last it is `high`."""


def _reasoning(body: dict[str, Any], reasoning: Reasoning | None, target: Target, losses: Losses) -> None:
    able = target.upstream.capabilities.get("reasoning", capabilities_of(target.model).get("reasoning"))
    if able:
        # What has to come back unchanged if the caller replays the conversation: nothing is kept at the vendor's.
        body["include"] = [*body.get("include", ()), ENCRYPTED]
    if reasoning is None:
        return
    wanted = reasoning.effort is not None or reasoning.budget is not None or reasoning.enabled is True
    if able is False or target.upstream.options.get("reasoning") == "none":
        if wanted:
            losses.add(NO_REASONING, model=target.model)
        return
    word = reasoning.effort
    if reasoning.enabled is False:
        word = "none"
    elif word is None and reasoning.budget is not None:
        word = next((word for bound, word in _EFFORTS if reasoning.budget <= bound), "high")
        losses.add(NO_BUDGET, word=word)
    fields: dict[str, Any] = {} if word is None else {"effort": word}
    summary = reasoning.summary
    if summary is None and wanted and word != "none":
        # Without it these models think in silence.
        summary = "auto"
    if summary is not None and summary != "none":
        fields["summary"] = summary
    if fields:
        body["reasoning"] = fields
