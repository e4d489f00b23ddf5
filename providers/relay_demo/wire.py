"""The demo's own small format: a JSON object in, a JSON object or JSON lines out."""

from __future__ import annotations

from typing import Any

from relay.errors import Unsupported, UpstreamProtocol
from relay.events import (
    ArgumentsDelta,
    ChoiceStop,
    Event,
    Failure,
    MessageStart,
    MessageStop,
    PartStart,
    PartStop,
    TextDelta,
    UsageSeen,
)
from relay.fold import Fold
from relay.ir import Loss, LossKind, Request, Response, StopReason, Text, Tool, ToolCall, ToolResult, Usage
from relay.kit import FOREIGN_LOSSES, Losses, NdjsonDecoder, dumps, foreign_fields, token_count, upstream_json

__all__ = ["DemoDecoder", "LOSSES", "request_body", "response"]

STOPS: dict[str, StopReason] = {
    "stop": StopReason("stop", "stop"),
    "length": StopReason("length", "length"),
    "tool": StopReason("tool_calls", "tool"),
}


IDLE: dict[str, tuple[object, ...]] = {
    "temperature": (),
    "top_p": (1,),
    "top_k": (),
    "seed": (),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "stop": ([],),
}
"""What the demo does not do, by the name in `Sampling`, with the values that do not ask for it."""
REASONS = {"stop": "the demo stops nowhere but at its end"}
SAMPLING: dict[str, tuple[LossKind, tuple[object, ...]]] = {
    name: (
        LossKind(f"sampling.{name}", name, REASONS.get(name, "the demo draws nothing by chance"), "it is set"),
        idle,
    )
    for name, idle in IDLE.items()
}
FORM = LossKind("output", "response_format", "the demo answers in plain text", "JSON is asked for")
THINKING = LossKind("reasoning", "reasoning_effort", "the demo does not think", "reasoning is asked for", hint=True)
TOOL = LossKind("tools", "tools[{index}]", "the demo calls functions only", "a tool is a vendor's own")
NAMES = LossKind("messages.name", "messages[].name", "the demo knows nobody by name", "a message has a name")
PART = LossKind(
    "messages.part",
    "messages[{number}].content",
    "the demo reads no {kind}",
    "a turn holds anything but text and tools",
)
LOSSES = (*(kind for kind, _ in SAMPLING.values()), FORM, THINKING, TOOL, NAMES, PART, *FOREIGN_LOSSES)


def request_body(request: Request, model: str, losses: list[Loss]) -> bytes:
    """The conversation as the demo reads it: roles and plain text, and the tools.

    Raises Unsupported where more than one answer is wanted; everything else that it does not do is a loss.
    """
    if (request.sampling.choices or 1) > 1:
        raise Unsupported("the demo gives one answer", param="n")
    found = Losses(losses)
    _report(request, found)
    messages: list[dict[str, str]] = []
    for number, message in enumerate(request.messages):
        texts: list[str] = []
        for part in message.parts:
            # What a tool answered is read like what a person says; that a tool was called is not read at all.
            for piece in part.parts if isinstance(part, ToolResult) else [part]:
                if isinstance(piece, Text):
                    texts.append(piece.text)
                elif not isinstance(piece, ToolCall):
                    found.add(PART, number=number, kind=type(piece).__name__.lower())
        messages.append({"role": message.role, "text": "".join(texts)})
    called = any(isinstance(part, ToolResult) for part in request.messages[-1].parts)
    choice = request.tool_choice.mode if request.tool_choice else "auto"
    tools = [tool for tool in request.tools if isinstance(tool, Tool)]
    if request.tool_choice and request.tool_choice.name:
        tools = [tool for tool in tools if tool.name == request.tool_choice.name]
    return dumps(
        {
            "model": model,
            "messages": messages,
            "stream": request.stream,
            "max_tokens": request.sampling.max_tokens,
            "tools": [] if called or choice == "none" else [{"name": t.name, "schema": t.parameters} for t in tools],
            "must_call": choice in ("required", "tool"),
        }
    )


def _report(request: Request, losses: Losses) -> None:
    """Everything beside the conversation that the demo does not look at."""
    for name, (kind, idle) in SAMPLING.items():
        value = getattr(request.sampling, name)
        if value is not None and value not in idle:
            losses.add(kind)
    if request.output is not None and request.output.kind != "text":
        losses.add(FORM)
    thinking = request.reasoning
    if thinking is not None and thinking.enabled is not False and thinking.effort != "none":
        losses.add(THINKING)
    for index, tool in enumerate(request.tools):
        if not isinstance(tool, Tool):
            losses.add(TOOL, index=index)
    if any(message.name for message in request.messages):
        losses.add(NAMES)
    for loss in foreign_fields(request, "demo"):
        losses.take(loss)


class DemoDecoder:
    """Lines to events: `{"text"}`, `{"tool", "arguments"}`, and last `{"done", "input", "output"}`."""

    def __init__(self, model: str) -> None:
        self._lines = NdjsonDecoder()
        self._model = model
        self._index = -1
        self._open = False
        self._done = False

    def feed(self, data: bytes) -> list[Event]:
        """Events of the lines that `data` completes."""
        return [event for line in self._lines.feed(data) for event in self._line(line)]

    def close(self) -> list[Event]:
        """A failure, unless the last line was seen."""
        events = [event for line in self._lines.flush() for event in self._line(line)]
        if not self._done:
            events.append(Failure(UpstreamProtocol("the demo broke off")))
        return events

    def _line(self, line: bytes) -> list[Event]:
        value = upstream_json(line)
        events: list[Event] = []
        if self._done:
            return events
        if self._index < 0:
            self._index = 0
            events.append(MessageStart(id=str(value.get("id", "demo")), model=self._model))
        if "text" in value:
            if not self._open:
                self._open = True
                events.append(PartStart(self._index, Text("")))
            events.append(TextDelta(self._index, str(value["text"])))
        if "tool" in value or "done" in value:
            events.extend(self._stop_text())
        if "tool" in value:
            call = ToolCall(id=f"call_{self._index}", name=str(value["tool"]), arguments="")
            events += [PartStart(self._index, call), ArgumentsDelta(self._index, str(value.get("arguments", "")))]
            events.append(PartStop(self._index))
            self._index += 1
        if "done" in value:
            self._done = True
            word = str(value["done"])
            events.append(ChoiceStop(STOPS.get(word, StopReason("other", word))))
            usage = Usage(input=token_count(value.get("input")), output=token_count(value.get("output")))
            events.append(UsageSeen(usage))
            events.append(MessageStop())
        return events

    def _stop_text(self) -> list[Event]:
        if not self._open:
            return []
        self._open = False
        self._index += 1
        return [PartStop(self._index - 1)]


def response(model: str, value: dict[str, Any]) -> Response:
    """A whole answer is the stream's lines in a list, so that both forms say the same."""
    decoder = DemoDecoder(model)
    fold = Fold()
    lines = value.get("lines")
    for line in lines if isinstance(lines, list) else ():
        fold.add(decoder.feed(dumps(line) + b"\n"))
    fold.add(decoder.close())
    if fold.error is not None:
        raise fold.error
    return fold.response()
