"""The two forms of a stream: server-sent events with `alt=sse`, else one JSON array that is written piece by piece."""

from __future__ import annotations

from typing import Protocol

from relay.errors import RelayError
from relay.kit import dumps, sse_frame
from relay_gemini.framing import ObjectDecoder
from relay_gemini.shapes import error_object

__all__ = ["ARRAY_TYPE", "ArrayFilter", "ArrayFrames", "Frames", "SseFrames"]

ARRAY_TYPE = "application/json; charset=UTF-8"


class Frames(Protocol):
    """How the objects of a stream are put on the wire."""

    def frame(self, data: bytes, /) -> bytes:
        """One object."""
        ...

    def end(self) -> bytes:
        """What follows the last one."""
        ...


class SseFrames:
    """Each object is an event."""

    __slots__ = ()

    def frame(self, data: bytes, /) -> bytes:
        """One object. Arguments stand in it as the model wrote them, on several lines maybe; an event has only one."""
        if b"\n" in data or b"\r" in data:
            data = data.replace(b"\n", b" ").replace(b"\r", b" ")
        return sse_frame(data)

    def end(self) -> bytes:
        """Nothing: the stream has no closing event."""
        return b""


class ArrayFrames:
    """Each object is an element, with an empty line behind it: that is where others may write between two of them."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = False

    def frame(self, data: bytes, /) -> bytes:
        """One object."""
        mark, self._begun = b"," if self._begun else b"[", True
        return mark + data + b"\n\n"

    def end(self) -> bytes:
        """The array's end."""
        return b"]\n" if self._begun else b"[]\n"


class ArrayFilter:
    """A `StreamFilter` for callers who want an array. The upstream is asked for events all the same.

    The objects are the upstream's own bytes.
    """

    __slots__ = ("_frames", "_objects")

    def __init__(self) -> None:
        self._objects = ObjectDecoder()
        self._frames = ArrayFrames()

    def feed(self, data: bytes, /) -> bytes:
        """The objects that `data` completes."""
        return b"".join(self._frames.frame(found) for found in self._objects.feed(data))

    def close(self) -> bytes:
        """What was still held back, and the array's end."""
        return b"".join(self._frames.frame(found) for found in self._objects.flush()) + self._frames.end()

    def failure(self, error: RelayError, /) -> bytes:
        """The error as the last element."""
        return self._frames.frame(dumps({"error": error_object(error)})) + self._frames.end()
