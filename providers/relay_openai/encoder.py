"""Streamed answers: the hub's events to `chat.completion.chunk` frames.

Text, reasoning and arguments, which are nearly all events, are written by joining ready-made bytes around the one
string that changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from relay.ir import Citation, Media, Opaque, Refusal, Text, Thinking, ToolCall, Usage
from relay.kit import dumps
from relay_openai.custom import CUSTOM, input_of
from relay_openai.shapes import audio_object, call_object, citations_shown, image_object, thinking_details
from relay_openai.usage import encode_usage
from relay_openai.wire import DIALECT, FINISH_WORDS, own_fields

__all__ = ["ChatEncoder", "error_body"]

_DONE = b"data: [DONE]\n\n"
_TAIL = b'},"logprobs":null,"finish_reason":null}]'


def error_body(error: RelayError) -> dict[str, Any]:
    """The error object that clients of this format know."""
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


class _Block:
    """A thinking part until it is complete: its text and signature, to be written once more as a whole."""

    __slots__ = ("choice", "part", "signature", "texts")

    def __init__(self, part: Thinking, choice: int) -> None:
        self.part = part
        self.choice = choice
        self.texts: list[str] = [part.text] if part.text else []
        self.signature = part.signature


class _Frame:
    """What stands around each piece of a part, and how long the pieces are together."""

    __slots__ = ("head", "length", "tail")

    def __init__(self, head: bytes, tail: bytes) -> None:
        self.head = head
        self.tail = tail
        self.length = 0


class _Said:
    """A text: where it stands in its choice's content, and what it rests on, which is told once it is complete."""

    __slots__ = ("choice", "citations", "frame", "start")

    def __init__(self, choice: int, start: int, frame: _Frame) -> None:
        self.choice = choice
        self.start = start
        self.frame = frame
        self.citations: list[Citation] | None = []
        """None once it is complete."""


class ChatEncoder:
    """A `StreamEncoder` for server-sent `chat.completion.chunk` events.

    `model`, `created` and `new_id` stand in where the upstream gave none; with `usage` the stream ends with the chunk
    that counts tokens, as callers ask for by `stream_options.include_usage`. `legacy` and `customs` as in
    `encode_response`.
    """

    __slots__ = (
        "_blocks",
        "_calls",
        "_choices",
        "_created",
        "_custom",
        "_customs",
        "_details",
        "_end",
        "_first",
        "_frames",
        "_images",
        "_legacy",
        "_model",
        "_new_id",
        "_out",
        "_over",
        "_prefix",
        "_said",
        "_seen",
        "_wants_usage",
    )

    def __init__(
        self,
        *,
        model: str,
        created: int,
        new_id: str,
        usage: bool,
        legacy: bool = False,
        customs: frozenset[str] = frozenset(),
    ) -> None:
        self._model = model
        self._created = created
        self._new_id = new_id
        self._wants_usage = usage
        self._legacy = legacy
        self._customs = customs
        self._custom: dict[int, list[str]] = {}
        """Calls of custom tools: their input is inside of a JSON string, and is told when that is complete."""
        self._prefix = b""
        # Callers who asked for usage get `"usage":null` in every other chunk, as the format's inventor does it.
        self._end = b',"usage":null}\n\n' if usage else b"}\n\n"
        self._first: dict[str, Any] = {}
        self._choices: set[int] = set()
        self._frames: dict[int, _Frame] = {}
        self._calls: dict[int, int] = {}
        self._blocks: dict[int, _Block] = {}
        self._details: dict[int, int] = {}
        self._images: dict[int, int] = {}
        self._said: dict[int, _Said] = {}
        self._seen: Usage | None = None
        self._over = False
        self._out: list[bytes] = []

    def encode(self, events: list[Event], /) -> bytes:
        """The frames for these events. Nothing follows a failure or the end."""
        out = self._out = []
        frames = self._frames
        for event in events:
            if type(event) is TextDelta:
                frame = frames.get(event.index)
                if frame is not None and not self._over:
                    text = event.text
                    out.append(frame.head + dumps(text) + frame.tail)
                    frame.length += len(text)
                continue
            write = _WRITE.get(type(event))
            if write is not None and not self._over:
                write(self, event)
        return b"".join(out)

    def cast(self, event: TextDelta | ThinkingDelta, /) -> tuple[bytes, bytes] | None:
        """As `relay.events.Casts`."""
        frame = self._frames.get(event.index)
        return None if frame is None or self._over else (frame.head + b'"', b'"' + frame.tail)

    def failure(self, error: RelayError, /) -> bytes:
        """The error as clients raise it, once. There is no `[DONE]` after it: that would make the answer complete."""
        if self._over:
            return b""
        self._over = True
        return b"data: " + dumps(error_body(error)) + b"\n\n"

    # Frames.

    def _begin(self, event: MessageStart | None = None) -> None:
        """Make the bytes that all chunks begin with, and announce the first choice."""
        start = event or MessageStart("", "")
        fields: dict[str, Any] = {
            "id": start.id or self._new_id,
            "object": "chat.completion.chunk",
            "created": start.created if start.created is not None else self._created,
            "model": start.model or self._model,
        }
        extra = dict(own_fields(start.extra))
        if "system_fingerprint" in extra:
            fields["system_fingerprint"] = extra.pop("system_fingerprint")
        self._prefix = b"data: " + dumps(fields)[:-1] + b',"choices":['
        self._first = {key: value for key, value in extra.items() if key not in fields}
        self._announce(0)

    def _announce(self, choice: int) -> None:
        """The first chunk of a choice, which names the role."""
        if choice in self._choices:
            return
        if not self._prefix:
            self._begin()
            if choice == 0:
                return
        self._choices.add(choice)
        end = self._end
        if self._first:
            # Fields of the whole answer that only this dialect's hosts know are told once.
            end = b"," + dumps(self._first)[1:-1] + end
            self._first = {}
        body = b'{"index":%d,"delta":{"role":"assistant","content":""' % choice
        self._out.append(self._prefix + body + _TAIL + end)

    def _delta(self, choice: int, delta: dict[str, Any]) -> None:
        body = b'{"index":%d,"delta":{' % choice
        self._out.append(self._prefix + body + dumps(delta)[1:-1] + _TAIL + self._end)

    def _open(self, index: int, choice: int, field: bytes, tail: bytes = b"") -> _Frame:
        """Prepare the frame of a part whose text will be written many times."""
        head = self._prefix + b'{"index":%d,"delta":{' % choice + field
        frame = self._frames[index] = _Frame(head, tail + _TAIL + self._end)
        return frame

    def _write(self, index: int, text: str) -> None:
        frame = self._frames[index]
        self._out.append(frame.head + dumps(text) + frame.tail)

    # Events.

    def _message_start(self, event: MessageStart) -> None:
        if not self._prefix:
            self._begin(event)

    def _part_start(self, event: PartStart) -> None:
        self._announce(event.choice)
        start = _START.get(type(event.part))
        if start is not None:
            start(self, event.index, event.part, event.choice)

    def _start_text(self, index: int, part: Text, choice: int) -> None:
        frame = self._open(index, choice, b'"content":')
        start = sum(said.frame.length for said in self._said.values() if said.choice == choice)
        said = self._said[index] = _Said(choice, start, frame)
        if part.text:
            frame.length = len(part.text)
            self._delta(choice, {"content": part.text})
        self._cite(said, part.citations or ())

    def _start_refusal(self, index: int, part: Refusal, choice: int) -> None:
        self._open(index, choice, b'"refusal":')
        if part.text:
            self._delta(choice, {"refusal": part.text})

    def _start_thinking(self, index: int, part: Thinking, choice: int) -> None:
        self._open(index, choice, b'"reasoning_content":')
        self._blocks[index] = _Block(part, choice)
        if part.text:
            self._delta(choice, {"reasoning_content": part.text})

    def _start_call(self, index: int, part: ToolCall, choice: int) -> None:
        if part.server:
            return
        number = self._calls.get(choice, 0)
        self._calls[choice] = number + 1
        call = call_object(part, part.arguments, self._customs)
        if CUSTOM in call:
            self._custom[index] = [part.arguments]
            self._open(index, choice, b'"tool_calls":[{"index":%d,"custom":{"input":' % number, b"}}]")
            call[CUSTOM]["input"] = ""
            self._delta(choice, {"tool_calls": [{"index": number, **call}]})
            return
        if self._legacy:
            if number == 0:
                self._open(index, choice, b'"function_call":{"arguments":', b"}")
                self._delta(choice, {"function_call": call["function"]})
            return
        self._open(index, choice, b'"tool_calls":[{"index":%d,"function":{"arguments":' % number, b"}}]")
        self._delta(choice, {"tool_calls": [{"index": number, **call}]})

    def _start_media(self, index: int, part: Media, choice: int) -> None:
        if part.kind == "audio":
            self._delta(choice, {"audio": audio_object(part)})
        elif part.kind == "image":
            number = self._images.get(choice, 0)
            if (image := image_object(part, number)) is not None:
                self._images[choice] = number + 1
                self._delta(choice, {"images": [image]})

    def _start_opaque(self, index: int, part: Opaque, choice: int) -> None:
        if part.dialect == DIALECT:
            self._delta(choice, {"content": [part.data]})

    def _thinking(self, event: ThinkingDelta) -> None:
        block = self._blocks.get(event.index)
        if block is not None:
            block.texts.append(event.text)
            self._write(event.index, event.text)

    def _signature(self, event: SignatureDelta) -> None:
        block = self._blocks.get(event.index)
        if block is not None:
            block.signature = (block.signature or "") + event.signature

    def _arguments(self, event: ArgumentsDelta) -> None:
        if event.index in self._custom:
            self._custom[event.index].append(event.arguments)
        elif event.index in self._frames:
            self._write(event.index, event.arguments)

    def _part_extra(self, event: PartExtra) -> None:
        block = self._blocks.get(event.index)
        if block is not None:
            if event.extra:
                # Not into the part itself: whoever else reads these events holds the same object.
                block.part = Thinking(
                    block.part.text,
                    redacted=block.part.redacted,
                    dialect=block.part.dialect,
                    extra=merge_extra(block.part.extra, event.extra),
                )
            return
        if event.citation is not None and event.index in self._said:
            self._cite(self._said[event.index], (event.citation,))

    def _cite(self, said: _Said, citations: Iterable[Citation]) -> None:
        """Tell what a text rests on, or keep it until its end is known."""
        if said.citations is not None:
            said.citations += citations
        elif shown := citations_shown(citations, said.start, said.start + said.frame.length):
            self._delta(said.choice, {"annotations": shown})

    def _part_stop(self, event: PartStop) -> None:
        block = self._blocks.pop(event.index, None)
        if block is not None:
            number = self._details.get(block.choice, 0)
            details = thinking_details(block.part, "".join(block.texts), block.signature, number)
            if details:
                self._details[block.choice] = number + len(details)
                self._delta(block.choice, {"reasoning_details": details})
        pieces = self._custom.pop(event.index, None)
        if pieces is not None:
            self._write(event.index, input_of("".join(pieces)))
        said = self._said.get(event.index)
        if said is not None and said.citations is not None:
            kept, said.citations = said.citations, None
            self._cite(said, kept)
        self._frames.pop(event.index, None)

    def _logprobs(self, event: Logprobs) -> None:
        self._announce(event.choice)
        body = b'{"index":%d,"delta":{},"logprobs":' % event.choice
        values = dumps({"content": event.content, "refusal": None})
        self._out.append(self._prefix + body + values + b',"finish_reason":null}]' + self._end)

    def _usage(self, event: UsageSeen) -> None:
        self._seen = event.usage

    def _choice_stop(self, event: ChoiceStop) -> None:
        self._announce(event.choice)
        word = FINISH_WORDS[event.stop.kind]
        if self._legacy and word == "tool_calls":
            word = "function_call"
        body = b'{"index":%d,"delta":{},"logprobs":null,"finish_reason":' % event.choice
        self._out.append(self._prefix + body + dumps(word) + b"}]" + self._end)

    def _message_stop(self, event: MessageStop) -> None:
        self._announce(0)
        self._over = True
        usage = encode_usage(self._seen) if self._wants_usage and self._seen else None
        if usage:
            self._out.append(self._prefix + b'],"usage":' + dumps(usage) + b"}\n\n")
        self._out.append(_DONE)

    def _failure(self, event: Failure) -> None:
        self._out.append(self.failure(event.error))


_WRITE: dict[type[Any], Callable[[ChatEncoder, Any], None]] = {
    MessageStart: ChatEncoder._message_start,
    PartStart: ChatEncoder._part_start,
    ThinkingDelta: ChatEncoder._thinking,
    SignatureDelta: ChatEncoder._signature,
    ArgumentsDelta: ChatEncoder._arguments,
    PartExtra: ChatEncoder._part_extra,
    PartStop: ChatEncoder._part_stop,
    Logprobs: ChatEncoder._logprobs,
    UsageSeen: ChatEncoder._usage,
    ChoiceStop: ChatEncoder._choice_stop,
    MessageStop: ChatEncoder._message_stop,
    Failure: ChatEncoder._failure,
}
_START: dict[type[Any], Callable[[ChatEncoder, int, Any, int], None]] = {
    Text: ChatEncoder._start_text,
    Refusal: ChatEncoder._start_refusal,
    Thinking: ChatEncoder._start_thinking,
    ToolCall: ChatEncoder._start_call,
    Media: ChatEncoder._start_media,
    Opaque: ChatEncoder._start_opaque,
}
