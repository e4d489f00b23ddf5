"""JSON objects out of a stream, whichever way the vendor frames them."""

from __future__ import annotations

import re

from relay import kit
from relay.errors import UpstreamProtocol

__all__ = ["ObjectDecoder"]

_OUTSIDE = re.compile(rb'["{}]')
_INSIDE = re.compile(rb'["\\]')
_SPACE = b" \t\r\n\xef\xbb\xbf"


class ObjectDecoder:
    """The bytes of each JSON object of a stream, out of any cut of it.

    With `alt=sse` every object is a server-sent event. Without, the whole stream is one JSON array, written piece by
    piece; its objects are found by counting braces. The first byte tells which it is.
    """

    __slots__ = ("_array", "_buffer", "_depth", "_limit", "_quoted", "_scanned", "_sse", "_start")

    def __init__(self, limit: int = kit.MAX_EVENT) -> None:
        self._sse: kit.SseDecoder | None = None
        self._array = False
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0
        self._depth = 0
        self._start = 0
        self._quoted = False

    def feed(self, data: bytes) -> list[bytes]:
        """Objects completed by `data`. Raises UpstreamProtocol if one grows past the limit."""
        if self._sse is not None:
            return [payload for _, payload in self._sse.feed(data)]
        if not self._array:
            data = data.lstrip(_SPACE)
            if not data:
                return []
            if data[:1] not in (b"[", b"{"):
                self._sse = kit.SseDecoder(self._limit)
                return [payload for _, payload in self._sse.feed(data)]
            self._array = True
        self._buffer += data
        return self._scan()

    def flush(self) -> list[bytes]:
        """What was still open at the end and is complete all the same. Raises UpstreamProtocol if it is not."""
        if self._sse is not None:
            return [payload for _, payload in self._sse.flush()]
        if self._depth:
            raise UpstreamProtocol("the upstream's stream ended inside an object")
        return []

    def _scan(self) -> list[bytes]:
        found: list[bytes] = []
        buffer, at = self._buffer, self._scanned
        while True:
            match = (_INSIDE if self._quoted else _OUTSIDE).search(buffer, at)
            if match is None:
                at = len(buffer)
                break
            mark, at = match[0], match.end()
            if mark == b"\\":
                if at == len(buffer):
                    # The escaped character is in the next piece: look at both together then.
                    at -= 1
                    break
                at += 1
            elif mark == b'"':
                self._quoted = not self._quoted
            elif mark == b"{":
                if self._depth == 0:
                    self._start = match.start()
                self._depth += 1
            elif self._depth:
                self._depth -= 1
                if self._depth == 0:
                    found.append(bytes(buffer[self._start : at]))
        # Nothing is cut off a buffer that somebody looks at.
        match = None
        keep = self._start if self._depth else at
        del buffer[:keep]
        self._scanned = at - keep
        self._start = 0
        if len(buffer) > self._limit:
            raise UpstreamProtocol(f"an object of the upstream's stream is longer than {self._limit} bytes")
        return found
