"""A hub request as the body of a `generateContent` call.

What the vendor has no field for is reported as a loss. Two things are left out without a word because they change
nothing in the answer: who the end user is, and cache markers (the vendor caches common beginnings by itself).
"""

from __future__ import annotations

from typing import Any

from relay import Target, kit
from relay.errors import Unsupported
from relay.ir import Loss, Media, Message, Opaque, Output, Request, Sampling, Text, Tool
from relay_gemini.content import ContentWriter, Wire
from relay_gemini.endpoint import resource_of
from relay_gemini.generation import generation_of
from relay_gemini.losses import DETAIL, LATE_SYSTEM, LONE_SYSTEM, NAMES, PARALLEL, STOPS, SYSTEM, TOOL
from relay_gemini.reasoning import thinking_config
from relay_gemini.stream import DIALECT

__all__ = ["body_of", "count_body"]


def count_body(request: Request, target: Target) -> bytes:
    """The JSON of the question how many tokens the request has."""
    collection, name = resource_of(target.model)
    inner = {"model": f"{collection}/{name}", **kit.loads(body_of(request, target, []))}
    return kit.dumps({"generateContentRequest": inner})


def body_of(request: Request, target: Target, found: list[Loss]) -> bytes:
    """The JSON of the request; model and streaming stand in the URL. Raises Unsupported for what cannot be."""
    losses = kit.Losses(found)
    options = target.upstream.options
    generation = generation_of(target.model, options)
    body: dict[str, Any] = {}
    _conversation(body, request, ContentWriter(losses, signed=generation.signed, nested=generation.signed), losses)
    _tools(body, request, losses)
    config = _sampling(request.sampling, losses)
    _output(config, request.output)
    thinking = thinking_config(request.reasoning, generation, losses)
    if thinking is not None:
        config["thinkingConfig"] = thinking
    resolution = _resolution(request, losses)
    if resolution is not None:
        config["mediaResolution"] = resolution
    if config:
        body["generationConfig"] = config
    if options.get("safety_settings"):
        body["safetySettings"] = options["safety_settings"]
    for loss in kit.foreign_fields(request, DIALECT):
        losses.take(loss)
    for name, value in request.own(DIALECT).items():
        old = body.get(name)
        body[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return kit.dumps(body)


# Contents.

ROLES = {"user": "user", "assistant": "model", "system": "user"}


def _conversation(body: dict[str, Any], request: Request, writer: ContentWriter, losses: kit.Losses) -> None:
    leading, rest = request.split_system()
    if not rest and leading:
        # The vendor needs a turn to answer. The last instruction is the one that asks for something.
        losses.add(LONE_SYSTEM, where=f"messages[{len(leading) - 1}]")
        rest = [Message("user", leading[-1].parts)]
        leading = leading[:-1]
    system = [part for index, turn in enumerate(leading) for part in _system(turn, f"messages[{index}]", losses)]
    if system:
        body["systemInstruction"] = {"parts": system}
    turns: list[dict[str, Any]] = []
    for index, message in enumerate(rest, len(leading)):
        where = f"messages[{index}]"
        if message.name:
            losses.add(NAMES)
        if message.role == "system":
            losses.add(LATE_SYSTEM, where=where)
        role = ROLES[message.role]
        parts = writer.parts_of(message, where)
        if turns and turns[-1]["role"] == role:
            turns[-1]["parts"].extend(parts)
        elif parts:
            turns.append({"role": role, "parts": parts})
    if not turns:
        raise Unsupported("there is nothing to answer: every message is empty", param="messages")
    for turn in turns:
        # Results must follow their calls at once; apart from that the order stays.
        turn["parts"].sort(key=lambda part: "functionResponse" not in part)
    body["contents"] = turns


def _system(message: Message, where: str, losses: kit.Losses) -> list[Wire]:
    parts: list[Wire] = []
    for part in message.parts:
        if isinstance(part, Text):
            if part.text:
                parts.append({"text": part.text})
        else:
            losses.add(SYSTEM, where=where)
    return parts


# Tools.

MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "tool": "ANY"}


def _tools(body: dict[str, Any], request: Request, losses: kit.Losses) -> None:
    declarations: list[Wire] = []
    others: list[Wire] = []
    for index, tool in enumerate(request.tools):
        if isinstance(tool, Tool):
            declarations.append(_declaration(tool))
        elif tool.dialect == DIALECT and isinstance(tool.data, dict):
            others.append(tool.data)
        else:
            losses.add(TOOL, where=f"tools[{index}]", type=_type_of(tool), dialect=tool.dialect)
    tools = [{"functionDeclarations": declarations}, *others] if declarations else others
    if tools:
        body["tools"] = tools
    choice = request.tool_choice
    if not declarations:
        if choice is not None and choice.mode in ("required", "tool") and not request.tools:
            raise Unsupported("a tool call is required and there are no tools", param="tool_choice")
        return
    if request.parallel_tools is False:
        losses.add(PARALLEL)
    mode = MODES[choice.mode] if choice is not None else "AUTO"
    if mode == "AUTO" and any(isinstance(tool, Tool) and tool.strict for tool in request.tools):
        # The mode in which arguments are held to their schema and text is still allowed.
        mode = "VALIDATED"
    if choice is None and mode == "AUTO":
        return
    calling: Wire = {"mode": mode}
    if choice is not None and choice.mode == "tool":
        calling["allowedFunctionNames"] = [choice.name]
    body["toolConfig"] = {"functionCallingConfig": calling}


def _declaration(tool: Tool) -> Wire:
    value: Wire = {"name": tool.name}
    if tool.description:
        value["description"] = tool.description
    if tool.parameters is not None:
        value["parametersJsonSchema"] = tool.parameters
    value.update((tool.extra or {}).get(DIALECT, {}))
    return value


def _type_of(tool: Opaque) -> object:
    return tool.data.get("type") if isinstance(tool.data, dict) else None


# The answer's form.


def _output(config: dict[str, Any], output: Output | None) -> None:
    if output is None or output.kind == "text":
        return
    config["responseMimeType"] = "application/json"
    if output.kind == "schema" and output.schema is not None:
        config["responseJsonSchema"] = output.schema


RESOLUTIONS = {"low": "MEDIA_RESOLUTION_LOW", "high": "MEDIA_RESOLUTION_HIGH"}


def _resolution(request: Request, losses: kit.Losses) -> str | None:
    """One setting for all images: it can follow the caller only where all its images say the same."""
    details = {
        part.detail or "auto" for message in request.messages for part in message.parts if isinstance(part, Media)
    }
    if not details - {"auto"}:
        return None
    resolution = RESOLUTIONS.get(next(iter(details))) if len(details) == 1 else None
    if resolution is None:
        losses.add(DETAIL)
    return resolution


# Sampling.

FIELDS = {
    "max_tokens": "maxOutputTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "choices": "candidateCount",
    "frequency_penalty": "frequencyPenalty",
    "presence_penalty": "presencePenalty",
}
MOST_STOPS = 5
SEED_BITS = 31


def _sampling(sampling: Sampling, losses: kit.Losses) -> dict[str, Any]:
    config = {theirs: value for ours, theirs in FIELDS.items() if (value := getattr(sampling, ours)) is not None}
    seed = sampling.seed
    if seed is not None and not -(2**SEED_BITS) <= seed < 2**SEED_BITS:
        # Equal seeds stay equal, which is all that a seed promises.
        config["seed"] = seed % 2**SEED_BITS
    if sampling.stop:
        if len(sampling.stop) > MOST_STOPS:
            losses.add(STOPS, most=MOST_STOPS)
        config["stopSequences"] = sampling.stop[:MOST_STOPS]
    if sampling.logprobs:
        config["responseLogprobs"] = True
        if sampling.top_logprobs:
            config["logprobs"] = sampling.top_logprobs
    return config
