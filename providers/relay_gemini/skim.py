"""Counting streams that pass through: each object is parsed, and of it only what counts is looked at."""

from __future__ import annotations

from typing import Any

from relay import kit
from relay.errors import RelayError, UpstreamError, UpstreamProtocol
from relay.ir import ToolCall, Usage
from relay.meter import Meter
from relay_gemini.enums import STOP_KINDS, block_reason, finish_reason
from relay_gemini.errors import error_of, find_error
from relay_gemini.framing import ObjectDecoder
from relay_gemini.stream import AnswerReader
from relay_gemini.usage import is_count, usage_of

__all__ = ["ContentMeter"]


class ContentMeter:
    """A `StreamMeter` of response objects. It comes to the same end as the decoder, and builds events only of calls
    that are kept."""

    __slots__ = (
        "_called",
        "_calls",
        "_counts",
        "_objects",
        "_reader",
        "_reasons",
        "_seen",
        "_usage",
        "begun",
        "complete",
        "error",
        "filtered",
        "keep_calls",
    )

    def __init__(self) -> None:
        self._counts: dict[str, Any] | None = None
        """The last `usageMetadata`: every object has one, and only the last that came is ever asked for."""
        self._usage: Usage | None = None
        self.complete = False
        self.begun = False
        self.error: RelayError | None = None
        self._objects = ObjectDecoder()
        self._reasons: dict[int, str | None] = {}
        self.filtered = False
        """Whether the prompt, or a candidate, was held back."""
        self._seen = 0.0
        self.keep_calls = False
        self._called = False
        """Whether the object that is looked at has a call in it."""
        self._reader: AnswerReader | None = None
        """Reads objects with calls, and none besides, as soon as there is one."""
        self._calls = Meter(keep_calls=True)

    @property
    def usage(self) -> Usage | None:
        """The upstream's last count."""
        if self._counts is not None and (self._usage is None or self._usage.raw is not self._counts):
            self._usage = usage_of(self._counts)
        return self._usage

    @property
    def seen(self) -> float:
        """Output tokens seen so far, estimated."""
        return self._seen

    @property
    def ended(self) -> int:
        """Candidates that said why they stopped."""
        return sum(reason is not None for reason in self._reasons.values())

    def calls(self) -> list[ToolCall]:
        """The calls so far, with the arguments that a decoder would tell."""
        return self._calls.calls()

    def feed(self, data: bytes, /) -> None:
        """The next bytes."""
        if self.error is not None:
            return
        try:
            self._read(self._objects.feed(data))
        except UpstreamError as error:
            self.error = error

    def close(self) -> None:
        """The end of the bytes: there is no closing event, so only now it is known whether all candidates ended."""
        if self.error is not None:
            return
        try:
            self._read(self._objects.flush())
            if (not self._reasons and not self.filtered) or None in self._reasons.values():
                raise UpstreamProtocol("the upstream's stream ended before a finishReason")
        except UpstreamError as error:
            self.error = error
            return
        self.complete = self.begun = True
        if self._reader is not None:
            self._reader.end()
            self._calls.add(self._reader.take())

    def _read(self, frames: list[bytes]) -> None:
        for frame in frames:
            try:
                value = kit.loads(frame)
            except ValueError:
                raise UpstreamProtocol("a piece of the upstream's stream is not JSON") from None
            for entry in value if isinstance(value, list) else [value]:
                if not isinstance(entry, dict):
                    raise UpstreamProtocol("a piece of the upstream's stream is not a JSON object")
                self._object(entry)

    def _object(self, value: dict[str, Any]) -> None:
        error = find_error(value)
        if error is not None:
            raise error_of(error)
        self._called = False
        candidates = value.get("candidates")
        for place, entry in enumerate(candidates if isinstance(candidates, list) else ()):
            if isinstance(entry, dict):
                number = entry.get("index")
                self._candidate(number if type(number) is int else place, entry)
        if self.keep_calls:
            self._keep(value)
        feedback = value.get("promptFeedback")
        if isinstance(feedback, dict) and block_reason(feedback.get("blockReason")) is not None:
            self.filtered = True
        metadata = value.get("usageMetadata")
        if isinstance(metadata, dict) and is_count(metadata):
            self._counts = metadata

    def _keep(self, value: dict[str, Any]) -> None:
        """Read an object with a call, or behind one that goes on."""
        if self._reader is None:
            if not self._called:
                return
            self._reader = AnswerReader()
        if self._called or self._reader.calling:
            self._reader.read(value)
            self._calls.add(self._reader.take())

    def _candidate(self, number: int, entry: dict[str, Any]) -> None:
        reason = self._reasons.get(number)
        if "finishReason" in entry:
            reason = finish_reason(entry["finishReason"]) or reason
            self.filtered = self.filtered or STOP_KINDS.get(reason or "", "other") == "filter"
        self._reasons[number] = reason
        content = entry.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                self._part(part)

    def _part(self, part: dict[str, Any]) -> None:
        words, call = part.get("text"), part.get("functionCall")
        self._called = self._called or call is not None
        if isinstance(words, str):
            self._seen += len(words) / 4 if words.isascii() else kit.estimate_tokens(words)
            self.begun = self.begun or bool(words)
        elif isinstance(call, dict):
            self._seen += len(kit.dumps(call.get("args") or call.get("partialArgs") or {})) / 4
            self.begun = True
