"""Counting one answer: what the upstream says it used, and what was seen where it does not say."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, Protocol

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
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.ir import Response, Text, Thinking, ToolCall, Usage
from relay.kit import estimate_tokens, loads

__all__ = ["Count", "Meter", "settled"]

log = logging.getLogger("relay.meter")

MOST = 10_000_000
"""Tokens of one direction of one call: whoever reports more reports nothing."""
COUNTS = frozenset((int, type(None)))
"""What a count is made of. Not a truth value, which is a kind of number too."""
PARTS: Mapping[str, str] = {
    "cache_read": "input",
    "cache_write_5m": "input",
    "cache_write_1h": "input",
    "audio_in": "input",
    "reasoning": "output",
    "audio_out": "output",
}
"""Counts that are part of another one."""

QUIET: frozenset[type[Any]] = frozenset({MessageStart, OpaqueEvent, PartExtra, PartStart, PartStop, UsageSeen})
"""Events that promise an answer without giving any of it."""


class Count(Protocol):
    """What is known of an answer so far."""

    @property
    def usage(self) -> Usage | None:
        """The upstream's last count."""
        ...

    @property
    def seen(self) -> float:
        """Output tokens seen, estimated."""
        ...

    complete: bool
    """Whether the answer's own end was seen."""
    begun: bool
    """Whether there was any real output, or the end."""
    error: RelayError | None


class Told:
    """What is known of a complete answer that passes through: what its upstream says of it."""

    __slots__ = ("usage",)
    seen = 0.0
    complete = True
    begun = True
    error: RelayError | None = None

    def __init__(self, usage: Usage) -> None:
        self.usage: Usage | None = usage


class Meter:
    """Counts by decoded events. Tool calls are put together only if somebody will check them (`keep_calls`)."""

    __slots__ = (
        "_calls",
        "_pieces",
        "begun",
        "complete",
        "ended",
        "error",
        "filtered",
        "keep_calls",
        "seen",
        "usage",
    )

    def __init__(self, *, keep_calls: bool = False) -> None:
        self.usage: Usage | None = None
        self.seen = 0.0
        """Output tokens seen, estimated."""
        self.complete = False
        self.begun = False
        self.error: RelayError | None = None
        self.ended = 0
        """Choices that said why they stopped."""
        self.filtered = False
        """Whether one of them says that something was held back."""
        self.keep_calls = keep_calls
        self._calls: dict[int, ToolCall] = {}
        self._pieces: dict[int, list[str | bytearray]] = {}
        """What came of each call's arguments, in order: text, and text as it is spelled in JSON."""

    def add(self, events: Iterable[Event]) -> None:
        """Take in decoded events."""
        begun = self.begun
        for event in events:
            kind = type(event)
            method = _ADD.get(kind)
            if method is not None:
                method(self, event)
            if not begun and kind not in QUIET:
                begun = self.begun = True

    def whole(self, response: Response) -> None:
        """Take in a complete answer."""
        self.usage = response.usage
        self.complete = self.begun = True
        for choice in response.choices:
            for part in choice.parts:
                if isinstance(part, Text | Thinking):
                    self.seen += estimate_tokens(part.text)
                elif isinstance(part, ToolCall):
                    self.seen += estimate_tokens(part.arguments)
                    self._calls[len(self._calls)] = part

    def calls(self) -> list[ToolCall]:
        """The model's tool calls so far."""
        for index, pieces in self._pieces.items():
            self._calls[index].arguments = "".join(map(_plain, pieces))
        return list(self._calls.values())

    def room(self, index: int) -> bytearray | None:
        """Where what comes next of a call's arguments may be put as it is spelled in JSON; None: nobody asks for it."""
        pieces = self._pieces.get(index)
        if pieces is None:
            return None
        last = pieces[-1]
        if isinstance(last, str):
            last = bytearray()
            pieces.append(last)
        return last

    def text(self, text: str) -> None:
        """Take in a piece of text, as of a `TextDelta`."""
        self.begun = True
        # Not rounded up piece by piece: streams of one-letter pieces would count four times what they are.
        self.seen += len(text) / 4 if text.isascii() else estimate_tokens(text)

    def _text(self, event: TextDelta | ThinkingDelta) -> None:
        # `text`, written out: this runs for every piece of every stream that is translated.
        text = event.text
        self.seen += len(text) / 4 if text.isascii() else estimate_tokens(text)

    def _start(self, event: PartStart) -> None:
        if self.keep_calls and isinstance(event.part, ToolCall):
            self._calls[event.index] = replace(event.part)
            self._pieces[event.index] = [event.part.arguments]

    def _arguments(self, event: ArgumentsDelta) -> None:
        self.seen += len(event.arguments) / 4
        pieces = self._pieces.get(event.index)
        if pieces is not None:
            pieces.append(event.arguments)

    def _usage(self, event: UsageSeen) -> None:
        self.usage = event.usage

    def _choice(self, event: ChoiceStop) -> None:
        self.ended += 1
        self.filtered = self.filtered or event.stop.kind == "filter"

    def _stop(self, event: MessageStop) -> None:
        self.complete = True

    def _failure(self, event: Failure) -> None:
        self.error = event.error


def _plain(piece: str | bytearray) -> str:
    if isinstance(piece, str):
        return piece
    try:
        return str(loads(b'"%b"' % bytes(piece)))
    except ValueError:
        # What no JSON may hold: no check will take it for arguments either.
        return piece.decode("utf-8", "replace")


_ADD: dict[type[Any], Any] = {
    TextDelta: Meter._text,
    ThinkingDelta: Meter._text,
    PartStart: Meter._start,
    ArgumentsDelta: Meter._arguments,
    UsageSeen: Meter._usage,
    ChoiceStop: Meter._choice,
    MessageStop: Meter._stop,
    Failure: Meter._failure,
}


def _sound(said: Usage) -> bool:
    """Whether an upstream's counts can be true.

    A part may be larger than its total: some hosts count reasoning, or what they had in a cache, beside it. What is
    billed of a part is never more than there is of its total (`relay.pricing.cost`).
    """
    counts = (
        said.input,
        said.output,
        said.cache_read,
        said.cache_write_5m,
        said.cache_write_1h,
        said.audio_in,
        said.reasoning,
        said.audio_out,
    )
    # All at once: this runs for every call.
    if not COUNTS.issuperset(map(type, counts)):
        return False
    some = [*filter(None, counts)]
    return not some or (min(some) > 0 and max(some) <= MOST)


def _believed(said: Usage) -> Usage:
    """The counts that can be true."""
    counts: dict[str, Any] = {name: _count(getattr(said, name)) for name in ("input", "output", *PARTS)}
    return replace(said, **counts)


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST else None


def _told(said: Usage) -> str:
    names = ("input", "output", *PARTS)
    return ", ".join(f"{name} {value!r}"[:60] for name in names if (value := getattr(said, name)) is not None)


def settled(
    count: Count | None, input_estimate: int
) -> tuple[Usage | None, Literal["provider", "partial", "estimate", "none"]]:
    """Usage to bill, and how it is known.

    An answer that broke off is billed by the upstream's numbers where it gave any, and by what was seen for the rest;
    the output is never less than what was seen. Where nothing was seen, there is nothing to bill.
    """
    if count is None:
        return None, "none"
    said = count.usage
    if said is not None and not _sound(said):
        log.warning("an upstream's counts cannot be true, and are left out where they are not: %s", _told(said))
        said = _believed(said)
    if count.complete and said is not None and said.input is not None and said.output is not None:
        return said, "provider"
    seen = int(count.seen + 0.999)
    if not count.complete and said is None and not seen:
        return None, "none"
    known = said or Usage()
    estimated = replace(
        known,
        input=known.input if known.input is not None else input_estimate,
        output=known.output if count.complete and known.output is not None else max(known.output or 0, seen),
    )
    return estimated, "partial" if said is not None else "estimate"
