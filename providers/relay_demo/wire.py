"""The demo's own small format: a JSON object in, a JSON object or JSON lines out."""

from __future__ import annotations

from typing import Any

import orjson

from relay.errors import UpstreamProtocol
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
from relay.ir import Loss, Request, Response, StopReason, Text, Tool, ToolCall, ToolResult, Usage
from relay.kit import NdjsonDecoder, dumps

__all__ = ["DemoDecoder", "request_body", "response"]

STOPS: dict[str, StopReason] = {
    "stop": StopReason("stop", "stop"),
    "length": StopReason("length", "length"),
    "tool": StopReason("tool_calls", "tool"),
}


def request_body(request: Request, model: str, losses: list[Loss]) -> bytes:
    """The conversation as the demo reads it: roles and plain text, and the tools."""
    messages: list[dict[str, str]] = []
    for number, message in enumerate(request.messages):
        texts: list[str] = []
        for part in message.parts:
            if isinstance(part, Text):
                texts.append(part.text)
            elif isinstance(part, ToolResult):
                texts.extend(piece.text for piece in part.parts if isinstance(piece, Text))
            elif not isinstance(part, ToolCall):
                losses.append(Loss(f"messages[{number}].content", f"the demo reads no {type(part).__name__.lower()}"))
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
        value: dict[str, Any] = orjson.loads(line)
        events: list[Event] = []
        if self._index < 0:
            self._index = 0
            events.append(MessageStart(id=value.get("id", "demo"), model=self._model))
        if "text" in value:
            if not self._open:
                self._open = True
                events.append(PartStart(self._index, Text("")))
            events.append(TextDelta(self._index, value["text"]))
        if "tool" in value or "done" in value:
            events.extend(self._stop_text())
        if "tool" in value:
            call = ToolCall(id=f"call_{self._index}", name=value["tool"], arguments="")
            events += [PartStart(self._index, call), ArgumentsDelta(self._index, value["arguments"])]
            events.append(PartStop(self._index))
            self._index += 1
        if "done" in value:
            self._done = True
            events.append(ChoiceStop(STOPS[value["done"]]))
            events.append(UsageSeen(Usage(input=value["input"], output=value["output"])))
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
    for line in value["lines"]:
        fold.add(decoder.feed(orjson.dumps(line) + b"\n"))
    fold.add(decoder.close())
    if fold.error is not None:
        raise fold.error
    return fold.response()
