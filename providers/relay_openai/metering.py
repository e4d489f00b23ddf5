"""Asking for token counts on behalf of callers who did not, and keeping the answer from them.

This format reports usage in a stream only to those who ask. The relay needs it, so it asks, and drops the one chunk
that the caller did not expect; the rest of both bodies stays as it was, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from relay.kit import MAX_EVENT, SseDecoder, dumps

__all__ = ["UsageFilter", "WholeEvents", "ask_for_usage", "asks_for_usage"]

_ASKED = b'"stream_options":{"include_usage":true}'
_HOLDER = re.compile(rb'"stream_options"(\s*:\s*)\{(\s*\})?')
_NULL = re.compile(rb'"stream_options"(\s*:\s*)null')
_FLAG = re.compile(rb'("include_usage"\s*:\s*)(?:false|null)')


def asks_for_usage(data: Mapping[str, Any]) -> bool:
    """Whether the caller itself asks for the chunk that counts tokens."""
    options = data.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def ask_for_usage(raw: bytes, data: Mapping[str, Any]) -> bytes:
    """`raw` with `stream_options.include_usage` set to true and every other byte as it was.

    `data` is `raw` parsed. Each place that looks right is tried and parsed again, because only that tells the
    outermost object from what stands inside of it.
    """
    if "stream_options" not in data:
        # The first brace opens the outermost object, and that is not empty: it has at least a model.
        place = raw.index(b"{") + 1
        return raw[:place] + _ASKED + b"," + raw[place:]
    old = data["stream_options"]
    wanted = {**data, "stream_options": {**(old if isinstance(old, dict) else {}), "include_usage": True}}
    for candidate in _candidates(raw):
        if orjson.loads(candidate) == wanted:
            return candidate
    # Spelled with escapes, or not an object: nothing to keep byte for byte then.
    return dumps(wanted)


def _candidates(raw: bytes) -> list[bytes]:
    found = [raw[: match.start()] + match[1] + b"true" + raw[match.end() :] for match in _FLAG.finditer(raw)]
    for match in _HOLDER.finditer(raw):
        if match[2] is None:
            place = match.end()
            found.append(raw[:place] + b'"include_usage":true,' + raw[place:])
        else:
            head = b'"stream_options"' + match[1]
            found.append(raw[: match.start()] + head + b'{"include_usage":true}' + raw[match.end() :])
    for match in _NULL.finditer(raw):
        head = b'"stream_options"' + match[1]
        found.append(raw[: match.start()] + head + b'{"include_usage":true}' + raw[match.end() :])
    return found


# A blank line ends an event, whatever the line ends are. The groups are atomic: CRLF must not count as two of them.
_BLANK = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_EMPTY = re.compile(rb'"choices"\s*:\s*\[\s*\]')


class WholeEvents:
    """A `StreamFilter` that passes whole events only, unchanged.

    What follows the last complete event is held back until it is complete too. Where the upstream breaks off inside of
    an event, the caller's error event then follows a good one; behind half a one it would be read as more of the same.
    """

    __slots__ = ("_held", "_open")

    def __init__(self) -> None:
        self._held = b""
        self._open = False
        """Whether an event was so long that the filter gave up holding it back."""

    def feed(self, data: bytes, /) -> bytes:
        """What of `data`, and of bytes held back before, goes to the caller now."""
        if not self._held and not self._open and data.endswith(b"\n\n"):
            return self._filtered(data)
        buffer = self._held + data if self._held else data
        end = self._last_end(buffer)
        complete, self._held = buffer[:end], buffer[end:]
        if self._open and end:
            # The rest of the long event ends here.
            first = _BLANK.search(complete)
            assert first is not None
            self._open = False
            return complete[: first.end()] + self._filtered(complete[first.end() :])
        passed = self._filtered(complete)
        if self._open or len(self._held) > MAX_EVENT:
            self._open = True
            # A line end may be half of a blank line: it stays until it is known.
            keep = len(self._held) - len(self._held.rstrip(b"\r\n"))
            passed, self._held = passed + self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return passed

    def close(self) -> bytes:
        """What was still held back: the last event, without its blank line."""
        rest, self._held = self._held, b""
        return rest

    @staticmethod
    def _last_end(buffer: bytes) -> int:
        """Where the last complete event ends. A CR at the very end may be half of a CRLF, so it does not count."""
        usable = len(buffer) - 1 if buffer.endswith(b"\r") else len(buffer)
        if b"\r" not in buffer:
            place = buffer.rfind(b"\n\n")
            return place + 2 if place >= 0 else 0
        end = 0
        for match in _BLANK.finditer(buffer, 0, usable):
            end = match.end()
        return end

    def _filtered(self, complete: bytes) -> bytes:
        """What passes of these complete events."""
        return complete


class UsageFilter(WholeEvents):
    """Takes out the chunk without choices that counts tokens.

    Chunks without choices that hold something else, as the content filter's verdict with which some hosts open, pass.
    """

    __slots__ = ()

    def close(self) -> bytes:
        """What was still held back, unless it is the whole chunk without its blank line."""
        opened = self._open
        rest = super().close()
        return rest if opened or not _is_count(rest) else _lead(rest)

    def _filtered(self, complete: bytes) -> bytes:
        if not _EMPTY.search(complete):
            return complete
        kept = []
        start = 0
        for match in _BLANK.finditer(complete):
            event = complete[start : match.end()]
            start = match.end()
            # Empty lines before the dropped event are not part of it.
            kept.append(_lead(event) if _is_count(event) else event)
        kept.append(complete[start:])
        return b"".join(kept)


def _lead(event: bytes) -> bytes:
    """The empty lines that an event begins with."""
    return event[: len(event) - len(event.lstrip(b"\r\n"))]


def _is_count(event: bytes) -> bool:
    """Whether this event is a chunk without choices that counts tokens."""
    if b'"usage"' not in event or not _EMPTY.search(event):
        return False
    frames = SseDecoder()
    for _, payload in [*frames.feed(event), *frames.flush()]:
        try:
            chunk = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return False
        return (
            isinstance(chunk, dict)
            and chunk.get("choices") == []
            and isinstance(chunk.get("usage"), dict)
            and not chunk.get("prompt_filter_results")
            and not chunk.get("error")
        )
    return False
