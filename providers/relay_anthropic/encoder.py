"""Streamed answers: the hub's events to the server-sent events of the Messages API.

In this format one block ends before the next begins. The hub's parts may be open side by side, so the frames of a part
wait while an earlier one is open; a tool call whose arguments are complete is ended by the next part.

Text, reasoning and arguments, which are nearly all events, are written by joining ready-made bytes around the one
string that changes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from relay.errors import RelayError
from relay.events import (
    ArgumentsDelta,
    ChoiceStop,
    Event,
    Failure,
    MessageStart,
    MessageStop,
    OpaqueEvent,
    PartExtra,
    PartStart,
    PartStop,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.fold import merge_extra
from relay.ir import Media, Opaque, Refusal, StopReason, Text, Thinking, ToolCall, Usage
from relay.kit import dumps, json_object, sse_frame
from relay_anthropic.block import DIALECT
from relay_anthropic.citation import citation_blocks
from relay_anthropic.foreign import label_of
from relay_anthropic.shapes import (
    call_block,
    error_object,
    is_silent,
    media_block,
    own_fields,
    stop_word,
    tool_input,
    usage_object,
)

__all__ = ["MessagesEncoder"]

_DELTA = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
_TAIL = b"}}\n\n"


def _frame(kind: str, **fields: Any) -> bytes:
    return sse_frame(dumps({"type": kind, **fields}), kind)


class _Block:
    """A part on its way: its number on the wire, and what must be known of it until it is complete."""

    __slots__ = ("extra", "head", "held", "number", "part", "pieces", "plain", "signature", "stopped")

    def __init__(self, number: int, part: Any) -> None:
        self.number = number
        self.part = part
        self.head = b""
        """What comes before the string in each of its deltas."""
        self.held: list[bytes] = []
        """Its frames, while an earlier block is open."""
        self.pieces: list[str] = []
        """A call's arguments."""
        self.plain: bool | None = None
        """Whether these begin as an object does; None as long as nobody knows."""
        self.signature: str | None = None
        self.extra = part.extra
        self.stopped = False


class MessagesEncoder:
    """A `StreamEncoder` for the events of the Messages API.

    `model` and `new_id` stand in where the upstream named neither.
    """

    __slots__ = (
        "_blocks",
        "_called",
        "_ending",
        "_model",
        "_new_id",
        "_next",
        "_open",
        "_out",
        "_over",
        "_refused",
        "_silent",
        "_start",
        "_started",
        "_stop",
        "_usage",
    )

    def __init__(self, *, model: str, new_id: str) -> None:
        self._model = model
        self._new_id = new_id
        self._start: MessageStart | None = None
        self._started = False
        self._usage: Usage | None = None
        self._blocks: dict[int, _Block] = {}
        self._open: deque[_Block] = deque()
        self._next = 0
        self._called = False
        self._refused = False
        self._silent: dict[int, Text] = {}
        """Texts that say nothing so far, and hold marks of another vendor's: blocks without text are refused."""
        self._stop: StopReason | None = None
        self._ending: dict[str, Any] = {}
        self._over = False
        self._out: list[bytes] = []

    def encode(self, events: list[Event], /) -> bytes:
        """The frames for these events. Nothing follows a failure or the end."""
        self._out = []
        blocks = self._blocks
        for event in events:
            if type(event) is TextDelta:
                block = blocks.get(event.index)
                if block is None and event.index in self._silent:
                    self._begin_text(event.index, self._silent.pop(event.index))
                    block = blocks[event.index]
                if block is not None:
                    self._write(block, block.head + dumps(event.text) + _TAIL)
                continue
            write = _WRITE.get(type(event))
            if write is not None and not self._over:
                write(self, event)
        if self._start is not None and not self._started:
            # Not before: the count that most upstreams send with their first event belongs into the same frame.
            self._begin()
        return b"".join(self._out)

    def cast(self, event: TextDelta | ThinkingDelta, /) -> tuple[bytes, bytes] | None:
        """As `relay.events.Casts`: of the block whose turn it is."""
        block = self._blocks.get(event.index)
        if block is None or not block.head or self._over or not self._open or self._open[0] is not block:
            return None
        return block.head + b'"', b'"' + _TAIL

    def failure(self, error: RelayError, /) -> bytes:
        """The error as clients raise it, once, and no `message_stop`: that would make the answer complete."""
        if self._over:
            return b""
        self._over = True
        self._blocks.clear()
        return _frame("error", error=error_object(error))

    # Frames.

    def _begin(self) -> None:
        """`message_start`."""
        if self._started:
            return
        self._started = True
        start = self._start or MessageStart("", "")
        message = {
            "id": start.id or self._new_id,
            "type": "message",
            "role": "assistant",
            "model": start.model or self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage_object(self._usage),
            **own_fields(start.extra),
        }
        self._out.append(_frame("message_start", message=message))

    def _write(self, block: _Block, frame: bytes) -> None:
        """Send a frame of a block, or keep it until the block's turn has come."""
        if self._open and self._open[0] is block:
            self._out.append(frame)
        else:
            block.held.append(frame)

    def _announce(
        self, index: int, part: Any, content: dict[str, Any], kind: bytes = b"", field: bytes = b""
    ) -> _Block:
        """`content_block_start`; `kind` and `field` are those of the deltas to come."""
        self._begin()
        if self._open and self._is_complete(self._open[0]):
            self._end(self._open[0])
        block = self._blocks[index] = _Block(self._next, part)
        self._next += 1
        self._open.append(block)
        if kind:
            block.head = _DELTA % (block.number, kind, field)
        self._write(block, _frame("content_block_start", index=block.number, content_block=content))
        return block

    @staticmethod
    def _is_complete(block: _Block) -> bool:
        """Whether this is a call that has all its arguments, although its end was not seen yet."""
        arguments = "".join(block.pieces)
        return bool(arguments.strip()) and json_object(arguments) is not None

    def _end(self, block: _Block) -> None:
        """`content_block_stop`, and whatever waited for it."""
        if block.stopped:
            return
        block.stopped = True
        part = block.part
        if isinstance(part, Thinking) and part.dialect != DIALECT and not part.redacted:
            label = label_of(part.dialect, block.signature, block.extra)
            self._write(block, _DELTA % (block.number, b"signature_delta", b"signature") + dumps(label) + _TAIL)
        if block.pieces and not block.plain and (wrapped := tool_input("".join(block.pieces))):
            self._write(block, block.head + dumps(dumps(wrapped).decode()) + _TAIL)
        self._write(block, _frame("content_block_stop", index=block.number))
        while self._open and self._open[0].stopped:
            self._open.popleft()
            if self._open:
                held, self._open[0].held = self._open[0].held, []
                self._out += held

    # Events.

    def _message_start(self, event: MessageStart) -> None:
        if self._start is None:
            self._start = event

    def _part_start(self, event: PartStart) -> None:
        # Callers of this dialect cannot ask for several choices.
        start = _START.get(type(event.part)) if event.choice == 0 else None
        if start is not None:
            start(self, event.index, event.part)

    def _start_text(self, index: int, part: Text | Refusal) -> None:
        if isinstance(part, Text) and is_silent(part):
            self._silent[index] = part
        else:
            self._begin_text(index, part)

    def _begin_text(self, index: int, part: Text | Refusal) -> None:
        self._refused = self._refused or isinstance(part, Refusal)
        content = {"type": "text", "text": "", **(own_fields(part.extra) if isinstance(part, Text) else {})}
        block = self._announce(index, part, content, b"text_delta", b"text")
        if part.text:
            self._write(block, block.head + dumps(part.text) + _TAIL)
        for citation in citation_blocks(part.citations if isinstance(part, Text) else None):
            self._cite(block, citation)

    def _start_thinking(self, index: int, part: Thinking) -> None:
        if part.redacted:
            own = part.dialect == DIALECT
            data = (part.signature or "") if own else label_of(part.dialect, part.signature, part.extra)
            self._announce(index, part, {"type": "redacted_thinking", "data": data, **own_fields(part.extra)})
            return
        content = {"type": "thinking", "thinking": "", "signature": "", **own_fields(part.extra)}
        block = self._announce(index, part, content, b"thinking_delta", b"thinking")
        if part.text:
            self._write(block, block.head + dumps(part.text) + _TAIL)
        if part.signature:
            self._signature(SignatureDelta(index, part.signature))

    def _start_call(self, index: int, part: ToolCall) -> None:
        content = call_block(part)
        if content is None:
            return
        self._called = self._called or not part.server
        self._announce(index, part, content, b"input_json_delta", b"partial_json")
        if part.arguments:
            self._arguments(ArgumentsDelta(index, part.arguments))

    def _start_media(self, index: int, part: Media) -> None:
        content = media_block(part)
        if content is not None:
            self._announce(index, part, content)

    def _start_opaque(self, index: int, part: Opaque) -> None:
        if part.dialect == DIALECT and isinstance(part.data, dict):
            self._announce(index, part, part.data)

    def _thinking(self, event: ThinkingDelta) -> None:
        block = self._blocks.get(event.index)
        if block is not None and block.head:
            self._write(block, block.head + dumps(event.text) + _TAIL)

    def _signature(self, event: SignatureDelta) -> None:
        block = self._blocks.get(event.index)
        if block is None or not isinstance(block.part, Thinking) or block.part.redacted:
            return
        if block.part.dialect != DIALECT:
            block.signature = (block.signature or "") + event.signature
            return
        head = _DELTA % (block.number, b"signature_delta", b"signature")
        self._write(block, head + dumps(event.signature) + _TAIL)

    def _arguments(self, event: ArgumentsDelta) -> None:
        block = self._blocks.get(event.index)
        if block is None or block.stopped:
            return
        block.pieces.append(event.arguments)
        if block.plain is None:
            # Clients parse while they read, and take nothing but an object: what is none is told at the end, inside
            # of one.
            start = event.arguments.lstrip()
            if start:
                block.plain = start.startswith("{")
            if block.plain:
                self._write(block, block.head + dumps(start) + _TAIL)
            return
        if block.plain:
            self._write(block, block.head + dumps(event.arguments) + _TAIL)

    def _part_extra(self, event: PartExtra) -> None:
        block = self._blocks.get(event.index)
        if block is None:
            return
        if event.extra:
            block.extra = merge_extra(block.extra, event.extra)
        if event.citation is not None and isinstance(block.part, Text):
            for citation in citation_blocks([event.citation]):
                self._cite(block, citation)

    def _cite(self, block: _Block, citation: dict[str, Any]) -> None:
        delta = {"type": "citations_delta", "citation": citation}
        self._write(block, _frame("content_block_delta", index=block.number, delta=delta))

    def _part_stop(self, event: PartStop) -> None:
        block = self._blocks.pop(event.index, None)
        if block is not None:
            self._end(block)

    def _seen(self, event: UsageSeen) -> None:
        self._usage = event.usage

    def _choice_stop(self, event: ChoiceStop) -> None:
        if event.choice == 0:
            self._stop = event.stop
            self._ending = dict(own_fields(event.extra))

    def _message_stop(self, event: MessageStop) -> None:
        self._begin()
        for block in list(self._open):
            self._end(block)
        self._blocks.clear()
        ending = self._ending
        delta: dict[str, Any] = {
            "stop_reason": stop_word(self._stop, called=self._called, refused=self._refused),
            "stop_sequence": None if self._stop is None else self._stop.sequence,
            **{name: value for name, value in ending.items() if name != BESIDE},
        }
        beside = {BESIDE: ending[BESIDE]} if BESIDE in ending else {}
        self._out.append(_frame("message_delta", delta=delta, usage=usage_object(self._usage), **beside))
        self._out.append(_frame("message_stop"))
        self._over = True

    def _failure(self, event: Failure) -> None:
        self._out.append(self.failure(event.error))

    def _opaque_event(self, event: OpaqueEvent) -> None:
        if event.dialect == DIALECT:
            self._begin()
            self._out.append(sse_frame(dumps(event.data), event.name or ""))


BESIDE = "context_management"
"""The one field of an answer's end that stands beside the delta and not in it."""

_WRITE: dict[type[Any], Callable[[MessagesEncoder, Any], None]] = {
    MessageStart: MessagesEncoder._message_start,
    PartStart: MessagesEncoder._part_start,
    ThinkingDelta: MessagesEncoder._thinking,
    SignatureDelta: MessagesEncoder._signature,
    ArgumentsDelta: MessagesEncoder._arguments,
    PartExtra: MessagesEncoder._part_extra,
    PartStop: MessagesEncoder._part_stop,
    UsageSeen: MessagesEncoder._seen,
    ChoiceStop: MessagesEncoder._choice_stop,
    MessageStop: MessagesEncoder._message_stop,
    Failure: MessagesEncoder._failure,
    OpaqueEvent: MessagesEncoder._opaque_event,
}
_START: dict[type[Any], Callable[[MessagesEncoder, int, Any], None]] = {
    Text: MessagesEncoder._start_text,
    Refusal: MessagesEncoder._start_text,
    Thinking: MessagesEncoder._start_thinking,
    ToolCall: MessagesEncoder._start_call,
    Media: MessagesEncoder._start_media,
    Opaque: MessagesEncoder._start_opaque,
}
