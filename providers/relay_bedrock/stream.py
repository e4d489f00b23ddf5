"""The decoder of a streamed answer."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
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
from relay.ir import Citation, Media, Opaque, Part, Text, Thinking, ToolCall
from relay_bedrock.block import owner_of, tool_call
from relay_bedrock.citation import citation_of
from relay_bedrock.errors import error_in
from relay_bedrock.frames import FrameDecoder, Headers
from relay_bedrock.response import choice_extra
from relay_bedrock.usage import stop_reason, usage_of
from relay_bedrock.wire import DIALECT

__all__ = ["ConverseDecoder"]

Fields = dict[str, Any]


class _Block:
    """A content block under way."""

    __slots__ = ("cited", "data", "form", "index", "part", "spoken")

    def __init__(self) -> None:
        self.index = -1
        """Its part's number in the hub; below zero as long as it has none."""
        self.part: Part | None = None
        self.cited: list[Citation] = []
        """Citations that came before any text: whose they are shows when text follows, or does not."""
        self.data: list[bytes] = []
        """What arrives in pieces and is told as a whole: reasoning that nobody can read, pictures."""
        self.form = ""
        self.spoken = False
        """Whether any of the arguments has come."""


class ConverseDecoder:
    """Messages of a `converse-stream` to hub events.

    The answer is complete with its `messageStop`; `metadata`, which counts its tokens, follows it. A text's end is told
    a little late: a block that only cites may follow it, and is about it.
    """

    __slots__ = (
        "_blocks",
        "_claude",
        "_done",
        "_ended",
        "_events",
        "_frames",
        "_id",
        "_model",
        "_next",
        "_started",
        "_waiting",
    )

    def __init__(self, name: str = "", model: str = "", *, claude: bool = False) -> None:
        self._id = name
        self._model = model
        self._claude = claude
        self._frames = FrameDecoder()
        self._blocks: dict[int, _Block] = {}
        self._events: list[Event] = []
        self._next = 0
        self._started = False
        self._waiting = -1
        """A text that is complete, but for what may yet be cited."""
        self._ended: Fields | None = None
        """The `messageStop`, once it was seen."""
        self._done = False

    def feed(self, data: bytes, /) -> list[Event]:
        """Events that `data` completes. Faults of the stream come as a `Failure`, never as an exception."""
        if not self._done:
            try:
                self._frames.feed(data, self._take)
            except UpstreamError as error:
                self._fail(error)
        events, self._events = self._events, []
        return events

    def close(self) -> list[Event]:
        """What is left, and a `Failure` if the stream has no `messageStop`, or half a message behind it."""
        if not self._done:
            if self._ended is not None and self._frames.empty:
                self._finish({})
            else:
                self._fail(UpstreamProtocol("the upstream's stream ended before its messageStop"))
        events, self._events = self._events, []
        return events

    def _fail(self, error: UpstreamError) -> None:
        self._events.append(Failure(error))
        self._done = True

    def _take(self, headers: Headers, payload: bytes) -> bool:
        if headers.get(":message-type", "event") != "event":
            raise error_in(headers, payload)
        try:
            value = kit.loads(payload)
        except ValueError:
            raise UpstreamProtocol("an event of the upstream's stream is not JSON") from None
        if not isinstance(value, dict):
            raise UpstreamProtocol("an event of the upstream's stream is not a JSON object")
        kind = headers.get(":event-type", "")
        if not self._started:
            self._started = True
            self._events.append(MessageStart(self._id, self._model))
        if self._ended is not None and kind != "metadata":
            return True
        handle = _HANDLERS.get(kind)
        if handle is None or not handle(self, value):
            self._events.append(OpaqueEvent(DIALECT, value, kind or None))
        return not self._done

    # Events

    def _message_start(self, value: Fields) -> bool:
        return True

    def _block_start(self, value: Fields) -> bool:
        number, start = value.get("contentBlockIndex"), value.get("start")
        if not isinstance(number, int) or not isinstance(start, dict):
            return False
        self._close_block(number)
        block = self._blocks[number] = _Block()
        use, image = start.get("toolUse"), start.get("image")
        call = tool_call(use, "") if isinstance(use, dict) else None
        if call is not None:
            self._open(block, call)
        elif isinstance(image, dict):
            block.part, block.form = Media("image"), str(image.get("format") or "*")
        else:
            # It is told as a whole, in the form that it has in complete answers.
            block.part = Opaque(DIALECT, start)
        return True

    def _block_delta(self, value: Fields) -> bool:
        number, delta = value.get("contentBlockIndex"), value.get("delta")
        if not isinstance(number, int) or not isinstance(delta, dict):
            return False
        block = self._blocks.get(number)
        if block is None:
            block = self._blocks[number] = _Block()
        for name, piece in delta.items():
            handle = _DELTAS.get(name)
            if handle is None or not handle(self, block, piece):
                return False
        return True

    def _text(self, block: _Block, text: Any) -> bool:
        if not isinstance(text, str):
            return False
        if block.part is None:
            self._open(block, Text(""))
            self._events += [PartExtra(block.index, citation=citation) for citation in block.cited]
        if not isinstance(block.part, Text):
            return False
        if text:
            self._events.append(TextDelta(block.index, text))
        return True

    def _citation(self, block: _Block, value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        citation = citation_of(value)
        if block.part is None:
            block.cited.append(citation)
        else:
            self._events.append(PartExtra(block.index, citation=citation))
        return True

    def _reasoning(self, block: _Block, value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        text, signature, hidden = value.get("text"), value.get("signature"), value.get("redactedContent")
        if isinstance(hidden, str):
            if block.part is None:
                block.part = Thinking("", redacted=True, dialect=DIALECT)
            block.data.append(_decoded(hidden))
            return True
        if block.part is None:
            self._open(block, Thinking("", dialect=owner_of(claude=self._claude)))
        if isinstance(text, str) and text:
            self._events.append(ThinkingDelta(block.index, text))
        if isinstance(signature, str) and signature:
            self._events.append(SignatureDelta(block.index, signature))
        return isinstance(text, str) or isinstance(signature, str)

    def _arguments(self, block: _Block, value: Any) -> bool:
        text = value.get("input") if isinstance(value, dict) else None
        if not isinstance(text, str) or not isinstance(block.part, ToolCall):
            return False
        if text:
            block.spoken = True
            self._events.append(ArgumentsDelta(block.index, text))
        return True

    def _result(self, block: _Block, value: Any) -> bool:
        if not isinstance(block.part, Opaque) or not isinstance(value, list):
            return False
        result = block.part.data.get("toolResult")
        if not isinstance(result, dict):
            return False
        content = result.setdefault("content", [])
        if not isinstance(content, list):
            return False
        content.extend(value)
        return True

    def _image(self, block: _Block, value: Any) -> bool:
        source = value.get("source") if isinstance(value, dict) else None
        data = source.get("bytes") if isinstance(source, dict) else None
        if not isinstance(block.part, Media) or not isinstance(data, str):
            return False
        block.data.append(_decoded(data))
        return True

    def _block_stop(self, value: Fields) -> bool:
        number = value.get("contentBlockIndex")
        if not isinstance(number, int):
            return False
        self._close_block(number)
        return True

    def _message_stop(self, value: Fields) -> bool:
        for number in sorted(self._blocks):
            self._close_block(number)
        self._settle()
        self._ended = value
        return True

    def _metadata(self, value: Fields) -> bool:
        if self._ended is None:
            return False
        self._finish(value)
        return True

    # Parts

    def _open(self, block: _Block, part: Part) -> None:
        self._settle()
        block.part = part
        block.index, self._next = self._next, self._next + 1
        self._events.append(PartStart(block.index, part))

    def _settle(self) -> None:
        """Tell the end of the text that was waiting for citations."""
        if self._waiting >= 0:
            self._events.append(PartStop(self._waiting))
            self._waiting = -1

    def _close_block(self, number: int) -> None:
        block = self._blocks.pop(number, None)
        if block is None:
            return
        part = block.part
        if part is None:
            self._cite(block.cited)
        elif block.index < 0:
            whole = base64.b64encode(b"".join(block.data)).decode("ascii")
            if isinstance(part, Thinking):
                part.signature = whole
            elif isinstance(part, Media):
                part.media_type, part.data = f"image/{block.form}", whole
            self._open(block, part)
            self._events.append(PartStop(block.index))
        elif isinstance(part, Text):
            self._waiting = block.index
        else:
            if isinstance(part, ToolCall) and not block.spoken:
                self._events.append(ArgumentsDelta(block.index, "{}"))
            self._events.append(PartStop(block.index))

    def _cite(self, cited: list[Citation]) -> None:
        """Citations of a block without words: they are about the text before it."""
        if cited and self._waiting < 0:
            block = _Block()
            self._open(block, Text(""))
            self._waiting = block.index
        self._events += [PartExtra(self._waiting, citation=citation) for citation in cited]

    def _finish(self, metadata: Fields) -> None:
        ended = self._ended or {}
        reason, usage = ended.get("stopReason"), metadata.get("usage")
        if isinstance(reason, str):
            self._events.append(ChoiceStop(stop_reason(reason), extra=choice_extra({**metadata, **ended})))
        if isinstance(usage, dict):
            self._events.append(UsageSeen(usage_of(usage)))
        self._events.append(MessageStop())
        self._done = True


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise UpstreamProtocol("an event of the upstream's stream holds bytes that are not base64") from None


_HANDLERS: Mapping[str, Callable[[ConverseDecoder, Fields], bool]] = {
    "messageStart": ConverseDecoder._message_start,
    "contentBlockStart": ConverseDecoder._block_start,
    "contentBlockDelta": ConverseDecoder._block_delta,
    "contentBlockStop": ConverseDecoder._block_stop,
    "messageStop": ConverseDecoder._message_stop,
    "metadata": ConverseDecoder._metadata,
}
_DELTAS: Mapping[str, Callable[[ConverseDecoder, _Block, Any], bool]] = {
    "text": ConverseDecoder._text,
    "citation": ConverseDecoder._citation,
    "reasoningContent": ConverseDecoder._reasoning,
    "toolUse": ConverseDecoder._arguments,
    "toolResult": ConverseDecoder._result,
    "image": ConverseDecoder._image,
}
