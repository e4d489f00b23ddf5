"""The decoder of a streamed answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay import kit
from relay.errors import UpstreamError, UpstreamProtocol
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
from relay.ir import Opaque, Text, Thinking, ToolCall
from relay.mould import Mould
from relay_anthropic.block import DIALECT, part_of
from relay_anthropic.citation import citation_of
from relay_anthropic.errors import error_of
from relay_anthropic.mould import delta_mould
from relay_anthropic.response import choice_extra, message_extra
from relay_anthropic.usage import merge_usage, stop_reason, usage_of

__all__ = ["MessagesDecoder"]


class _Block:
    """An open content block: its number in the hub, and what is still to be told about it."""

    __slots__ = ("arguments", "index", "part", "value")

    def __init__(self, index: int, part: Any) -> None:
        self.index = index
        self.part = part
        self.arguments = False
        """Whether any of the arguments has come as a delta."""
        self.value = ""
        """Arguments that stood in the block's start, to be told at its end unless deltas replace them."""


class MessagesDecoder:
    """Server-sent events of the Messages API to hub events.

    The end is `message_stop` and nothing else: what follows it is ignored, and a stream without it has failed. A block
    of an unknown type is held back until it is complete, so that it arrives as a whole.
    """

    __slots__ = ("_blocks", "_done", "_events", "_next", "_sse", "_started", "_stopped", "_usage")

    def __init__(self) -> None:
        self._sse = kit.SseDecoder()
        self._blocks: dict[int, _Block] = {}
        self._events: list[Event] = []
        self._next = 0
        self._usage: dict[str, Any] = {}
        self._started = False
        self._stopped = False
        self._done = False

    def feed(self, data: bytes, /) -> list[Event]:
        """Events that `data` completes. Faults of the stream come as a `Failure`, never as an exception."""
        if self._done:
            return []
        try:
            self._read(self._sse.feed(data))
        except UpstreamError as error:
            self._fail(error)
        events, self._events = self._events, []
        return events

    def close(self) -> list[Event]:
        """What is left, and a `Failure` if `message_stop` was not seen."""
        if self._done:
            return []
        try:
            self._read(self._sse.flush())
            self._finish()
        except UpstreamError as error:
            self._fail(error)
        events, self._events = self._events, []
        return events

    def mould(self, event: bytes, /) -> Mould | None:
        """As `relay.events.TellsMould`: deltas with one text change nothing here."""
        return None if self._done else delta_mould(event)

    def _read(self, frames: list[tuple[str, bytes]]) -> None:
        for name, payload in frames:
            if self._done:
                return
            self._event(name, payload)

    def _finish(self) -> None:
        if not self._done:
            raise UpstreamProtocol("the upstream's stream ended before its message_stop")

    def _fail(self, error: UpstreamError) -> None:
        self._events.append(Failure(error))
        self._done = True

    def _event(self, name: str, payload: bytes) -> None:
        try:
            value = kit.loads(payload)
        except ValueError:
            raise UpstreamProtocol("an event of the upstream's stream is not JSON") from None
        if not isinstance(value, dict):
            raise UpstreamProtocol("an event of the upstream's stream is not a JSON object")
        kind = value.get("type")
        if not isinstance(kind, str):
            kind = "error" if isinstance(value.get("error"), dict) else name
        if not self._started and kind in _INSIDE:
            raise UpstreamProtocol(f"the upstream's stream has a {kind} before its message_start")
        handler = _HANDLERS.get(kind)
        if handler is None or not handler(self, value):
            self._events.append(OpaqueEvent(DIALECT, value, kind or name or None))

    def _message_start(self, value: dict[str, Any]) -> bool:
        message = value.get("message")
        if not isinstance(message, dict):
            return False
        if self._started:
            # Some gateways send it again after a retry of their own; there is still only one answer.
            return True
        self._started = True
        self._events.append(
            MessageStart(str(message.get("id") or ""), str(message.get("model") or ""), extra=message_extra(message))
        )
        self._count(message.get("usage"))
        return True

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._usage = merge_usage(self._usage, usage)
            self._events.append(UsageSeen(usage_of(self._usage)))

    def _block_start(self, value: dict[str, Any]) -> bool:
        number, block = value.get("index"), value.get("content_block")
        if not isinstance(number, int) or not isinstance(block, dict):
            return False
        self._close_block(number)
        part = part_of(block)
        if isinstance(part, Opaque):
            self._blocks[number] = _Block(-1, part)
        else:
            self._open(number, part)
        return True

    def _open(self, number: int, part: Text | Thinking | Any) -> _Block:
        index, self._next = self._next, self._next + 1
        entry = self._blocks[number] = _Block(index, part)
        start = PartStart(index, part)
        self._events.append(start)
        if isinstance(part, Text):
            text, part.text = part.text, ""
            citations, part.citations = part.citations, None
            if text:
                self._events.append(TextDelta(index, text))
            self._events.extend(PartExtra(index, citation=citation) for citation in citations or ())
        elif isinstance(part, Thinking) and not part.redacted:
            text, part.text = part.text, ""
            signature, part.signature = part.signature, None
            if text:
                self._events.append(ThinkingDelta(index, text))
            if signature:
                self._events.append(SignatureDelta(index, signature))
        elif isinstance(part, ToolCall):
            entry.value, part.arguments = part.arguments, ""
        return entry

    def _block_delta(self, value: dict[str, Any]) -> bool:
        number, delta = value.get("index"), value.get("delta")
        if not isinstance(number, int) or not isinstance(delta, dict):
            return False
        kind = str(delta.get("type"))
        entry = self._blocks.get(number)
        if entry is None:
            fresh = _UNANNOUNCED.get(kind)
            if fresh is None:
                return False
            entry = self._open(number, fresh())
        if isinstance(entry.part, Opaque):
            _grow(entry.part.data, delta)
            return True
        handler = _DELTAS.get((type(entry.part), kind))
        return handler is not None and handler(self, entry, delta)

    def _text_delta(self, entry: _Block, delta: dict[str, Any]) -> bool:
        text = delta.get("text")
        if isinstance(text, str) and text:
            self._events.append(TextDelta(entry.index, text))
        return isinstance(text, str)

    def _citation(self, entry: _Block, delta: dict[str, Any]) -> bool:
        if delta.get("citation") is None:
            return False
        self._events.append(PartExtra(entry.index, citation=citation_of(delta["citation"])))
        return True

    def _thinking_delta(self, entry: _Block, delta: dict[str, Any]) -> bool:
        text = delta.get("thinking")
        if isinstance(text, str) and text:
            self._events.append(ThinkingDelta(entry.index, text))
        return isinstance(text, str)

    def _signature(self, entry: _Block, delta: dict[str, Any]) -> bool:
        signature = delta.get("signature")
        if isinstance(signature, str) and signature:
            self._events.append(SignatureDelta(entry.index, signature))
        return isinstance(signature, str)

    def _arguments(self, entry: _Block, delta: dict[str, Any]) -> bool:
        text = delta.get("partial_json")
        if isinstance(text, str) and text:
            entry.arguments = True
            self._events.append(ArgumentsDelta(entry.index, text))
        return isinstance(text, str)

    def _block_stop(self, value: dict[str, Any]) -> bool:
        number = value.get("index")
        if isinstance(number, int):
            self._close_block(number)
        return True

    def _close_block(self, number: int) -> None:
        entry = self._blocks.pop(number, None)
        if entry is None:
            return
        if isinstance(entry.part, Opaque):
            entry.index, self._next = self._next, self._next + 1
            self._events.append(PartStart(entry.index, entry.part))
        elif isinstance(entry.part, ToolCall) and not entry.arguments:
            self._events.append(ArgumentsDelta(entry.index, entry.value))
        self._events.append(PartStop(entry.index))

    def _message_delta(self, value: dict[str, Any]) -> bool:
        delta = value.get("delta")
        if not isinstance(delta, dict):
            return False
        for number in sorted(self._blocks):
            self._close_block(number)
        self._count(value.get("usage"))
        reason = delta.get("stop_reason")
        if isinstance(reason, str) and not self._stopped:
            self._stopped = True
            stop = stop_reason(reason, delta.get("stop_sequence"))
            self._events.append(ChoiceStop(stop, extra=choice_extra({**value, **delta})))
        return True

    def _message_stop(self, value: dict[str, Any]) -> bool:
        for number in sorted(self._blocks):
            self._close_block(number)
        self._events.append(MessageStop())
        self._done = True
        return True

    def _error(self, value: dict[str, Any]) -> bool:
        self._fail(error_of(value))
        return True

    def _ping(self, value: dict[str, Any]) -> bool:
        return True


def _grow(block: dict[str, Any], delta: dict[str, Any]) -> None:
    """Lay a delta of an unknown kind over the block it belongs to: strings continue, anything else replaces."""
    for name, value in delta.items():
        if name == "type" or value is None:
            continue
        old = block.get(name)
        block[name] = old + value if isinstance(old, str) and isinstance(value, str) else value


_HANDLERS: dict[str, Callable[[MessagesDecoder, dict[str, Any]], bool]] = {
    "message_start": MessagesDecoder._message_start,
    "content_block_start": MessagesDecoder._block_start,
    "content_block_delta": MessagesDecoder._block_delta,
    "content_block_stop": MessagesDecoder._block_stop,
    "message_delta": MessagesDecoder._message_delta,
    "message_stop": MessagesDecoder._message_stop,
    "error": MessagesDecoder._error,
    "ping": MessagesDecoder._ping,
}

_INSIDE = frozenset(_HANDLERS) - {"message_start", "error", "ping"}
"""Events that make no sense before the message has begun."""

_DELTAS: dict[tuple[type[Any], str], Callable[[MessagesDecoder, _Block, dict[str, Any]], bool]] = {
    (Text, "text_delta"): MessagesDecoder._text_delta,
    (Text, "citations_delta"): MessagesDecoder._citation,
    (Thinking, "thinking_delta"): MessagesDecoder._thinking_delta,
    (Thinking, "signature_delta"): MessagesDecoder._signature,
    (ToolCall, "input_json_delta"): MessagesDecoder._arguments,
}

_UNANNOUNCED: dict[str, Callable[[], Text | Thinking]] = {
    "text_delta": lambda: Text(""),
    "thinking_delta": lambda: Thinking("", dialect=DIALECT),
}
"""Blocks that a delta may open by itself: some servers forget the start, and their words must not be lost."""
