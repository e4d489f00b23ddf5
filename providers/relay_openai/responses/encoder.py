"""Streamed answers: the hub's events to this format's.

Text, reasoning and arguments, which are nearly all events, are written by joining ready-made bytes around the one
string that changes, and the event's number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import RelayError
from relay.events import (
    ArgumentsDelta,
    ChoiceStop,
    Event,
    Failure,
    Logprobs,
    MessageStart,
    MessageStop,
    PartExtra,
    PartStart,
    PartStop,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.fold import merge_extra
from relay.ir import Citation, Media, Opaque, Part, Refusal, StopReason, Text, Thinking, ToolCall, Usage
from relay.kit import dumps
from relay_openai.responses.answer import Envelope
from relay_openai.responses.fault import error_object
from relay_openai.responses.items import Items, annotations_of
from relay_openai.responses.toolbox import SEARCH
from relay_openai.responses.wire import DELTAS, DIALECT, own_fields

__all__ = ["KEEP_ALIVE", "ResponsesEncoder"]

KEEP_ALIVE = b'event: keepalive\ndata: {"type":"keepalive"}\n\n'
"""The format's own event for long silences; clients that count events to find out whether a stream lives count it."""


class _Message:
    """An item that holds texts and refusals, one behind the other."""

    __slots__ = ("contents", "left", "name", "open", "place")

    def __init__(self, name: str, place: int) -> None:
        self.name = name
        self.place = place
        self.contents: list[dict[str, Any]] = []
        self.open = 0
        self.left = False
        """Whether something else has begun, so that it is complete once its last text is."""


class _Open:
    """A part that is being written."""

    __slots__ = (
        "citations",
        "content",
        "head",
        "item",
        "logprobs",
        "message",
        "part",
        "pieces",
        "place",
        "signature",
        "tail",
    )

    def __init__(self, part: Part, item: str, place: int) -> None:
        self.part = part
        self.item = item
        self.place = place
        self.message: _Message | None = None
        self.content = 0
        self.pieces: list[str] = []
        self.head = b""
        self.tail = b""
        self.citations: list[Citation] = []
        self.logprobs: list[Any] = []
        self.signature: str | None = None

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self.pieces)


class ResponsesEncoder:
    """A `StreamEncoder` for server-sent events of an answer; also a `KeepsAlive`.

    `kinds` as for `Items`. `now` (Unix seconds) is when the answer is said to be complete, should it come to that.
    """

    __slots__ = (
        "_begun",
        "_envelope",
        "_items",
        "_kinds",
        "_message",
        "_now",
        "_open",
        "_out",
        "_output",
        "_over",
        "_places",
        "_seen",
        "_sequence",
        "_silent",
        "_stop",
        "final",
    )

    def __init__(
        self,
        envelope: Envelope,
        kinds: Mapping[str, Mapping[str, Any]],
        now: Callable[[], float],
    ) -> None:
        self._envelope = envelope
        self._kinds = kinds
        self._now = now
        self._items = Items(envelope.id, kinds)
        self.final: dict[str, Any] | None = None
        """The complete answer, once it is."""
        self._begun = False
        self._over = False
        self._sequence = 0
        self._silent: dict[int, Text] = {}
        """Texts that say nothing so far, and are there for another vendor's marks alone."""
        self._places = 0
        self._message: _Message | None = None
        self._open: dict[int, _Open] = {}
        self._output: dict[int, dict[str, Any]] = {}
        self._seen: Usage | None = None
        self._stop: StopReason | None = None
        self._out: list[bytes] = []

    def encode(self, events: list[Event], /) -> bytes:
        """The frames for these events. Nothing follows a failure or the end."""
        out = self._out = []
        for event in events:
            if self._over:
                break
            if type(event) is TextDelta:
                self._piece(event.index, event.text)
                continue
            write = _WRITE.get(type(event))
            if write is not None:
                write(self, event)
        return b"".join(out)

    def failure(self, error: RelayError, /) -> bytes:
        """The failed answer, once: a bare `error` event is not raised by the format's own clients."""
        if self._over:
            return b""
        out = self._out = []
        self._begin()
        self._over = True
        output = [self._output[place] for place in sorted(self._output)]
        failed = self._envelope.failed(output, error_object(error), self._seen)
        self._send("response.failed", {"response": failed})
        return b"".join(out)

    def keep_alive(self) -> bytes:
        """The beginning of the answer if clients have not seen it yet: they accept nothing before it."""
        out = self._out = []
        if not self._begun:
            self._begin()
        else:
            self._send("keepalive", {})
        return b"".join(out)

    # Frames.

    def _send(self, kind: str, fields: dict[str, Any]) -> None:
        body = dumps({"type": kind, **fields, "sequence_number": self._sequence})
        self._sequence += 1
        self._out.append(b"event: %b\ndata: %b\n\n" % (kind.encode(), body))

    def _piece(self, index: int, text: str) -> None:
        """A piece of a part that is open."""
        part = self._open.get(index)
        if part is None:
            if index not in self._silent:
                return
            self._begin_content(index, self._silent.pop(index))
            part = self._open[index]
        part.pieces.append(text)
        if part.head:
            self._out.append(b"%b%b%b%d}\n\n" % (part.head, dumps(text), part.tail, self._sequence))
            self._sequence += 1

    def _ready(self, part: _Open, kind: str, fields: dict[str, Any]) -> None:
        """Prepare the frame of a part whose pieces will be written many times."""
        body = dumps({"type": kind, "item_id": part.item, "output_index": part.place, **fields})
        part.head = b"event: %b\ndata: %b" % (kind.encode(), body[:-1] + b',"delta":')
        part.tail = b',"sequence_number":'

    def _begin(self, event: MessageStart | None = None) -> None:
        if self._begun:
            return
        self._begun = True
        if event is not None:
            self._envelope.adopt(event.id, event.model, event.created)
            self._items = Items(self._envelope.id, self._kinds)
        opened = self._envelope.open()
        self._send("response.created", {"response": opened})
        self._send("response.in_progress", {"response": opened})

    def _place(self) -> int:
        self._places += 1
        return self._places - 1

    def _added(self, place: int, item: dict[str, Any]) -> None:
        self._send("response.output_item.added", {"output_index": place, "item": item})

    def _done(self, place: int, item: dict[str, Any]) -> None:
        self._output[place] = item
        self._send("response.output_item.done", {"output_index": place, "item": item})

    # Parts.

    def _part_start(self, event: PartStart) -> None:
        self._begin()
        if event.choice:
            # The format has one answer, and so has every request in it.
            return
        start = _START.get(type(event.part))
        if start is not None:
            start(self, event.index, event.part)

    def _name(self, part: Part, prefix: str) -> str:
        known = own_fields(part.extra).get("id")
        return known if isinstance(known, str) and known else self._items.new_id(prefix)

    def _start_content(self, index: int, part: Text | Refusal) -> None:
        if isinstance(part, Text) and not part.text and part.extra and not own_fields(part.extra):
            self._silent[index] = part
        else:
            self._begin_content(index, part)

    def _begin_content(self, index: int, part: Text | Refusal) -> None:
        message = self._message
        if message is None:
            message = self._message = _Message(self._items.new_id("msg"), self._place())
            self._added(message.place, self._items.message(message.name, [], "in_progress"))
        opened = self._open[index] = _Open(part, message.name, message.place)
        opened.message = message
        opened.content = len(message.contents)
        message.open += 1
        if isinstance(part, Text):
            opened.citations.extend(part.citations or ())
            shell = self._items.text(part, "", [], [])
            self._ready(opened, DELTAS["text"], {"content_index": opened.content, "logprobs": []})
        else:
            shell = self._items.refusal(part, "")
            self._ready(opened, DELTAS["refusal"], {"content_index": opened.content})
        message.contents.append(shell)
        self._send("response.content_part.added", {**self._where(opened), "part": shell})
        if part.text:
            self._piece(index, part.text)

    def _where(self, part: _Open) -> dict[str, Any]:
        """Where in the answer a part of a message is."""
        return {"item_id": part.item, "output_index": part.place, "content_index": part.content}

    def _start_thinking(self, index: int, part: Thinking) -> None:
        self._leave_message()
        opened = self._open[index] = _Open(part, self._name(part, "rs"), self._place())
        opened.signature = part.signature
        self._added(opened.place, {"id": opened.item, "type": "reasoning", "summary": []})
        if part.text:
            self._thought(opened, index, part.text)

    def _thought(self, part: _Open, index: int, text: str) -> None:
        if not part.head:
            shell = {"type": "summary_text", "text": ""}
            self._ready(part, DELTAS["summary"], {"summary_index": 0})
            self._send("response.reasoning_summary_part.added", {**self._summary(part), "part": shell})
        self._piece(index, text)

    def _summary(self, part: _Open) -> dict[str, Any]:
        return {"item_id": part.item, "output_index": part.place, "summary_index": 0}

    def _start_call(self, index: int, part: ToolCall) -> None:
        if part.server:
            # A tool that the upstream runs by itself is none of the client's: it would try to run it again.
            return
        self._leave_message()
        kind = self._items.call_kind(part).get("type")
        prefix = {"custom": "ctc", SEARCH: "tsc"}.get(kind or "", "fc")
        opened = self._open[index] = _Open(part, self._name(part, prefix), self._place())
        self._added(opened.place, self._call(opened, "", "in_progress"))
        if not kind:
            self._ready(opened, DELTAS["arguments"], {})
        if part.arguments:
            self._piece(index, part.arguments)

    def _call(self, part: _Open, arguments: str, status: str = "completed") -> dict[str, Any]:
        if not isinstance(part.part, ToolCall):
            raise AssertionError("only calls are written as calls")
        return self._items.call(part.item, part.part, arguments, status)

    def _start_media(self, index: int, part: Media) -> None:
        if part.kind == "image" and part.data:
            self._whole(self._items.image(self._name(part, "ig"), part))

    def _start_opaque(self, index: int, part: Opaque) -> None:
        if part.dialect == DIALECT and isinstance(part.data, dict):
            self._whole(part.data)

    def _whole(self, item: dict[str, Any]) -> None:
        """An item that came in one piece."""
        self._leave_message()
        place = self._place()
        self._added(place, item)
        self._done(place, item)

    # Deltas.

    def _thinking(self, event: ThinkingDelta) -> None:
        part = self._open.get(event.index)
        if part is not None and event.text:
            self._thought(part, event.index, event.text)

    def _signature(self, event: SignatureDelta) -> None:
        part = self._open.get(event.index)
        if part is not None:
            part.signature = (part.signature or "") + event.signature

    def _arguments(self, event: ArgumentsDelta) -> None:
        self._piece(event.index, event.arguments)

    def _part_extra(self, event: PartExtra) -> None:
        part = self._open.get(event.index)
        if part is None:
            return
        if event.extra and isinstance(part.part, Thinking):
            # Not into the part itself: whoever else reads these events holds the same object.
            old = part.part
            part.part = Thinking(
                old.text, redacted=old.redacted, dialect=old.dialect, extra=merge_extra(old.extra, event.extra)
            )
        if event.citation is not None and isinstance(part.part, Text):
            # Told at the text's end, when it is known how long that is.
            part.citations.append(event.citation)

    def _logprobs(self, event: Logprobs) -> None:
        """Told with the text that is open, or was the last."""
        if event.choice:
            return
        for part in reversed(self._open.values()):
            if isinstance(part.part, Text):
                part.logprobs.extend(event.content)
                return
        for content in reversed(self._message.contents if self._message is not None else ()):
            if "logprobs" in content:
                content["logprobs"] = [*content["logprobs"], *event.content]
                return

    # Ends.

    def _part_stop(self, event: PartStop) -> None:
        part = self._open.pop(event.index, None)
        if part is not None:
            _STOP[type(part.part)](self, part)

    def _stop_text(self, part: _Open) -> None:
        if not isinstance(part.part, Text):
            return
        text = part.text
        annotations = annotations_of(part.citations, len(text))
        for number, one in enumerate(annotations):
            fields = {**self._where(part), "annotation_index": number, "annotation": one}
            self._send("response.output_text.annotation.added", fields)
        shown = self._items.text(part.part, text, annotations, part.logprobs)
        done = {**self._where(part), "text": shown["text"], "logprobs": part.logprobs}
        self._send("response.output_text.done", done)
        self._stop_content(part, shown)

    def _stop_refusal(self, part: _Open) -> None:
        if not isinstance(part.part, Refusal):
            return
        shown = self._items.refusal(part.part, part.text)
        self._send("response.refusal.done", {**self._where(part), "refusal": shown["refusal"]})
        self._stop_content(part, shown)

    def _stop_content(self, part: _Open, shown: dict[str, Any]) -> None:
        self._send("response.content_part.done", {**self._where(part), "part": shown})
        message = part.message
        if message is None:
            raise AssertionError("texts are in messages")
        message.contents[part.content] = shown
        message.open -= 1
        if message.left and not message.open:
            self._close_message(message)

    def _leave_message(self) -> None:
        """Something else begins: what the model says later is another message."""
        message, self._message = self._message, None
        if message is not None:
            message.left = True
            if not message.open:
                self._close_message(message)

    def _close_message(self, message: _Message) -> None:
        self._done(message.place, self._items.message(message.name, message.contents))

    def _stop_thinking(self, part: _Open) -> None:
        if not isinstance(part.part, Thinking):
            return
        shown = part.text
        if part.head:
            self._send("response.reasoning_summary_text.done", {**self._summary(part), "text": shown})
            entry = {"type": "summary_text", "text": shown}
            self._send("response.reasoning_summary_part.done", {**self._summary(part), "part": entry})
        self._done(part.place, self._items.reasoning(part.item, part.part, shown, part.signature))

    def _stop_call(self, part: _Open) -> None:
        item = self._call(part, part.text)
        where = {"item_id": part.item, "output_index": part.place}
        if item["type"] == "custom_tool_call":
            # Its input is inside of a JSON string, so it is known only now.
            self._send("response.custom_tool_call_input.delta", {**where, "delta": item["input"]})
            self._send("response.custom_tool_call_input.done", {**where, "input": item["input"]})
        elif item["type"] == "function_call":
            self._send("response.function_call_arguments.done", {**where, "arguments": item["arguments"]})
        self._done(part.place, item)

    def _usage(self, event: UsageSeen) -> None:
        self._seen = event.usage

    def _choice_stop(self, event: ChoiceStop) -> None:
        if event.choice == 0:
            self._stop = event.stop

    def _message_stop(self, event: MessageStop) -> None:
        self._begin()
        for index in sorted(self._open):
            self._part_stop(PartStop(index))
        self._leave_message()
        self._over = True
        output = [self._output[place] for place in sorted(self._output)]
        closed = self.final = self._envelope.closed(output, self._stop, self._seen, int(self._now()))
        self._send(f"response.{closed['status']}", {"response": closed})

    def _failure(self, event: Failure) -> None:
        out = self._out
        out.append(self.failure(event.error))
        self._out = out


_WRITE: Mapping[type[Any], Callable[[ResponsesEncoder, Any], None]] = {
    MessageStart: ResponsesEncoder._begin,
    PartStart: ResponsesEncoder._part_start,
    ThinkingDelta: ResponsesEncoder._thinking,
    SignatureDelta: ResponsesEncoder._signature,
    ArgumentsDelta: ResponsesEncoder._arguments,
    PartExtra: ResponsesEncoder._part_extra,
    PartStop: ResponsesEncoder._part_stop,
    Logprobs: ResponsesEncoder._logprobs,
    UsageSeen: ResponsesEncoder._usage,
    ChoiceStop: ResponsesEncoder._choice_stop,
    MessageStop: ResponsesEncoder._message_stop,
    Failure: ResponsesEncoder._failure,
}
_START: Mapping[type[Any], Callable[[ResponsesEncoder, int, Any], None]] = {
    Text: ResponsesEncoder._start_content,
    Refusal: ResponsesEncoder._start_content,
    Thinking: ResponsesEncoder._start_thinking,
    ToolCall: ResponsesEncoder._start_call,
    Media: ResponsesEncoder._start_media,
    Opaque: ResponsesEncoder._start_opaque,
}
_STOP: Mapping[type[Any], Callable[[ResponsesEncoder, _Open], None]] = {
    Text: ResponsesEncoder._stop_text,
    Refusal: ResponsesEncoder._stop_refusal,
    Thinking: ResponsesEncoder._stop_thinking,
    ToolCall: ResponsesEncoder._stop_call,
}
