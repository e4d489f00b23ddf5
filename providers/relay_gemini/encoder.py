"""Streamed answers: the hub's events to a stream of `GenerateContentResponse` objects.

Text and thoughts go out as they come. Function calls have no streamed form that clients of this dialect read, so each
goes out whole, once it is complete. How the candidates ended, and what they used, stands in the last object.

Text, which is nearly all events, is written by joining ready-made bytes around the one string that changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
from relay.ir import Citation, Media, Opaque, Refusal, Response, StopReason, Text, Thinking, ToolCall, Usage
from relay.kit import dumps
from relay_gemini.foreign import thought_label
from relay_gemini.frames import Frames
from relay_gemini.shapes import (
    Thoughts,
    Wire,
    beside,
    call_part,
    ending,
    error_object,
    logprobs_result,
    media_part,
    own_fields,
    prompt_feedback,
    usage_object,
)
from relay_gemini.stream import DIALECT

__all__ = ["ContentEncoder"]

EMPTY: Wire = {"parts": [{"text": ""}], "role": "model"}
"""The content of an object that only tells about its candidate: clients drop a turn that has an object without any."""


class _Text:
    """A text: all of it, and what it rests on, which is told at the end."""

    __slots__ = ("citations", "pieces")

    def __init__(self, text: str, citations: list[Citation] | None) -> None:
        self.pieces = [text] if text else []
        self.citations = list(citations or ())


class _Candidate:
    """One choice on its way."""

    __slots__ = ("extra", "refusal", "said", "stop", "texts", "thoughts")

    def __init__(self) -> None:
        self.thoughts = Thoughts()
        self.texts: list[_Text] = []
        self.refusal: list[str] | None = None
        """What the model declined with: it is told at the end, if not the prompt was blocked."""
        self.said = False
        """Whether there was any part, even one that this format has no place for."""
        self.stop: StopReason | None = None
        self.extra: Any = None


class _Open:
    """A part on its way: what is known of it until it is complete."""

    __slots__ = ("choice", "extra", "head", "part", "pieces", "signature", "tail")

    def __init__(self, part: Any, choice: int, head: bytes = b"", tail: bytes = b"") -> None:
        self.part = part
        self.choice = choice
        self.extra = part.extra
        self.head = head
        """What comes before each piece of its text; empty if the text is kept until it is complete."""
        self.tail = tail
        self.pieces: list[str] = []
        self.signature: str | None = None


class ContentEncoder:
    """A `StreamEncoder` for `streamGenerateContent`.

    `model` and `new_id` stand in where the upstream named neither. Thoughts are shown only to callers who asked for
    them (`thoughts`).
    """

    __slots__ = (
        "_candidates",
        "_frames",
        "_model",
        "_new_id",
        "_open",
        "_out",
        "_over",
        "_shown",
        "_start",
        "_tail",
        "_texts",
        "_usage",
    )

    def __init__(self, frames: Frames, *, model: str, new_id: str, thoughts: bool) -> None:
        self._frames = frames
        self._model = model
        self._new_id = new_id
        self._shown = thoughts
        self._start = MessageStart("", "")
        self._tail = b""
        self._usage: Usage | None = None
        self._candidates: dict[int, _Candidate] = {}
        self._open: dict[int, _Open] = {}
        self._texts: dict[int, _Text] = {}
        self._over = False
        self._out: list[bytes] = []

    def encode(self, events: list[Event], /) -> bytes:
        """The objects for these events. Nothing follows a failure or the end."""
        self._out = []
        parts, texts = self._open, self._texts
        for event in events:
            if type(event) is TextDelta:
                part = parts.get(event.index)
                if event.index in texts:
                    texts[event.index].pieces.append(event.text)
                if part is not None and part.head:
                    self._out.append(self._frames.frame(part.head + dumps(event.text) + part.tail))
                elif part is not None:
                    part.pieces.append(event.text)
                continue
            write = _WRITE.get(type(event))
            if write is not None and not self._over:
                write(self, event)
        return b"".join(self._out)

    def failure(self, error: RelayError, /) -> bytes:
        """The error as clients raise it, once."""
        if self._over:
            return b""
        self._over = True
        self._open.clear()
        return self._frames.frame(dumps({"error": error_object(error)})) + self._frames.end()

    # Objects.

    def _beside(self) -> bytes:
        """The end of each object: what stands beside the candidates."""
        if not self._tail:
            start = self._start
            response = Response(start.id, start.model, [], created=start.created, extra=start.extra)
            self._tail = b"," + dumps(beside(response, model=self._model, new_id=self._new_id))[1:]
        return self._tail

    def _ends(self, choice: int) -> tuple[bytes, bytes]:
        """The bytes of an object before and behind its one part."""
        head = b'{"candidates":[{"content":{"parts":['
        return head, b'],"role":"model"},"index":%d}]' % choice + self._beside()

    def _write(self, choice: int, part: Wire) -> None:
        """An object with one part."""
        head, tail = self._ends(choice)
        self._out.append(self._frames.frame(head + dumps(part) + tail))

    def _candidate(self, choice: int) -> _Candidate:
        found = self._candidates.get(choice)
        if found is None:
            found = self._candidates[choice] = _Candidate()
        return found

    # Events.

    def _message_start(self, event: MessageStart) -> None:
        if not self._tail:
            self._start = event

    def _part_start(self, event: PartStart) -> None:
        self._candidate(event.choice).said = True
        start = _START.get(type(event.part))
        if start is not None:
            start(self, event)

    def _start_text(self, event: PartStart) -> None:
        part: Any = event.part
        said = self._texts[event.index] = _Text(part.text, part.citations)
        self._candidate(event.choice).texts.append(said)
        if own_fields(part.extra):
            # What stands beside its text goes with all of it.
            self._open[event.index] = _Open(part, event.choice)
            return
        head, tail = self._ends(event.choice)
        self._open[event.index] = _Open(part, event.choice, head + b'{"text":', b"}" + tail)
        if part.text:
            self._write(event.choice, {"text": part.text})

    def _start_thinking(self, event: PartStart) -> None:
        part: Any = event.part
        if not self._shown or part.redacted or own_fields(part.extra):
            opened = _Open(part, event.choice)
        else:
            head, tail = self._ends(event.choice)
            known = Thinking("", dialect=part.dialect)
            mark = b"" if part.dialect == DIALECT else b',"thoughtSignature":' + dumps(thought_label(known))
            opened = _Open(part, event.choice, head + b'{"text":', b',"thought":true' + mark + b"}" + tail)
        self._open[event.index] = opened
        if part.text:
            self._thinking(ThinkingDelta(event.index, part.text))

    def _start_kept(self, event: PartStart) -> None:
        part: Any = event.part
        self._open[event.index] = _Open(part, event.choice)

    def _start_media(self, event: PartStart) -> None:
        part: Any = event.part
        written = media_part(part)
        if written is not None:
            self._write(event.choice, written)

    def _start_opaque(self, event: PartStart) -> None:
        part: Any = event.part
        if part.dialect == DIALECT and isinstance(part.data, dict):
            self._write(event.choice, part.data)

    def _thinking(self, event: ThinkingDelta) -> None:
        part = self._open.get(event.index)
        if part is None or not isinstance(part.part, Thinking):
            return
        part.pieces.append(event.text)
        if part.head:
            self._out.append(self._frames.frame(part.head + dumps(event.text) + part.tail))

    def _signature(self, event: SignatureDelta) -> None:
        part = self._open.get(event.index)
        if part is not None:
            part.signature = (part.signature or "") + event.signature

    def _arguments(self, event: ArgumentsDelta) -> None:
        part = self._open.get(event.index)
        if part is not None:
            part.pieces.append(event.arguments)

    def _part_extra(self, event: PartExtra) -> None:
        if event.citation is not None and event.index in self._texts:
            self._texts[event.index].citations.append(event.citation)
        part = self._open.get(event.index)
        if part is not None and event.extra:
            part.extra = merge_extra(part.extra, event.extra)

    def _part_stop(self, event: PartStop) -> None:
        part = self._open.pop(event.index, None)
        if part is not None:
            _STOP[type(part.part)](self, part)

    def _stop_text(self, part: _Open) -> None:
        own = own_fields(part.extra)
        if part.head and own:
            self._write(part.choice, {"text": "", **own})
        elif not part.head:
            self._write(part.choice, {"text": part.part.text + "".join(part.pieces), **own})

    def _stop_refusal(self, part: _Open) -> None:
        candidate = self._candidate(part.choice)
        candidate.refusal = [*(candidate.refusal or ()), part.part.text, *part.pieces]

    def _stop_thinking(self, part: _Open) -> None:
        signature = part.signature if part.signature is not None else part.part.signature
        whole = replace(part.part, text="".join(part.pieces), signature=signature, extra=part.extra)
        self._candidate(part.choice).thoughts.add(whole)
        if not self._shown or whole.redacted:
            return
        if whole.dialect != DIALECT:
            if whole.signature is not None or whole.extra:
                self._write(part.choice, {"text": "", "thought": True, "thoughtSignature": thought_label(whole)})
        elif not part.head or own_fields(whole.extra):
            shown = "" if part.head else whole.text
            self._write(part.choice, {"text": shown, "thought": True, **own_fields(whole.extra)})

    def _stop_call(self, part: _Open) -> None:
        if part.part.server:
            # The client would run what was run already.
            return
        call = replace(part.part, arguments=part.part.arguments + "".join(part.pieces), extra=part.extra)
        self._write(part.choice, call_part(call, self._candidate(part.choice).thoughts.signature(call)))

    def _logprobs(self, event: Logprobs) -> None:
        result = logprobs_result(event.content)
        if result is not None:
            candidate = dumps([{"content": EMPTY, "index": event.choice, "logprobsResult": result}])
            self._out.append(self._frames.frame(b'{"candidates":' + candidate + self._beside()))

    def _seen(self, event: UsageSeen) -> None:
        self._usage = event.usage

    def _choice_stop(self, event: ChoiceStop) -> None:
        candidate = self._candidate(event.choice)
        candidate.stop, candidate.extra = event.stop, event.extra

    def _message_stop(self, event: MessageStop) -> None:
        for index in sorted(self._open):
            self._part_stop(PartStop(index))
        body: dict[str, Any] = {}
        candidates = []
        for index, candidate in sorted(self._candidates.items()):
            refused = candidate.refusal is not None
            feedback = prompt_feedback(candidate.stop, candidate.extra, silent=not candidate.said)
            if feedback is not None:
                body["promptFeedback"] = feedback
                continue
            content = {"parts": [{"text": "".join(candidate.refusal)}], "role": "model"} if candidate.refusal else EMPTY
            texts = [("".join(text.pieces), text.citations) for text in candidate.texts]
            end = ending(candidate.stop, candidate.extra, texts, refused=refused)
            candidates.append({"content": content, **end, "index": index})
        if candidates:
            body["candidates"] = candidates
        if (usage := usage_object(self._usage)) is not None:
            body["usageMetadata"] = usage
        tail = self._beside()
        self._out.append(self._frames.frame(dumps(body)[:-1] + tail if body else b"{" + tail[1:]))
        self._out.append(self._frames.end())
        self._over = True

    def _failure(self, event: Failure) -> None:
        self._out.append(self.failure(event.error))


_WRITE: dict[type[Any], Callable[[ContentEncoder, Any], None]] = {
    MessageStart: ContentEncoder._message_start,
    PartStart: ContentEncoder._part_start,
    ThinkingDelta: ContentEncoder._thinking,
    SignatureDelta: ContentEncoder._signature,
    ArgumentsDelta: ContentEncoder._arguments,
    PartExtra: ContentEncoder._part_extra,
    PartStop: ContentEncoder._part_stop,
    Logprobs: ContentEncoder._logprobs,
    UsageSeen: ContentEncoder._seen,
    ChoiceStop: ContentEncoder._choice_stop,
    MessageStop: ContentEncoder._message_stop,
    Failure: ContentEncoder._failure,
}
_START: dict[type[Any], Callable[[ContentEncoder, PartStart], None]] = {
    Text: ContentEncoder._start_text,
    Refusal: ContentEncoder._start_kept,
    Thinking: ContentEncoder._start_thinking,
    ToolCall: ContentEncoder._start_kept,
    Media: ContentEncoder._start_media,
    Opaque: ContentEncoder._start_opaque,
}
_STOP: dict[type[Any], Callable[[ContentEncoder, _Open], None]] = {
    Text: ContentEncoder._stop_text,
    Refusal: ContentEncoder._stop_refusal,
    Thinking: ContentEncoder._stop_thinking,
    ToolCall: ContentEncoder._stop_call,
}
