"""Asking for token counts on behalf of callers who did not, and keeping the answer from them.

This format reports usage in a stream only to those who ask. The relay needs it, so it asks, and drops the one chunk
that the caller did not expect; the rest of both bodies stays as it was, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from relay import Forward, Head, Target
from relay.kit import EVENT_END, SseDecoder, WholeEvents, rewritten

__all__ = ["UsageFilter", "WholeEvents", "ask_for_usage", "asks_for_usage", "metered"]

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
        # A view: a body is not copied twice.
        return b"".join((raw[:place], _ASKED, b",", memoryview(raw)[place:]))
    old = data["stream_options"]
    wanted = {**data, "stream_options": {**(old if isinstance(old, dict) else {}), "include_usage": True}}
    return rewritten(_candidates(raw), wanted)


def metered(body: bytes, head: Head, target: Target) -> Forward:
    """A stream's request with the wish to count tokens, and the filter that goes with it."""
    if asks_for_usage(head.fields) or not target.upstream.options.get("include_usage", True):
        return Forward(body, WholeEvents())
    data = head.fields
    if "stream_options" in data:
        # What is there is changed in its place, and only the whole body tells which place that is.
        data = {**head.data, "model": target.model}
    return Forward(ask_for_usage(body, data), UsageFilter())


def _candidates(raw: bytes) -> Iterator[bytes]:
    for match in _FLAG.finditer(raw):
        yield raw[: match.start()] + match[1] + b"true" + raw[match.end() :]
    for match in _HOLDER.finditer(raw):
        if match[2] is None:
            place = match.end()
            yield raw[:place] + b'"include_usage":true,' + raw[place:]
        else:
            head = b'"stream_options"' + match[1]
            yield raw[: match.start()] + head + b'{"include_usage":true}' + raw[match.end() :]
    for match in _NULL.finditer(raw):
        head = b'"stream_options"' + match[1]
        yield raw[: match.start()] + head + b'{"include_usage":true}' + raw[match.end() :]


CR = 0x0D
_COUNTS = b'"usage"'
_NOTHING = (_COUNTS + b":null", _COUNTS + b": null")
_EMPTY = re.compile(rb'"choices"\s*:\s*\[\s*\]')


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
        # The quick look first: this runs for every piece.
        place = complete.find(_COUNTS)
        if place < 0:
            return complete
        if CR in complete:
            return self._one_by_one(complete)
        kept = []
        start = 0
        while place >= 0:
            if complete.startswith(_NOTHING, place):
                # In every chunk of some hosts.
                place = complete.find(_COUNTS, place + 1)
                continue
            first = complete.rfind(b"\n\n", start, place) + 2
            first = first if first > 1 else start
            end = complete.find(b"\n\n", place) + 2
            if end == 1:
                break
            event = complete[first:end]
            if _is_count(event):
                # Empty lines before the dropped event are not part of it.
                kept += [complete[start:first], _lead(event)]
                start = end
            place = complete.find(_COUNTS, end)
        if not start:
            return complete
        kept.append(complete[start:])
        return b"".join(kept)

    @staticmethod
    def _one_by_one(complete: bytes) -> bytes:
        """The same, for line ends of any kind."""
        kept = []
        start = 0
        for match in EVENT_END.finditer(complete):
            event = complete[start : match.end()]
            start = match.end()
            kept.append(_lead(event) if _is_count(event) else event)
        kept.append(complete[start:])
        return b"".join(kept)


def _lead(event: bytes) -> bytes:
    """The empty lines that an event begins with."""
    return event[: len(event) - len(event.lstrip(b"\r\n"))]


def _payloads(event: bytes) -> list[bytes]:
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2:
        # One line, as nearly all of them are.
        return [event[6:-2]]
    frames = SseDecoder()
    return [payload for _, payload in [*frames.feed(event), *frames.flush()]]


def _is_count(event: bytes) -> bool:
    """Whether this event is a chunk without choices that counts tokens."""
    if b'"usage"' not in event or not _EMPTY.search(event):
        return False
    for payload in _payloads(event):
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
