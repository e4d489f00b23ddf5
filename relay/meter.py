"""Counting one answer: what the upstream says it used, and what was seen where it does not say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from relay.errors import RelayError
from relay.events import (
    ArgumentsDelta,
    Event,
    Failure,
    MessageStop,
    PartStart,
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.ir import Response, Text, Thinking, ToolCall, Usage
from relay.kit import estimate_tokens

__all__ = ["Meter"]


class Meter:
    """Watches an answer go by. Tool calls are put together only if somebody will check them (`keep_calls`)."""

    __slots__ = ("_calls", "_seen", "complete", "error", "keep_calls", "usage")

    def __init__(self) -> None:
        self.usage: Usage | None = None
        """The upstream's last count."""
        self.complete = False
        self.error: RelayError | None = None
        self.keep_calls = False
        self._calls: dict[int, ToolCall] = {}
        self._seen = 0.0

    def add(self, events: Iterable[Event]) -> None:
        """Take in decoded events."""
        for event in events:
            method = _ADD.get(type(event))
            if method is not None:
                method(self, event)

    def whole(self, response: Response) -> None:
        """Take in a complete answer."""
        self.usage = response.usage
        self.complete = True
        number = 0
        for choice in response.choices:
            for part in choice.parts:
                if isinstance(part, Text | Thinking):
                    self._seen += estimate_tokens(part.text)
                elif isinstance(part, ToolCall):
                    self._seen += estimate_tokens(part.arguments)
                    self._calls[number] = part
                    number += 1

    def calls(self) -> list[ToolCall]:
        """The model's tool calls so far."""
        return list(self._calls.values())

    def started(self) -> bool:
        """Whether any output was seen."""
        return self._seen > 0 or self.usage is not None

    def final(self, input_estimate: int) -> tuple[Usage | None, Literal["provider", "partial", "estimate", "none"]]:
        """Usage to bill, and how it is known: `provider`, `partial`, `estimate` or `none`.

        An answer that broke off is billed by the upstream's numbers where it gave any, and by what was seen for the
        rest; the output is never less than what was seen.
        """
        seen = int(self._seen + 0.999)
        said = self.usage
        if self.complete and said is not None and said.input is not None and said.output is not None:
            return said, "provider"
        if not self.complete and said is None and not seen:
            return None, "none"
        known = said or Usage()
        estimated = replace(
            known,
            input=known.input if known.input is not None else input_estimate,
            output=known.output if self.complete and known.output is not None else max(known.output or 0, seen),
        )
        return estimated, "partial" if said is not None else "estimate"

    def _text(self, event: TextDelta | ThinkingDelta) -> None:
        text = event.text
        # Not rounded up piece by piece: streams of one-letter pieces would count four times what they are.
        self._seen += len(text) / 4 if text.isascii() else estimate_tokens(text)

    def _start(self, event: PartStart) -> None:
        if self.keep_calls and isinstance(event.part, ToolCall):
            self._calls[event.index] = replace(event.part)

    def _arguments(self, event: ArgumentsDelta) -> None:
        self._seen += len(event.arguments) / 4
        call = self._calls.get(event.index)
        if call is not None:
            call.arguments += event.arguments

    def _usage(self, event: UsageSeen) -> None:
        self.usage = event.usage

    def _stop(self, event: MessageStop) -> None:
        self.complete = True

    def _failure(self, event: Failure) -> None:
        self.error = event.error


_ADD: dict[type[Any], Any] = {
    TextDelta: Meter._text,
    ThinkingDelta: Meter._text,
    PartStart: Meter._start,
    ArgumentsDelta: Meter._arguments,
    UsageSeen: Meter._usage,
    MessageStop: Meter._stop,
    Failure: Meter._failure,
}
