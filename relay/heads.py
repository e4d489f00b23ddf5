"""Heads of requests that a connection has sent before: the same bytes mean the same, and are not parsed again.

A client sends one head again and again, but for the length of the body behind it. What its first parsing found is kept,
with the bytes before and after that length; a request that begins with them is known by two comparisons.

`Count` follows what aiohttp's parser has been given, to know when it stands between two requests: only there may it be
left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from aiohttp.http import RawRequestMessage
from multidict import istr

from relay.dialect import Dialect
from relay.origins import Origins

__all__ = ["Count", "KnownHead", "end_of"]

END = b"\r\n\r\n"
DIGITS = 10
"""Digits of a length that are looked at: more than the lane takes."""
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)(?=[ \t]*\r\n)", re.IGNORECASE)
CONTENT_LENGTH, TRANSFER_ENCODING = istr("Content-Length"), istr("Transfer-Encoding")
NOWHERE = b"\n"
"""No request begins with it."""


def end_of(data: bytes) -> int:
    """Where the body begins of a request that begins with `data`; 0 if its head is not all there."""
    place = data.find(END)
    return place + len(END) if place >= 0 else 0


class KnownHead:
    """A request's head for the lane, and whose key is in it. Without its bytes it is good for one request only."""

    __slots__ = (
        "_first",
        "_start",
        "after",
        "before",
        "chunked",
        "dialect",
        "headers",
        "keep_alive",
        "mark",
        "origins",
        "place",
    )

    def __init__(
        self,
        dialect: Dialect,
        place: Mapping[str, str],
        headers: Mapping[str, str],
        mark: bytes,
        origins: Origins,
        *,
        chunked: bool,
        keep_alive: bool,
    ) -> None:
        self.dialect = dialect
        self.place = place
        """The parameters of its path and query."""
        self.headers = headers
        self.mark = mark
        """The digest of the key."""
        self.origins = origins
        """Whose judgement of the host it has passed."""
        self.chunked = chunked
        self.keep_alive = keep_alive
        self.before = self.after = self._first = NOWHERE
        self._start = 0
        """Where the length begins; `_first` is what comes behind its last digit."""

    def learn(self, head: bytes) -> None:
        """Its bytes, to its blank line. Where they have not exactly one length, it is not known again."""
        places = list(LENGTH.finditer(head))
        if len(places) == 1:
            self._start, end = places[0].span(1)
            self.before, self.after, self._first = head[: self._start], head[end:], head[end : end + 1]

    def body(self, data: bytes) -> tuple[int, int] | None:
        """Where the body begins in `data`, and its length, if `data` begins with this head."""
        if not data.startswith(self.before):
            return None
        start, after = self._start, self.after
        end = data.find(self._first, start, start + DIGITS)
        digits = data[start:end]
        if end < 0 or not digits.isdigit() or not data.startswith(after, end):
            return None
        return end + len(after), int(digits)


class Count:
    """How many bytes aiohttp's parser still waits for until its request is complete."""

    __slots__ = ("due",)

    def __init__(self) -> None:
        self.due = 0
        """0: it stands between two requests. Below: nobody knows."""

    def given(self, data: bytes, head: int, message: object) -> None:
        """It was given `data` and has found `message` in it, if just one.

        `head`: the length of the head with which `data` begins, where one may begin.
        """
        due = self.due
        if not due and data:
            due = -1
            if head and type(message) is RawRequestMessage and not message.upgrade:
                lengths = message.headers.getall(CONTENT_LENGTH, ())
                if len(lengths) <= 1 and TRANSFER_ENCODING not in message.headers:
                    due = head + int(lengths[0] if lengths else 0)
        self.due = due - len(data) if due >= len(data) else -1
