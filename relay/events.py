"""The hub's stream: events between a family's decoder and a dialect's encoder.

A stream of events is

    MessageStart (PartStart Delta* PartStop | UsageSeen | Logprobs | OpaqueEvent)* ChoiceStop* UsageSeen? MessageStop

or any beginning of that followed by one `Failure`. `index` numbers parts in order of their start, unique in the whole
message; parts may be open side by side. A decoder never invents the end: when its bytes stop before the protocol's own
terminal event, `close()` yields a `Failure`.

Events are mutable slotted dataclasses because they are built once per token: frozen ones cost three times as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from relay.errors import RelayError
from relay.ir import Citation, Extra, Part, StopReason, ToolCall, Usage
from relay.mould import Mould

__all__ = [
    "ArgumentsDelta",
    "Casts",
    "ChoiceStop",
    "Event",
    "Failure",
    "KeepsAlive",
    "KeepsCalls",
    "Logprobs",
    "MessageStart",
    "MessageStop",
    "OpaqueEvent",
    "PartExtra",
    "PartStart",
    "PartStop",
    "SignatureDelta",
    "StreamDecoder",
    "StreamEncoder",
    "StreamMeter",
    "TellsFailure",
    "TellsMould",
    "TextDelta",
    "ThinkingDelta",
    "UsageSeen",
]


@dataclass(slots=True)
class MessageStart:
    """The answer begins. `id` and `model` are the upstream's; `created` is in Unix seconds."""

    id: str
    model: str
    created: int | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class PartStart:
    """A part opens. `part` is its shell: what is known at the start, with the streamed field still empty.

    A part that arrives whole (an image, an opaque block) is complete here and has no deltas.
    """

    index: int
    part: Part
    choice: int = 0


@dataclass(slots=True)
class TextDelta:
    """More text of a `Text` or `Refusal` part."""

    index: int
    text: str


@dataclass(slots=True)
class ThinkingDelta:
    """More text of a `Thinking` part."""

    index: int
    text: str


@dataclass(slots=True)
class SignatureDelta:
    """More of the signature of a `Thinking` part."""

    index: int
    signature: str


@dataclass(slots=True)
class ArgumentsDelta:
    """More of the arguments string of a `ToolCall` part."""

    index: int
    arguments: str


@dataclass(slots=True)
class PartExtra:
    """Late facts about a part: one citation, or vendor fields to merge into its `extra`.

    The part should still be open. Some vendors tell only at the very end on what an earlier part rests: encoders whose
    format has no way back to a part that is complete leave that out.
    """

    index: int
    citation: Citation | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class PartStop:
    """A part is complete."""

    index: int


@dataclass(slots=True)
class Logprobs:
    """Token log-probabilities of a choice, in the OpenAI shape."""

    content: list[Any]
    choice: int = 0


@dataclass(slots=True)
class UsageSeen:
    """The upstream's count so far. Later ones replace earlier ones; they are never added up."""

    usage: Usage


@dataclass(slots=True)
class ChoiceStop:
    """One choice is finished, and why."""

    stop: StopReason
    choice: int = 0
    extra: Extra | None = None


@dataclass(slots=True)
class MessageStop:
    """The protocol's own end of the stream was seen: the answer is complete."""


@dataclass(slots=True)
class Failure:
    """The stream failed: the upstream said so, or it ended before its terminal event."""

    error: RelayError


@dataclass(slots=True)
class OpaqueEvent:
    """A stream event the hub does not know. Only encoders of `dialect` write it again."""

    dialect: str
    data: Any
    name: str | None = None


Event: TypeAlias = (
    MessageStart
    | PartStart
    | TextDelta
    | ThinkingDelta
    | SignatureDelta
    | ArgumentsDelta
    | PartExtra
    | PartStop
    | Logprobs
    | UsageSeen
    | ChoiceStop
    | MessageStop
    | Failure
    | OpaqueEvent
)


class StreamDecoder(Protocol):
    """Upstream bytes to events, without I/O. One object per stream."""

    def feed(self, data: bytes, /) -> list[Event]:
        """Events that `data` completes. Any cut of the same bytes gives the same events in the same order."""
        ...

    def close(self) -> list[Event]:
        """Called once after the last byte: what is still open, or a `Failure` if the stream was cut short."""
        ...


@runtime_checkable
class StreamMeter(Protocol):
    """Counts a stream that passes through, cheaper than decoding it would be. One object per stream.

    Any cut of the same bytes gives the same end. `complete` and `error` must be exact; `seen` may be an estimate. Of an
    answer with several choices that has no end but that of its bytes, a meter should also tell how many choices have
    said why they stopped (`ended`), and whether that was because something was held back (`filtered`).
    """

    complete: bool
    """Whether the protocol's own end was seen."""
    begun: bool
    """Whether there was any real output, or the end."""
    error: RelayError | None
    """What the stream says went wrong."""

    @property
    def usage(self) -> Usage | None:
        """The upstream's last count."""
        ...

    @property
    def seen(self) -> float:
        """Output tokens seen so far, estimated."""
        ...

    def feed(self, data: bytes, /) -> None:
        """The next bytes."""
        ...

    def close(self) -> None:
        """Called once after the last byte, if `complete` was not seen: sets `complete` or `error`."""
        ...


class StreamEncoder(Protocol):
    """Events to the caller's bytes, without I/O. One object per stream."""

    def encode(self, events: list[Event], /) -> bytes:
        """The frames for these events, as one piece: the relay writes once per read, not once per event."""
        ...

    def failure(self, error: RelayError, /) -> bytes:
        """The dialect's in-stream error. Nothing is written after it, least of all a normal ending."""
        ...


@runtime_checkable
class KeepsCalls(Protocol):
    """A meter that can put tool calls together, for who checks them. Without it, all of such a stream is decoded."""

    keep_calls: bool
    """Whether it is to. Set before the first bytes."""

    def calls(self) -> list[ToolCall]:
        """The calls so far, with the arguments that a decoder would tell."""
        ...


@runtime_checkable
class KeepsAlive(Protocol):
    """An encoder or a filter that knows better than its dialect what to send in a long silence."""

    def keep_alive(self) -> bytes:
        """What its clients accept, and ignore, at this place between two events of the stream."""
        ...


@runtime_checkable
class TellsFailure(Protocol):
    """An encoder or a filter that knows what the error has to refer to: the stream that has gone by."""

    def failure(self, error: RelayError, /) -> bytes:
        """The dialect's in-stream error, as `StreamEncoder.failure`."""
        ...


@runtime_checkable
class TellsMould(Protocol):
    """A decoder that need not be shown all text: with an encoder that `Casts`, pieces pass without being decoded."""

    def mould(self, event: bytes, /) -> Mould | None:
        """The mould of an event that was just decoded into one `TextDelta` or `ThinkingDelta` and nothing else.

        Of every event that fits it, as long as nothing else comes between, this decoder would tell such a piece of the
        same part and no more, and would be afterwards as if it had not come. None if that is not so.
        """
        ...


@runtime_checkable
class Casts(Protocol):
    """An encoder that writes text between bytes that stay the same."""

    def cast(self, event: TextDelta | ThinkingDelta, /) -> tuple[bytes, bytes] | None:
        """What it writes before and behind the inside of a JSON string for each piece like this one.

        The first ends with the string's opening quote, the second begins with the closing one. That holds until it is
        given anything else; before that, it is given the text that was written in its place, as one piece, and what it
        makes of that is thrown away. None: it writes something else, or nothing.
        """
        ...
