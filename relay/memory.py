"""Reasoning that clients drop, kept for the next turn.

Some models will not go on from a tool's result unless their own reasoning comes back with it, signed or word for word;
and many clients have no place for that, or throw it away. So what a model thought before it called a tool is kept here,
by the id of that call, which every client sends back. On the next turn it is put where it was.

It goes back to the upstream that it came from and to nobody else, only for the key under which it came, and only where
it is missing: what a client sends itself is never replaced, and nothing is ever made up. Sans-IO; bounded in bytes and
age.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from relay.ir import Extra, Message, Part, Request, Response, Thinking, ToolCall

__all__ = ["Memory", "Thought"]

OVERHEAD = 400
"""Bytes that an entry takes beside its text."""


@dataclass(frozen=True, slots=True)
class Thought:
    """What preceded one call of a tool, and what its own format says of that call."""

    thoughts: tuple[Thinking, ...]
    extra: Extra | None
    at: float
    """Unix seconds."""
    size: int


class Memory:
    """The reasoning of all keys. `size` is in bytes, `seconds` the age at which an entry is forgotten."""

    def __init__(self, size: int, seconds: float, *, clock: Callable[[], float] = time.time) -> None:
        self._most = size
        self._seconds = seconds
        self._clock = clock
        self._entries: OrderedDict[bytes, Thought] = OrderedDict()
        self.size = 0
        """Bytes that are kept."""

    def __len__(self) -> int:
        return len(self._entries)

    def keep(self, owner: int, upstream: str, response: Response) -> None:
        """Remember what a complete answer thought before it called tools. `owner` is the key's number."""
        for choice in response.choices:
            thoughts: list[Thinking] = []
            for part in choice.parts:
                if isinstance(part, Thinking):
                    thoughts.append(part)
                elif isinstance(part, ToolCall) and not part.server and part.id:
                    # They stand before the first of several calls.
                    if thoughts or part.extra:
                        self._put(_place(owner, upstream, part.id), tuple(thoughts), part.extra)
                    thoughts = []

    def _put(self, place: bytes, thoughts: tuple[Thinking, ...], extra: Extra | None) -> None:
        size = OVERHEAD + sum(len(one.text) + len(one.signature or "") + len(str(one.extra or "")) for one in thoughts)
        size += len(str(extra or ""))
        self._drop(place)
        if size > self._most:
            return
        self._entries[place] = Thought(thoughts, extra, self._clock(), size)
        self.size += size
        while self.size > self._most:
            self._drop(next(iter(self._entries)))

    def _drop(self, place: bytes) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            self.size -= entry.size

    def recall(self, owner: int, upstream: str, call: str) -> Thought | None:
        """What preceded that call, if it is known and not too old."""
        place = _place(owner, upstream, call)
        entry = self._entries.get(place)
        if entry is None:
            return None
        if entry.at + self._seconds < self._clock():
            self._drop(place)
            return None
        self._entries.move_to_end(place)
        return entry

    def thoughts(self, owner: int, upstream: str, call: str) -> Sequence[Thinking]:
        """The thoughts alone; empty if there are none."""
        known = self.recall(owner, upstream, call)
        return () if known is None else known.thoughts

    def restored(self, owner: int, upstream: str, request: Request) -> Request:
        """The request with the reasoning that is missing from it; the very same object if there is none."""
        messages = [self._message(owner, upstream, message) for message in request.messages]
        if all(new is old for new, old in zip(messages, request.messages, strict=True)):
            return request
        return replace(request, messages=messages)

    def _message(self, owner: int, upstream: str, message: Message) -> Message:
        if message.role != "assistant":
            return message
        parts: list[Part] = []
        changed = False
        for part in message.parts:
            if isinstance(part, ToolCall) and (known := self.recall(owner, upstream, part.id)) is not None:
                missing = _missing(message.parts, known.thoughts)
                if missing:
                    # In front of everything: that is where models think.
                    parts[:0] = missing
                    changed = True
                if part.extra is None and known.extra is not None:
                    part = replace(part, extra=known.extra)
                    changed = True
            parts.append(part)
        return replace(message, parts=parts) if changed else message


def _missing(parts: Sequence[Part], thoughts: tuple[Thinking, ...]) -> tuple[Thinking, ...]:
    """The thoughts, unless the message has some of the same origin."""
    origins = {part.dialect for part in parts if isinstance(part, Thinking)}
    return () if any(thought.dialect in origins for thought in thoughts) else thoughts


def _place(owner: int, upstream: str, call: str) -> bytes:
    return hashlib.sha256(f"{owner}\0{upstream}\0{call}".encode("utf-8", "surrogatepass")).digest()
