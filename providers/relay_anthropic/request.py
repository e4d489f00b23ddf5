"""A hub request as the body of a Messages call.

What the vendor has no field for is reported as a loss; only what would change the meaning of the request (several
choices, media that no model takes) is refused.
"""

from __future__ import annotations

from typing import Any

from relay import Target, kit
from relay.errors import Unsupported
from relay.ir import Loss, Message, Opaque, Output, Request, Tool
from relay_anthropic.block import DIALECT
from relay_anthropic.content import Block, blocks_of, cached
from relay_anthropic.generation import Generation, generation_of
from relay_anthropic.losses import (
    BLANK_STOP,
    HOT,
    JSON_MODE,
    LATE_SYSTEM,
    LONE_SYSTEM,
    NAMES,
    NO_SAMPLING,
    NO_TOP_K,
    TEMPERATURE_FIRST,
    THINKS,
    TOOL,
    TOP_K_THINKS,
    UNKNOWN,
)
from relay_anthropic.reasoning import apply_reasoning
from relay_anthropic.schema import closed

__all__ = ["body_of", "count_body"]

COUNTED = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config")
"""What a question for the number of tokens may hold; the vendor refuses everything else."""


def body_of(request: Request, target: Target, found: list[Loss]) -> bytes:
    """The JSON of the request. Raises Unsupported, with the parameter's name, for what makes no sense here."""
    losses = kit.Losses(found)
    options = target.upstream.options
    generation = generation_of(target.model, options)
    body: dict[str, Any] = {"model": target.model, "max_tokens": generation.max_tokens, "messages": []}
    if request.sampling.max_tokens is not None:
        body["max_tokens"] = request.sampling.max_tokens
    if request.stream:
        body["stream"] = True
    _conversation(body, request, options.get("system_messages") == "native", losses)
    _tools(body, request, losses)
    _output(body, request.output, losses)
    apply_reasoning(body, request, generation, losses)
    _sampling(body, request, generation, losses)
    if request.user is not None:
        body["metadata"] = {"user_id": request.user}
    for loss in kit.foreign_fields(request, DIALECT):
        losses.take(loss)
    _merge(body, request.own(DIALECT))
    return kit.dumps(body)


def count_body(request: Request, target: Target) -> bytes:
    """The JSON of the question how many tokens the request has."""
    body = kit.loads(body_of(request, target, []))
    return kit.dumps({name: body[name] for name in COUNTED if name in body})


def _merge(body: dict[str, Any], own: dict[str, Any]) -> None:
    """Lay the fields that the dialect itself kept over the body; objects on both sides are joined."""
    for name, value in own.items():
        old = body.get(name)
        body[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value


# Messages.


def _conversation(body: dict[str, Any], request: Request, native: bool, losses: kit.Losses) -> None:
    leading, rest = request.split_system()
    if not rest and leading:
        # The vendor needs a turn to answer. The last instruction is the one that asks for something.
        losses.add(LONE_SYSTEM, where=f"messages[{len(leading) - 1}]")
        rest = [Message("user", leading[-1].parts)]
        leading = leading[:-1]
    system = [block for i, turn in enumerate(leading) for block in blocks_of(turn.parts, f"messages[{i}]", losses)]
    if system:
        body["system"] = system
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(rest, len(leading)):
        where = f"messages[{index}]"
        if message.name:
            losses.add(NAMES)
        role: str = message.role
        if role == "system" and not native:
            losses.add(LATE_SYSTEM, where=where)
            role = "user"
        blocks = blocks_of(message.parts, where, losses)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        elif blocks:
            turns.append({"role": role, "content": blocks})
    for turn in turns:
        if turn["role"] == "user":
            turn["content"] = _results_first(turn["content"])
    if turns and turns[-1]["role"] == "assistant":
        _trim(turns[-1]["content"])
    if not turns:
        raise Unsupported("there is nothing to answer: every message is empty", param="messages")
    body["messages"] = turns


def _results_first(blocks: list[Block]) -> list[Block]:
    """Tool results must come before anything else of their turn; apart from that the order stays."""
    return sorted(blocks, key=lambda block: block["type"] != "tool_result")


def _trim(blocks: list[Block]) -> None:
    """An answer that the model is to continue may not end in white space."""
    if blocks and blocks[-1]["type"] == "text":
        blocks[-1]["text"] = blocks[-1]["text"].rstrip()


# Tools.

CHOICES = {"auto": "auto", "none": "none", "required": "any", "tool": "tool"}


def _tools(body: dict[str, Any], request: Request, losses: kit.Losses) -> None:
    tools = []
    for index, tool in enumerate(request.tools):
        if isinstance(tool, Tool):
            tools.append(_tool(tool))
        elif tool.dialect == DIALECT and isinstance(tool.data, dict):
            tools.append(tool.data)
        else:
            losses.add(TOOL, where=f"tools[{index}]", type=_type_of(tool), dialect=tool.dialect)
    if not tools:
        if request.tool_choice is not None and request.tool_choice.mode in ("required", "tool") and not request.tools:
            raise Unsupported("a tool call is required and there are no tools", param="tool_choice")
        return
    body["tools"] = tools
    choice: dict[str, Any] | None = None
    if request.tool_choice is not None:
        choice = {"type": CHOICES[request.tool_choice.mode]}
        if request.tool_choice.mode == "tool":
            choice["name"] = request.tool_choice.name
    if request.parallel_tools is False and (choice is None or choice["type"] != "none"):
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    if choice is not None:
        body["tool_choice"] = choice


def _tool(tool: Tool) -> dict[str, Any]:
    schema = tool.parameters if tool.parameters is not None else {"type": "object", "properties": {}}
    if "type" not in schema:
        schema = {"type": "object", **schema}
    value: dict[str, Any] = {"name": tool.name, "input_schema": schema}
    if tool.description:
        value["description"] = tool.description
    if tool.strict:
        value["strict"] = True
    value.update((tool.extra or {}).get(DIALECT, {}))
    return cached(value, tool.cache)


def _type_of(tool: Opaque) -> object:
    return tool.data.get("type") if isinstance(tool.data, dict) else None


# The answer's form.


def _output(body: dict[str, Any], output: Output | None, losses: kit.Losses) -> None:
    if output is None or output.kind == "text":
        return
    if output.kind == "json" or output.schema is None:
        losses.add(JSON_MODE)
        return
    body.setdefault("output_config", {})["format"] = {"type": "json_schema", "schema": closed(output.schema)}


# Sampling.


def _sampling(body: dict[str, Any], request: Request, generation: Generation, losses: kit.Losses) -> None:
    sampling = request.sampling
    if sampling.choices is not None and sampling.choices > 1:
        raise Unsupported("this upstream gives one choice per request", param="n")
    for name, kind in UNKNOWN.items():
        value = getattr(sampling, name)
        if value is not None and (value or name == "seed"):
            losses.add(kind)
    if sampling.stop:
        # A sequence of white space alone is refused.
        sequences = [text for text in sampling.stop if text.strip()]
        if len(sequences) < len(sampling.stop):
            losses.add(BLANK_STOP)
        if sequences:
            body["stop_sequences"] = sequences
    thinks = body.get("thinking", {}).get("type") == "enabled"
    for name, value in _numbers(request, losses):
        if not generation.sampling:
            losses.add(NO_TOP_K if name == "top_k" else NO_SAMPLING, name=name)
        elif thinks and not (name == "top_p" and value >= 0.95):
            losses.add(TOP_K_THINKS if name == "top_k" else THINKS, name=name)
        else:
            body[name] = value


def _numbers(request: Request, losses: kit.Losses) -> list[tuple[str, float]]:
    """The sampling numbers that ask for something: 1 is the default of both `temperature` and `top_p`."""
    sampling = request.sampling
    numbers: list[tuple[str, float]] = []
    temperature = sampling.temperature
    if temperature is not None and temperature > 1:
        losses.add(HOT, temperature=temperature)
        temperature = 1
    if temperature is not None and temperature != 1:
        numbers.append(("temperature", temperature))
    if sampling.top_p is not None and sampling.top_p != 1:
        if numbers:
            losses.add(TEMPERATURE_FIRST)
        else:
            numbers.append(("top_p", sampling.top_p))
    if sampling.top_k is not None:
        numbers.append(("top_k", sampling.top_k))
    return numbers
