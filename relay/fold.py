"""Events to a response and back: one source of truth for streamed and complete answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from relay.ir import Choice, Extra, Part, Refusal, Response, Text, Thinking, ToolCall, Usage

__all__ = ["Fold", "unfold"]


class Fold:
    """Collects a stream's events into the response that they spell out."""

    __slots__ = ("_pieces", "choices", "complete", "error", "parts", "start", "usage")

    def __init__(self) -> None:
        self.start: MessageStart | None = None
        self.choices: dict[int, Choice] = {}
        self.parts: dict[int, Part] = {}
        self._pieces: dict[int, list[str]] = {}
        """What came of a part's text or arguments since they were put together last."""
        self.usage: Usage | None = None
        self.complete = False
        self.error: RelayError | None = None

    def add(self, events: Iterable[Event]) -> None:
        """Take in more of the stream."""
        for event in events:
            method = _ADD.get(type(event))
            if method is not None:
                method(self, event)

    def response(self) -> Response:
        """What was said so far."""
        for index in self._pieces:
            self._put_together(index)
        start = self.start or MessageStart(id="", model="")
        return Response(
            id=start.id,
            model=start.model,
            created=start.created,
            choices=[self.choices[index] for index in sorted(self.choices)],
            usage=self.usage,
            extra=start.extra,
        )

    def _choice(self, index: int) -> Choice:
        choice = self.choices.get(index)
        if choice is None:
            choice = self.choices[index] = Choice(parts=[])
        return choice

    def _start(self, event: MessageStart) -> None:
        if self.start is None:
            self.start = event

    def _part(self, event: PartStart) -> None:
        # A copy: the decoder's shell may be shared with an encoder that reads it later.
        part = _copy(event.part)
        if isinstance(part, Text) and part.citations:
            part.citations = list(part.citations)
        self._put_together(event.index)
        self.parts[event.index] = part
        self._choice(event.choice).parts.append(part)

    def _put_together(self, index: int) -> None:
        # Once, and not anew for each piece: that takes a time that grows with the square of their number.
        pieces = self._pieces.get(index)
        if pieces:
            text = "".join(pieces)
            pieces.clear()
            part = self.parts[index]
            if isinstance(part, Text | Refusal | Thinking):
                part.text += text
            elif isinstance(part, ToolCall):
                part.arguments += text

    def _text(self, event: TextDelta) -> None:
        part = self.parts.get(event.index)
        if isinstance(part, Text | Refusal):
            self._pieces.setdefault(event.index, []).append(event.text)

    def _thinking(self, event: ThinkingDelta) -> None:
        part = self.parts.get(event.index)
        if isinstance(part, Thinking):
            self._pieces.setdefault(event.index, []).append(event.text)

    def _signature(self, event: SignatureDelta) -> None:
        part = self.parts.get(event.index)
        if isinstance(part, Thinking):
            part.signature = (part.signature or "") + event.signature

    def _arguments(self, event: ArgumentsDelta) -> None:
        part = self.parts.get(event.index)
        if isinstance(part, ToolCall):
            self._pieces.setdefault(event.index, []).append(event.arguments)

    def _extra(self, event: PartExtra) -> None:
        part = self.parts.get(event.index)
        if part is None:
            return
        if event.citation is not None and isinstance(part, Text):
            part.citations = part.citations or []
            part.citations.append(event.citation)
        if event.extra:
            part.extra = merge_extra(part.extra, event.extra)

    def _logprobs(self, event: Logprobs) -> None:
        choice = self._choice(event.choice)
        choice.logprobs = choice.logprobs or []
        choice.logprobs += event.content

    def _usage(self, event: UsageSeen) -> None:
        self.usage = event.usage

    def _stop(self, event: ChoiceStop) -> None:
        choice = self._choice(event.choice)
        choice.stop = event.stop
        if event.extra:
            choice.extra = merge_extra(choice.extra, event.extra)

    def _end(self, event: MessageStop) -> None:
        self.complete = True

    def _failure(self, event: Failure) -> None:
        self.error = event.error


_ADD: dict[type[Any], Callable[[Fold, Any], None]] = {
    MessageStart: Fold._start,
    PartStart: Fold._part,
    TextDelta: Fold._text,
    ThinkingDelta: Fold._thinking,
    SignatureDelta: Fold._signature,
    ArgumentsDelta: Fold._arguments,
    PartExtra: Fold._extra,
    Logprobs: Fold._logprobs,
    UsageSeen: Fold._usage,
    ChoiceStop: Fold._stop,
    MessageStop: Fold._end,
    Failure: Fold._failure,
}


def merge_extra(old: Extra | None, new: Extra) -> Extra:
    """`old` with `new` laid over it, dialect by dialect."""
    merged = {dialect: dict(fields) for dialect, fields in (old or {}).items()}
    for dialect, fields in new.items():
        merged.setdefault(dialect, {}).update(fields)
    return merged


def _copy(part: Part) -> Part:
    return replace(part)


def unfold(response: Response) -> list[Event]:
    """A complete response as the stream that would have spelled it out."""
    events: list[Event] = [MessageStart(response.id, response.model, response.created, response.extra)]
    index = 0
    for number, choice in enumerate(response.choices):
        for part in choice.parts:
            events.extend(_unfold_part(index, part, number))
            index += 1
        if choice.logprobs:
            events.append(Logprobs(choice.logprobs, number))
        if choice.stop is not None:
            events.append(ChoiceStop(choice.stop, number, choice.extra))
    if response.usage is not None:
        events.append(UsageSeen(response.usage))
    events.append(MessageStop())
    return events


def _unfold_part(index: int, part: Part, choice: int) -> list[Event]:
    shell = _copy(part)
    events: list[Event] = [PartStart(index, shell, choice)]
    if isinstance(shell, Text | Refusal):
        if shell.text:
            events.append(TextDelta(index, shell.text))
        shell.text = ""
        if isinstance(shell, Text) and shell.citations:
            events.extend(PartExtra(index, citation=citation) for citation in shell.citations)
            shell.citations = None
    elif isinstance(shell, Thinking):
        if shell.text:
            events.append(ThinkingDelta(index, shell.text))
        if shell.signature is not None and not shell.redacted:
            events.append(SignatureDelta(index, shell.signature))
            shell.signature = None
        shell.text = ""
    elif isinstance(shell, ToolCall):
        if shell.arguments:
            events.append(ArgumentsDelta(index, shell.arguments))
        shell.arguments = ""
    events.append(PartStop(index))
    return events
