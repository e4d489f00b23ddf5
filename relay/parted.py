"""What of a piece is passed on in which a stream goes wrong: the events before the one at fault.

Asked only then. While a stream passes through, nobody looks at its events one by one.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.errors import UpstreamProtocol
from relay.events import Failure, StreamDecoder
from relay.kit import EVENT_END, SseDecoder, loads

__all__ = ["frames_of", "parted"]


def parted(data: bytes, reader: Callable[[], StreamDecoder]) -> tuple[bytes, bytes]:
    """The events of a piece before the one at fault, and that one; if none can be told apart, all whole ones and none.

    `reader` makes what reads one event.
    """
    start = 0
    for match in EVENT_END.finditer(data):
        event = data[start : match.end()]
        if _at_fault(event, reader):
            return data[:start], event
        start = match.end()
    return data[:start], b""


def frames_of(event: bytes) -> list[tuple[str, bytes]]:
    """Name and data of one event; nothing for a comment."""
    frames = SseDecoder()
    return [*frames.feed(event), *frames.flush()]


def _at_fault(event: bytes, reader: Callable[[], StreamDecoder]) -> bool:
    for _, payload in frames_of(event):
        try:
            value = loads(payload)
        except ValueError:
            return True
        if not isinstance(value, dict):
            return True
        # Out of its stream an event may make no sense, which is no fault of its own.
        failures = [one.error for one in reader().feed(event) if isinstance(one, Failure)]
        if any(not isinstance(error, UpstreamProtocol) for error in failures):
            return True
    return False
