"""What every stream of events has to be, whoever decodes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    StreamDecoder,
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.ir import Refusal, Text, Thinking, ToolCall, Usage

__all__ = ["check_events", "check_usage", "decoded"]

MOST = 10**9
COUNTS = (
    "input",
    "output",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "reasoning",
    "audio_in",
    "audio_out",
)
FITS: dict[type[object], tuple[type[object], ...]] = {
    TextDelta: (Text, Refusal),
    ThinkingDelta: (Thinking,),
    SignatureDelta: (Thinking,),
    ArgumentsDelta: (ToolCall,),
}
"""What each delta may go on with."""


def decoded(decoder: StreamDecoder, pieces: Iterable[bytes]) -> list[Event]:
    """All events of these pieces, and of the end behind them."""
    events: list[Event] = []
    for piece in pieces:
        events += decoder.feed(piece)
    return [*events, *decoder.close()]


def check_usage(usage: Usage | None) -> None:
    """Fails for counts that no call can have."""
    if usage is None:
        return
    for name in COUNTS:
        count = getattr(usage, name)
        assert count is None or (type(count) is int and 0 <= count <= MOST), f"usage.{name} is {count!r}"


def check_events(events: Sequence[Event], *, ended: bool = True) -> None:
    """Fails for events that are not in the order that `relay.events` tells.

    `ended`: whether the bytes are over, so that there has to be an end, good or bad.
    """
    open_parts: dict[int, object] = {}
    known: set[int] = set()
    started = over = False
    for event in events:
        assert not over, f"{type(event).__name__} follows the end"
        if isinstance(event, Failure):
            over = True
            continue
        if isinstance(event, MessageStart):
            assert not started, "a message starts once"
            started = True
            continue
        assert started or isinstance(event, UsageSeen | OpaqueEvent), (
            f"{type(event).__name__} comes before MessageStart"
        )
        if isinstance(event, PartStart):
            assert event.index not in known, f"part {event.index} starts twice"
            known.add(event.index)
            open_parts[event.index] = event.part
        elif isinstance(event, PartStop):
            assert event.index in open_parts, f"part {event.index} stops and is not open"
            del open_parts[event.index]
        elif isinstance(event, TextDelta | ThinkingDelta | SignatureDelta | ArgumentsDelta | PartExtra):
            assert event.index in open_parts, f"{type(event).__name__} for part {event.index}, which is not open"
            kinds = FITS.get(type(event))
            part = open_parts[event.index]
            assert kinds is None or isinstance(part, kinds), f"{type(event).__name__} for a {type(part).__name__}"
        elif isinstance(event, UsageSeen):
            check_usage(event.usage)
        elif isinstance(event, MessageStop):
            assert not open_parts, f"the message stops while parts {sorted(open_parts)} are open"
            over = True
        elif isinstance(event, ChoiceStop):
            assert event.stop.kind, "a choice stops for a reason"
    assert over or not ended, "the bytes have ended, and there is neither MessageStop nor Failure"
