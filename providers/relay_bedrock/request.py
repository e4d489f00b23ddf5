"""A hub request as the body of a `converse` call.

What the vendor has no field for is reported as a loss; only what would change the meaning of the request (several
choices, media that no model takes) is refused.
"""

from __future__ import annotations

import re
from typing import Any

from relay import Target, kit
from relay.errors import Unsupported
from relay.ir import Loss, Message, Opaque, Output, Request, Tool
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
from relay_anthropic.schema import closed
from relay_bedrock.content import ContentWriter
from relay_bedrock.generation import Generation, generation_of
from relay_bedrock.losses import BARE_TOOLS, PARALLEL, TOOLS_STAY, TOP_K, USER
from relay_bedrock.reasoning import reasoning_fields
from relay_bedrock.wire import DIALECT, Block

__all__ = ["body_of", "count_body"]

COUNTED = ("messages", "system", "toolConfig", "additionalModelRequestFields")
"""What a question for the number of tokens may hold."""
_LABEL = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{1,256}")
"""What the vendor accepts as the value of a request's label."""


def body_of(request: Request, target: Target, found: list[Loss]) -> bytes:
    """The JSON of the request; model and streaming stand in the URL.

    Raises Unsupported, with the parameter's name, for what makes no sense here.
    """
    return kit.dumps(_body(request, target, kit.Losses(found)))


def count_body(request: Request, target: Target) -> bytes:
    """The JSON of the question how many tokens the request has."""
    body = _body(request, target, kit.Losses([]))
    return kit.dumps({"input": {"converse": {name: body[name] for name in COUNTED if name in body}}})


def _body(request: Request, target: Target, losses: kit.Losses) -> Block:
    options, generation = target.upstream.options, generation_of(target)
    writer = ContentWriter(generation, losses)
    body: Block = {"messages": []}
    _conversation(body, request, writer, options.get("system_messages") == "native", losses)
    own: Block = {}
    choice = _tools(body, own, request, writer, losses)
    _output(body, request.output, losses)
    own |= reasoning_fields(request, generation, choice, losses)
    _sampling(body, own, request, generation, losses)
    if request.user is not None:
        if _LABEL.fullmatch(request.user):
            body["requestMetadata"] = {"user": request.user}
        else:
            losses.add(USER)
    _configured(body, own, options)
    if own:
        body["additionalModelRequestFields"] = own
    for loss in kit.foreign_fields(request, DIALECT):
        losses.take(loss)
    return body


def _configured(body: Block, own: Block, options: Any) -> None:
    """What the upstream's options add to each request."""
    guardrail = options.get("guardrail")
    if guardrail:
        names = {"id": "guardrailIdentifier", "version": "guardrailVersion", "trace": "trace"}
        body["guardrailConfig"] = {names.get(name, name): value for name, value in guardrail.items()}
    if options.get("latency"):
        body["performanceConfig"] = {"latency": options["latency"]}
    if options.get("service_tier"):
        body["serviceTier"] = {"type": options["service_tier"]}
    for name, value in (options.get("fields") or {}).items():
        own.setdefault(name, value)


# Messages.


def _conversation(body: Block, request: Request, writer: ContentWriter, native: bool, losses: kit.Losses) -> None:
    leading, rest = request.split_system()
    if not rest and leading:
        # The vendor needs a turn to answer. The last instruction is the one that asks for something.
        losses.add(LONE_SYSTEM, where=f"messages[{len(leading) - 1}]")
        rest = [Message("user", leading[-1].parts)]
        leading = leading[:-1]
    system = [block for i, turn in enumerate(leading) for block in writer.system_of(turn.parts, f"messages[{i}]")]
    if system:
        body["system"] = system
    turns: list[Block] = []
    for index, message in enumerate(rest, len(leading)):
        where = f"messages[{index}]"
        if message.name:
            losses.add(NAMES)
        role: str = message.role
        if role == "system" and not native:
            losses.add(LATE_SYSTEM, where=where)
            role = "user"
        turns.append({"role": role, "content": writer.blocks_of(message.parts, where)})
    # Newer models take a turn of nothing but reasoning for an answer that they are to continue.
    body["messages"] = _joined([turn for turn in _joined(turns) if not all(map(_is_thought, turn["content"]))])
    if not body["messages"]:
        raise Unsupported("there is nothing to answer: every message is empty", param="messages")
    for turn in body["messages"]:
        if turn["role"] == "user":
            # Tool results come before anything else of their turn; apart from that the order stays.
            turn["content"].sort(key=lambda block: "toolResult" not in block)
    last = body["messages"][-1]
    if last["role"] == "assistant" and "text" in last["content"][-1]:
        # An answer that the model is to continue may not end in white space.
        last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()


def _joined(turns: list[Block]) -> list[Block]:
    """Turns of one role behind each other as one: the vendor wants them to alternate."""
    found: list[Block] = []
    for turn in turns:
        if found and found[-1]["role"] == turn["role"]:
            found[-1]["content"].extend(turn["content"])
        else:
            found.append(turn)
    return found


def _is_thought(block: Block) -> bool:
    return "reasoningContent" in block


# Tools.


def _tools(body: Block, own: Block, request: Request, writer: ContentWriter, losses: kit.Losses) -> Block | None:
    """Write the tools. The choice among them as the model is told; None if it is told nothing."""
    tools: list[Block] = []
    generation = writer.generation
    for index, tool in enumerate(request.tools):
        if isinstance(tool, Tool):
            tools.append(_tool(tool))
            tools += writer.marker(tool.cache, allowed=generation.cache_tools)
        elif tool.dialect == DIALECT and isinstance(tool.data, dict):
            tools.append(tool.data)
        else:
            losses.add(TOOL, where=f"tools[{index}]", type=_type_of(tool), dialect=tool.dialect)
    wanted = request.tool_choice
    mode = "auto" if wanted is None else wanted.mode
    if mode == "none" and not writer.called:
        return None
    if mode == "none":
        losses.add(TOOLS_STAY)
    if not tools:
        if mode in ("required", "tool") and not request.tools:
            raise Unsupported("a tool call is required and there are no tools", param="tool_choice")
        if not writer.called:
            return None
        losses.add(BARE_TOOLS)
        tools = [_tool(Tool(name)) for name in writer.called]
    config: Block = {"tools": tools}
    body["toolConfig"] = config
    if wanted is not None and mode in ("required", "tool"):
        config["toolChoice"] = {"any": {}} if mode == "required" else {"tool": {"name": wanted.name}}
    if request.parallel_tools is False:
        if generation.parallel and "toolChoice" not in config:
            own["tool_choice"] = {"type": "auto", "disable_parallel_tool_use": True}
        else:
            losses.add(PARALLEL)
    return config.get("toolChoice")


def _tool(tool: Tool) -> Block:
    schema = tool.parameters if tool.parameters is not None else {"type": "object", "properties": {}}
    if "type" not in schema:
        schema = {"type": "object", **schema}
    value: Block = {"name": tool.name, "inputSchema": {"json": schema}}
    if tool.description:
        value["description"] = tool.description
    if tool.strict:
        value["strict"] = True
    return {"toolSpec": value}


def _type_of(tool: Opaque) -> object:
    return tool.data.get("type") if isinstance(tool.data, dict) else None


# The answer's form.


def _output(body: Block, output: Output | None, losses: kit.Losses) -> None:
    if output is None or output.kind == "text":
        return
    if output.kind == "json" or output.schema is None:
        losses.add(JSON_MODE)
        return
    form: Block = {"schema": kit.dumps(closed(output.schema)).decode()}
    if output.name:
        form["name"] = output.name
    if output.description:
        form["description"] = output.description
    body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": form}}}


# Sampling.


def _sampling(body: Block, own: Block, request: Request, generation: Generation, losses: kit.Losses) -> None:
    sampling, claude = request.sampling, generation.claude
    if sampling.choices is not None and sampling.choices > 1:
        raise Unsupported("this upstream gives one choice per request", param="n")
    for name, kind in UNKNOWN.items():
        value = getattr(sampling, name)
        if value is not None and (value or name == "seed"):
            losses.add(kind)
    config: Block = {}
    if sampling.max_tokens is not None:
        config["maxTokens"] = sampling.max_tokens
    if sampling.stop:
        # A sequence of white space alone is refused by one vendor's models, an empty one by all.
        sequences = [text for text in sampling.stop if (text.strip() if claude is not None else text)]
        if len(sequences) < len(sampling.stop):
            losses.add(BLANK_STOP)
        if sequences:
            config["stopSequences"] = sequences
    thinks = own.get("thinking", {}).get("type") == "enabled"
    for name, value in _numbers(request, claude is not None, losses):
        if claude is not None and not claude.sampling:
            losses.add(NO_TOP_K if name == "top_k" else NO_SAMPLING, name=name)
        elif thinks and not (name == "top_p" and value >= 0.95):
            losses.add(TOP_K_THINKS if name == "top_k" else THINKS, name=name)
        elif name != "top_k":
            config[{"temperature": "temperature", "top_p": "topP"}[name]] = value
        elif not generation.top_k:
            losses.add(TOP_K)
        else:
            *path, last = generation.top_k
            place = own
            for step in path:
                place = place.setdefault(step, {})
            place[last] = value
    if config:
        body["inferenceConfig"] = config


def _numbers(request: Request, claude: bool, losses: kit.Losses) -> list[tuple[str, float]]:
    """The sampling numbers that ask for something. For Claude 1 is the default of both `temperature` and `top_p`."""
    sampling = request.sampling
    numbers: list[tuple[str, float]] = []
    temperature = sampling.temperature
    if temperature is not None and temperature > 1:
        losses.add(HOT, temperature=temperature)
        temperature = 1
    if temperature is not None and not (claude and temperature == 1):
        numbers.append(("temperature", temperature))
    if sampling.top_p is not None and not (claude and sampling.top_p == 1):
        if claude and numbers:
            losses.add(TEMPERATURE_FIRST)
        else:
            numbers.append(("top_p", sampling.top_p))
    if sampling.top_k is not None:
        numbers.append(("top_k", sampling.top_k))
    return numbers
