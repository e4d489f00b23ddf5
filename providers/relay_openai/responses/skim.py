"""Streams that pass through: counting them without reading what is only text, and ending them if they break off."""

from __future__ import annotations

import re
from collections.abc import Callable

from relay.errors import RelayError
from relay.kit import dumps
from relay.mould import Mould
from relay.skim import SkimmingMeter
from relay_openai.metering import WholeEvents
from relay_openai.responses.answer import Envelope
from relay_openai.responses.encoder import KEEP_ALIVE
from relay_openai.responses.fault import error_object
from relay_openai.responses.stream import ResponsesDecoder

__all__ = ["PassedStream", "responses_meter"]

_KIND = re.compile(
    rb'(?:^event: |"type":\s*")'
    rb"response\.(?:output_text|reasoning_summary_text|reasoning_text|function_call_arguments)\.delta"
)
_TEXT = re.compile(rb'(?<!\\)"delta":\s*"((?:[^"\\]|\\.)*)"')
_CHANGING = re.compile(rb'"(?:obfuscation":\s*"([^"\\]*)"|sequence_number":\s*(\d+))')
_ID = re.compile(rb'"response":\s*\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*?"id":\s*"([^"\\]+)"')
_NUMBER = re.compile(rb'"sequence_number":\s*(\d+)')
_OPENING = 65_536
"""Bytes in which the answer's id is looked for."""


def responses_meter(decoder: ResponsesDecoder) -> SkimmingMeter:
    """A meter that decodes what is no piece of text."""
    return SkimmingMeter(decoder, piece_mould)


def piece_mould(event: bytes) -> Mould | None:
    """The mould of an event that is nothing but a piece of text; None for any other, or if what changes precedes it."""
    text = _TEXT.search(event)
    if text is None or _KIND.search(event) is None or event.count(b"\ndata:") + event.startswith(b"data:") != 1:
        return None
    start, end = text.span(1)
    if _CHANGING.search(event, 0, start) is not None or not event.endswith(b"}\n\n"):
        return None
    # Events are numbered, and some are filled up to hide how long their text is.
    changing = [match.span(match.lastindex or 0) for match in _CHANGING.finditer(event, end)]
    return Mould.of(event, (start, end), (changing[0][0], changing[-1][1]) if changing else None)


class PassedStream(WholeEvents):
    """The filter of a stream that passes through: whole events only, and a failure that belongs to the same answer.

    Clients hold an answer together by its id and refuse an event of another one.
    """

    __slots__ = ("_envelope", "_id", "_last", "_opening")

    def __init__(self, envelope: Callable[[], Envelope]) -> None:
        """`envelope` makes one for the failure. It reads all of the request, so nobody else asks for it."""
        super().__init__()
        self._envelope = envelope
        self._id: bytes | None = None
        self._opening: bytes | None = b""
        self._last = b""

    @property
    def resting(self) -> bool:
        """As soon as the answer's id is known: of all else it has to know only the last event."""
        return super().resting and self._opening is None

    def rested(self, data: bytes) -> None:
        """The number of the last event stands in there."""
        self._last = data

    def keep_alive(self) -> bytes:
        """A comment as long as nothing was sent: clients accept no event before the one that begins the answer."""
        return KEEP_ALIVE if self._last else b": keep-alive\n\n"

    def failure(self, error: RelayError, /) -> bytes:
        """The failed answer, with the id that clients know it by and the number that comes next."""
        numbers = _NUMBER.findall(self._last[-_OPENING:])
        envelope = self._envelope()
        if self._id is not None:
            envelope.id = self._id.decode("utf-8", "replace")
        failed = envelope.failed([], error_object(error), None)
        body = {
            "type": "response.failed",
            "response": failed,
            "sequence_number": int(numbers[-1]) + 1 if numbers else 0,
        }
        return b"event: response.failed\ndata: " + dumps(body) + b"\n\n"

    def _filtered(self, complete: bytes) -> bytes:
        if complete:
            self._last = complete
            if self._opening is not None:
                self._look(complete)
        return complete

    def _look(self, data: bytes) -> None:
        self._opening = (self._opening or b"") + data
        match = _ID.search(self._opening)
        if match is not None:
            self._id = match[1]
        if match is not None or len(self._opening) > _OPENING:
            self._opening = None
