"""The vendor's event streams: binary messages with checksums, out of any cut of their bytes.

A message is twelve bytes of lengths with their own checksum, headers, a payload, and a checksum of it all. Nothing is
read before it has been checked, and a message is never longer than the vendor says messages can be.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping

from relay.errors import UpstreamProtocol

__all__ = ["FrameDecoder", "Headers"]

Headers = Mapping[str, str]

LONGEST = 24 * 1024 * 1024
"""The vendor's own limit for a message, in bytes."""
_PRELUDE = struct.Struct(">III")
_CHECKSUM = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
_FIXED: Mapping[int, int] = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""How long values of these types are. Types 6 and 7 are bytes and text, which tell their length."""
_BYTES, _TEXT = 6, 7
_LEAST = _PRELUDE.size + _CHECKSUM.size


class FrameDecoder:
    """Messages as (headers, payload). Of the headers only texts are given: those of other types are not used."""

    __slots__ = ("_headers", "_held", "_needed")

    def __init__(self) -> None:
        self._held = bytearray()
        self._needed = _PRELUDE.size
        """Bytes without which nothing can be read of what is held."""
        self._headers: dict[bytes, Headers] = {}
        """Those that were read before: a stream has few kinds of events, and each kind the same headers."""

    @property
    def empty(self) -> bool:
        """Whether the bytes so far end with the end of a message."""
        return not self._held

    def feed(self, data: bytes, take: Callable[[Headers, bytes], bool]) -> None:
        """Give `take` each message that `data` completes, until it has enough.

        Raises UpstreamProtocol for what is not a message, or a damaged one. Those before it were given by then.
        """
        held, buffer = self._held, data
        if held:
            held += data
            if len(held) < self._needed:
                return
            buffer = bytes(held)
            held.clear()
        start, end, needed = 0, len(buffer), _PRELUDE.size
        try:
            while end - start >= _PRELUDE.size:
                length = self._length(buffer, start)
                if end - start < length:
                    needed = length
                    break
                message, start = buffer[start : start + length], start + length
                if not take(*self._parts(message)):
                    break
        finally:
            held += buffer[start:]
            self._needed = needed

    @staticmethod
    def _length(buffer: bytes, start: int) -> int:
        length, head, checksum = _PRELUDE.unpack_from(buffer, start)
        if zlib.crc32(buffer[start : start + 8]) != checksum:
            raise UpstreamProtocol("the upstream's event stream is damaged: the checksum of a length is wrong")
        if not _LEAST + head <= length <= LONGEST:
            raise UpstreamProtocol("the upstream's event stream is damaged: a message has an impossible length")
        return int(length)

    def _parts(self, message: bytes) -> tuple[Headers, bytes]:
        head: int = _PRELUDE.unpack_from(message)[1]
        if zlib.crc32(message[:-4]) != _CHECKSUM.unpack_from(message, len(message) - 4)[0]:
            raise UpstreamProtocol("the upstream's event stream is damaged: the checksum of a message is wrong")
        raw = message[_PRELUDE.size : _PRELUDE.size + head]
        headers = self._headers.get(raw)
        if headers is None:
            headers = _headers(raw)
            if len(self._headers) < 64:
                self._headers[raw] = headers
        return headers, message[_PRELUDE.size + head : -4]


def _headers(raw: bytes) -> Headers:
    headers: dict[str, str] = {}
    place = 0
    try:
        while place < len(raw):
            end = place + 1 + raw[place]
            name, kind = raw[place + 1 : end].decode("ascii"), raw[end]
            place = end + 1
            if kind in _FIXED:
                place += _FIXED[kind]
            elif kind in (_BYTES, _TEXT):
                length: int = _LENGTH.unpack_from(raw, place)[0]
                value, place = raw[place + 2 : place + 2 + length], place + 2 + length
                if kind == _TEXT:
                    headers[name] = value.decode("utf-8")
            else:
                raise ValueError(f"header of type {kind}")
        if place > len(raw):
            raise ValueError("a header is cut off")
    except (IndexError, ValueError, struct.error):
        raise UpstreamProtocol("the upstream's event stream is damaged: headers cannot be read") from None
    return headers
