"""The decoder of an answer, streamed or complete: a complete answer is a stream of one piece."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from relay import kit
from relay.errors import UpstreamError, UpstreamProtocol
from relay.events import (
    ArgumentsDelta,
    ChoiceStop,
    Event,
    Failure,
    Logprobs,
    MessageStart,
    MessageStop,
    OpaqueEvent,
    PartExtra,
    PartStart,
    PartStop,
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.ir import Extra, Media, Opaque, Refusal, StopReason, Text, Thinking, ToolCall
from relay_gemini.arguments import PartialArguments
from relay_gemini.citation import citations_of
from relay_gemini.enums import STOP_KINDS, block_reason, finish_reason
from relay_gemini.errors import error_of, find_error
from relay_gemini.framing import ObjectDecoder
from relay_gemini.logprobs import logprobs_of
from relay_gemini.usage import usage_of

__all__ = ["DIALECT", "AnswerReader", "GeminiDecoder"]

DIALECT = "gemini"

_TOP = frozenset({"candidates", "usageMetadata", "modelVersion", "responseId", "createTime", "promptFeedback"})
_CANDIDATE = frozenset({"content", "finishReason", "index", "logprobsResult"})


class _Candidate:
    """One candidate under way."""

    __slots__ = ("arguments", "call", "called", "extra", "index", "kind", "parts", "reason", "texts", "waiting")

    def __init__(self) -> None:
        self.index = -1
        """The open part; -1 if none is."""
        self.kind: type[Any] | None = None
        """The open part's type."""
        self.call: ToolCall | None = None
        self.arguments = PartialArguments()
        self.called = False
        self.parts = 0
        self.reason: str | None = None
        self.extra: dict[str, Any] = {}
        self.texts: dict[int, list[str]] = {}
        """Its texts, by the number of the part: what they rest on is told behind them."""
        self.waiting = -1
        """The last text, which stays open until something else is said; -1 if there is none."""


class AnswerReader:
    """Turns the vendor's response objects, one or many, into hub events.

    Text that goes on from one object to the next is one part. A piece with a `thoughtSignature` is a part of its own,
    even if its text is empty: the signature must come back on exactly that piece.
    """

    __slots__ = ("_candidates", "_counts", "_events", "_next", "_seed", "_started", "blocked", "broken")

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._candidates: dict[int, _Candidate] = {}
        self._next = 0
        self._seed = ""
        self._started = False
        self._counts: dict[str, Any] | None = None
        self.blocked: dict[str, Any] | None = None
        """The `promptFeedback` that says the prompt was refused."""
        self.broken: UpstreamError | None = None

    @property
    def unfinished(self) -> bool:
        """Whether a candidate has not said why it ended, or there was none and no reason for that."""
        if not self._candidates:
            return self.blocked is None
        return any(candidate.reason is None for candidate in self._candidates.values())

    @property
    def calling(self) -> bool:
        """Whether a call goes on."""
        return any(candidate.call is not None for candidate in self._candidates.values())

    @property
    def empty(self) -> bool:
        """Whether there was neither a candidate nor a reason for having none."""
        return not self._candidates and self.blocked is None

    def take(self) -> list[Event]:
        """The events so far, handed out once."""
        events, self._events = self._events, []
        return events

    def read(self, value: dict[str, Any]) -> None:
        """Take in one response object. Raises UpstreamError if it is an error."""
        error = find_error(value)
        if error is not None:
            raise error_of(error)
        if not self._started:
            self._start(value)
        feedback = value.get("promptFeedback")
        if isinstance(feedback, dict) and block_reason(feedback.get("blockReason")) is not None:
            self.blocked = feedback
        candidates = value.get("candidates")
        for place, entry in enumerate(candidates if isinstance(candidates, list) else ()):
            if isinstance(entry, dict):
                number = entry.get("index")
                self._read_candidate(number if type(number) is int else place, entry)
        metadata = value.get("usageMetadata")
        if isinstance(metadata, dict) and metadata != self._counts:
            usage = usage_of(metadata)
            if usage.input is not None or usage.output is not None:
                self._counts = metadata
                self._events.append(UsageSeen(usage))

    def end(self) -> None:
        """Close what is open, and tell how each candidate ended."""
        for number, candidate in sorted(self._candidates.items()):
            self._close(candidate)
            self._cite(candidate)
            self._close_text(candidate)
            reason = candidate.reason
            if reason is None:
                continue
            kind = STOP_KINDS.get(reason, "other")
            message = candidate.extra.get("finishMessage")
            if kind == "filter" and not candidate.parts and isinstance(message, str) and message:
                self._refuse(number, message)
            if kind == "stop" and candidate.called:
                kind = "tool_calls"
            extra: Extra | None = {DIALECT: candidate.extra} if candidate.extra else None
            self._events.append(ChoiceStop(StopReason(kind, reason), number, extra))
        if self.blocked is not None and not self._candidates:
            reason = block_reason(self.blocked.get("blockReason"))
            message = self.blocked.get("blockReasonMessage")
            said = message if isinstance(message, str) and message else f"The upstream blocked the prompt: {reason}."
            self._refuse(0, said)
            extra = {DIALECT: {"promptFeedback": self.blocked}}
            self._events.append(ChoiceStop(StopReason("filter", reason), 0, extra))

    def _start(self, value: dict[str, Any]) -> None:
        self._started = True
        response_id = str(value.get("responseId") or "")
        created = value.get("createTime")
        self._seed = f"{response_id} {created}"
        extra = {name: item for name, item in value.items() if name not in _TOP and item is not None}
        self._events.append(
            MessageStart(
                response_id,
                str(value.get("modelVersion") or ""),
                _seconds(created),
                extra={DIALECT: extra} if extra else None,
            )
        )

    def _read_candidate(self, number: int, entry: dict[str, Any]) -> None:
        candidate = self._candidates.get(number)
        if candidate is None:
            candidate = self._candidates[number] = _Candidate()
        content = entry.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._read_part(number, candidate, part)
        if "logprobsResult" in entry and (logprobs := logprobs_of(entry["logprobsResult"])):
            self._events.append(Logprobs(logprobs, number))
        if "finishReason" in entry:
            # Some streams name a reason and go on: the last one counts.
            candidate.reason = finish_reason(entry["finishReason"]) or candidate.reason
        for name, value in entry.items():
            if name not in _CANDIDATE and value is not None:
                candidate.extra[name] = value

    def _read_part(self, number: int, candidate: _Candidate, part: dict[str, Any]) -> None:
        for name, reader in _PARTS:
            if name in part:
                reader(self, number, candidate, part)
                return
        if part.keys() == {"thoughtSignature"}:
            self._whole(number, candidate, Text("", extra={DIALECT: part}))
        elif part:
            self._whole(number, candidate, Opaque(DIALECT, part))

    def _read_text(self, number: int, candidate: _Candidate, part: dict[str, Any]) -> None:
        text = part["text"]
        if not isinstance(text, str):
            self._whole(number, candidate, Opaque(DIALECT, part))
            return
        thought = part.get("thought") is True
        kind: type[Any] = Thinking if thought else Text
        rest = {name: value for name, value in part.items() if name not in ("text", "thought") and value is not None}
        if not text and not rest:
            return
        if rest or candidate.kind is not kind:
            self._close(candidate)
            extra: Extra | None = {DIALECT: rest} if rest else None
            shell = Thinking("", dialect=DIALECT, extra=extra) if thought else Text("", extra=extra)
            self._open(number, candidate, shell, more=bool(text))
        if text:
            delta = ThinkingDelta if thought else TextDelta
            self._events.append(delta(candidate.index, text))
            if not thought:
                candidate.texts.setdefault(candidate.index, []).append(text)
        if rest:
            self._close(candidate)

    def _read_call(self, number: int, candidate: _Candidate, part: dict[str, Any]) -> None:
        call = part["functionCall"]
        if not isinstance(call, dict):
            self._whole(number, candidate, Opaque(DIALECT, part))
            return
        name = call.get("name")
        if isinstance(name, str) and name:
            self._begin_call(number, candidate, name, part, call)
        if candidate.call is None:
            if call:
                self._whole(number, candidate, Opaque(DIALECT, part))
            return
        pieces = call.get("partialArgs")
        for piece in pieces if isinstance(pieces, list) else ():
            if not isinstance(piece, dict) or not candidate.arguments.add(piece):
                self._events.append(OpaqueEvent(DIALECT, piece, "partialArgs"))
        arguments = call.get("args")
        if isinstance(arguments, dict):
            candidate.arguments.value.update(arguments)
        if call.get("willContinue") is not True:
            self._close(candidate)

    def _begin_call(
        self, number: int, candidate: _Candidate, name: str, part: dict[str, Any], call: dict[str, Any]
    ) -> None:
        self._close(candidate)
        extra = {key: value for key, value in part.items() if key != "functionCall" and value is not None}
        call_id = call.get("id")
        if not isinstance(call_id, str) or not call_id:
            # Derived from what is there, so that any cut of the stream and a second reading give the same one.
            material = f"{self._seed} {self._next} {name}"
            call_id = "call_" + hashlib.sha256(material.encode("utf-8", "surrogatepass")).hexdigest()[:24]
        candidate.call = ToolCall(call_id, name, "", extra={DIALECT: extra} if extra else None)
        candidate.arguments = PartialArguments()
        candidate.called = True
        self._open(number, candidate, candidate.call)

    def _read_data(self, number: int, candidate: _Candidate, part: dict[str, Any]) -> None:
        blob = part["inlineData"]
        # A picture that the model drew while thinking is not its answer.
        if part.get("thought") is True or not isinstance(blob, dict) or not isinstance(blob.get("data"), str):
            self._whole(number, candidate, Opaque(DIALECT, part))
            return
        media_type = str(blob.get("mimeType") or "")
        rest = {name: value for name, value in part.items() if name != "inlineData" and value is not None}
        media = Media(
            _KINDS.get(media_type.partition("/")[0], "document"),
            media_type=media_type or None,
            data=blob["data"],
            name=blob.get("displayName"),
            extra={DIALECT: rest} if rest else None,
        )
        self._whole(number, candidate, media)

    def _open(
        self, number: int, candidate: _Candidate, part: Text | Thinking | ToolCall | Refusal, *, more: bool = True
    ) -> None:
        """Begin a part. `more`: it says something, so that what was said before is complete."""
        if not isinstance(part, Text) or more:
            self._close_text(candidate)
        candidate.index, self._next = self._next, self._next + 1
        candidate.kind = type(part)
        candidate.parts += 1
        self._events.append(PartStart(candidate.index, part, number))

    def _whole(self, number: int, candidate: _Candidate, part: Text | Media | Opaque) -> None:
        self._close(candidate)
        if not isinstance(part, Text):
            self._close_text(candidate)
        index, self._next = self._next, self._next + 1
        candidate.parts += 1
        self._events += [PartStart(index, part, number), PartStop(index)]

    def _close(self, candidate: _Candidate) -> None:
        if candidate.call is not None:
            arguments = kit.dumps(candidate.arguments.value).decode()
            self._events.append(ArgumentsDelta(candidate.index, arguments))
            candidate.call = None
        if candidate.index in candidate.texts:
            # Some vendors' last word comes with a signature on nothing, and the sources with that.
            self._close_text(candidate)
            candidate.waiting = candidate.index
        elif candidate.index >= 0:
            self._events.append(PartStop(candidate.index))
        candidate.index, candidate.kind = -1, None

    def _close_text(self, candidate: _Candidate) -> None:
        if candidate.waiting >= 0:
            self._events.append(PartStop(candidate.waiting))
            candidate.waiting = -1

    def _cite(self, candidate: _Candidate) -> None:
        """Tell what the texts rest on, of which all is known now."""
        if not candidate.texts or candidate.extra.keys().isdisjoint(("groundingMetadata", "citationMetadata")):
            return
        indices = list(candidate.texts)
        for place, citation in citations_of(candidate.extra, ["".join(pieces) for pieces in candidate.texts.values()]):
            self._events.append(PartExtra(indices[place], citation=citation))

    def _refuse(self, number: int, message: str) -> None:
        index, self._next = self._next, self._next + 1
        self._events += [PartStart(index, Refusal(""), number), TextDelta(index, message), PartStop(index)]


_KINDS: dict[str, Any] = {"image": "image", "audio": "audio", "video": "video"}

_PARTS: tuple[tuple[str, Callable[[AnswerReader, int, _Candidate, dict[str, Any]], None]], ...] = (
    ("text", AnswerReader._read_text),
    ("functionCall", AnswerReader._read_call),
    ("inlineData", AnswerReader._read_data),
)


def _seconds(text: Any) -> int | None:
    if not isinstance(text, str):
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError):
        return None


class GeminiDecoder:
    """A stream of response objects to hub events.

    The protocol has no closing frame. A stream is complete if every candidate has given its `finishReason` (or the
    prompt was blocked) when the bytes end; because more text may still follow a reason, the end is told by `close`.
    """

    __slots__ = ("_done", "_objects", "_reader")

    def __init__(self) -> None:
        self._objects = ObjectDecoder()
        self._reader = AnswerReader()
        self._done = False

    def feed(self, data: bytes, /) -> list[Event]:
        """Events that `data` completes. Faults of the stream come as a `Failure`, never as an exception."""
        if self._done:
            return []
        try:
            self._read(self._objects.feed(data))
        except UpstreamError as error:
            return self._fail(error)
        return self._reader.take()

    def close(self) -> list[Event]:
        """The end of the message, or a `Failure` if it has none."""
        if self._done:
            return []
        try:
            self._read(self._objects.flush())
            if self._reader.unfinished:
                raise UpstreamProtocol("the upstream's stream ended before a finishReason")
        except UpstreamError as error:
            return self._fail(error)
        self._done = True
        self._reader.end()
        return [*self._reader.take(), MessageStop()]

    def _fail(self, error: UpstreamError) -> list[Event]:
        self._done = True
        return [*self._reader.take(), Failure(error)]

    def _read(self, frames: list[bytes]) -> None:
        for frame in frames:
            try:
                value = kit.loads(frame)
            except ValueError:
                raise UpstreamProtocol("a piece of the upstream's stream is not JSON") from None
            for entry in value if isinstance(value, list) else [value]:
                if not isinstance(entry, dict):
                    raise UpstreamProtocol("a piece of the upstream's stream is not a JSON object")
                self._reader.read(entry)
