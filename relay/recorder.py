"""Complete answers written down on their way to their client, and given again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from relay.call import Call
from relay.outbox import Buffer
from relay.outlet import Outlet

__all__ = ["Ample", "Recorder", "Room", "Shared", "replay"]

LASTING = frozenset(
    {
        "x-accel-buffering",
        "x-relay-dropped",
        "x-relay-model",
        "x-relay-token-count",
        "x-relay-tool-arguments",
        "x-relay-upstream",
    }
)
"""Headers that are about the answer. All others are about one call, its limits, its page and its attempts."""


class Room(Protocol):
    """Where bytes are recorded."""

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes more, which are taken then."""
        ...

    def give(self, size: int) -> None:
        """So many bytes are free again."""
        ...


class Ample:
    """Room that is not shared: each answer is bounded for itself."""

    def take(self, size: int) -> bool:
        """There is."""
        return True

    def give(self, size: int) -> None:
        """Nothing."""


class Shared:
    """Room for all that is recorded at a time."""

    __slots__ = ("left",)

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes more, which are taken then."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        """So many bytes are free again."""
        self.left += size


class Recorder(Outlet):
    """An outlet that remembers what went through it. `close` it in any case."""

    __slots__ = ("_complete", "_inner", "_most", "_parts", "_room", "_size", "content_type", "headers", "stream")

    def __init__(self, inner: Outlet, most: int, room: Room) -> None:
        self._inner = inner
        # Pieces come here as what they are: none is passed on with its framing.
        self.chunked = False
        self._most = most
        self._room = room
        self.headers: dict[str, str] = {}
        """Those that are about the answer."""
        self.content_type = ""
        self.stream = False
        self._parts: list[bytes] = []
        self._size = 0
        self._complete = False

    def body(self) -> bytes | None:
        """The whole answer, if it is complete and there was room for it."""
        return b"".join(self._parts) if self._complete and self._size >= 0 else None

    def close(self) -> None:
        """What was recorded is let go."""
        if self._size > 0:
            self._room.give(self._size)
        self._size = -1
        self._parts.clear()

    def _begin(self, headers: Mapping[str, str], content_type: str, *, stream: bool) -> None:
        self.headers = {name: value for name, value in headers.items() if name.lower() in LASTING}
        self.content_type = content_type
        self.stream = stream

    def _take(self, data: bytes) -> None:
        if self._size < 0:
            return
        if self._size + len(data) > self._most or not self._room.take(len(data)):
            self.close()
            return
        self._size += len(data)
        self._parts.append(data)

    def write(self, data: bytes) -> None:
        """As it is; no part of an answer."""
        self._inner.write(data)

    def answer(
        self, headers: Mapping[str, str], content_type: str, body: bytes, request_id: str, status: int = 200
    ) -> None:
        """A complete answer."""
        self._begin(headers, content_type, stream=False)
        self._take(body)
        self._complete = status == 200
        self._inner.answer(headers, content_type, body, request_id, status)

    def open(
        self, headers: Mapping[str, str], content_type: str, request_id: str, first: bytes, *, end: bool = False
    ) -> None:
        """The head of a stream, and what comes with it."""
        self._begin(headers, content_type, stream=True)
        self._take(first)
        self._complete = end
        self._inner.open(headers, content_type, request_id, first, end=end)

    def send(self, data: bytes) -> None:
        """More of a stream."""
        self._take(data)
        self._inner.send(data)

    def passes(self, chunks: Buffer) -> bool:
        """Never: what is kept is kept without framing."""
        return False

    def end(self, data: bytes = b"") -> None:
        """The last of a stream."""
        self._take(data)
        self._complete = True
        self._inner.end(data)

    def cut(self) -> None:
        """The end of a stream that is not complete."""
        self._complete = False
        self._inner.cut()

    def full(self) -> bool:
        """Whether the client reads more slowly than it is written to."""
        return self._inner.full()

    async def drain(self) -> None:
        """Wait until the client has read on."""
        await self._inner.drain()


def replay(
    call: Call, outlet: Outlet, headers: Mapping[str, str], content_type: str, body: bytes, now: float, *, stream: bool
) -> None:
    """Give a recorded answer to a call, which costs nothing then. `now` is in monotonic seconds."""
    call.usage_source, call.cost, call.billed = "cache", 0, True
    call.first_byte = now
    said = {**headers, **call.headers}
    if call.dialect is not None and call.dialect.request_id_header:
        said[call.dialect.request_id_header] = call.id
    if stream:
        outlet.open(said, content_type, call.id, body, end=True)
    else:
        outlet.answer(said, content_type, body, call.id)
