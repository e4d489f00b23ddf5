"""Requests that may come twice: a client names one with `Idempotency-Key`, and it is carried out once.

The same name with the same body gets the same answer again, marked `idempotent-replayed: true`; while the first is
still under way it is told to wait (409), and with another body it is refused (422). Names belong to their key. Only
complete answers are kept, streams among them: after an error or a broken stream a repeat is carried out.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

from relay.call import Call
from relay.errors import BadParameter, CallerError, Unavailable
from relay.outlet import Outlet
from relay.store.database import StoreError
from relay.store.repeats import LARGEST

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["HEADER", "Repeater"]

HEADER = "Idempotency-Key"
LONGEST = 255
OURS = ("ratelimit", "request-id")
"""Words in the names of headers that are about one request and not about its answer."""

log = logging.getLogger("relay.repeats")


class Repeater:
    """Remembers what is under way in this process; what is done is in the store."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._running: dict[tuple[int, str], bytes] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, call: Call, outlet: Outlet, name: str, path: str, raw: bytes) -> None:
        """Answer a call with such a name: from the store, or by carrying it out. Raises RelayError."""
        if not 0 < len(name) <= LONGEST or not name.isascii() or not name.isprintable():
            raise BadParameter(
                f"{HEADER} must be 1 to {LONGEST} printable ASCII characters",
                param=HEADER,
                code="invalid_idempotency_key",
            )
        place, digest = (call.key.id, name), hashlib.sha256(path.encode() + b"\n" + raw).digest()
        running = self._running.get(place)
        if running is not None:
            self._same(running, digest)
            raise CallerError(
                f"a request with this {HEADER} is under way",
                status=409,
                code="idempotency_key_in_use",
                retry_after=1.0,
            )
        self._running[place] = digest
        try:
            found = await self._found(call, name)
            if found is not None:
                self._same(found[0], digest)
                self._replay(call, outlet, found[1])
                answer = None
            else:
                recorder = Recorder(outlet)
                await self._relay.pipeline.run(call, recorder)
                answer = recorder.answered()
            if answer is not None:
                # The client has its answer, and waits for nothing more. Until it is kept, the name stays taken.
                task = asyncio.create_task(self._keep(call, name, digest, answer))
                self._tasks.add(task)
                task.add_done_callback(lambda task: self._kept(task, place))
                return
        except BaseException:
            del self._running[place]
            raise
        del self._running[place]

    def _kept(self, task: asyncio.Task[None], place: tuple[int, str]) -> None:
        self._tasks.discard(task)
        del self._running[place]

    def _same(self, before: bytes, now: bytes) -> None:
        if before != now:
            raise CallerError(
                f"this {HEADER} was used for another request: give each request one of its own",
                status=422,
                code="idempotency_key_reused",
            )

    async def _found(self, call: Call, name: str) -> tuple[bytes, bytes] | None:
        try:
            return await self._relay.store.repeats.find(call.key.id, name, call.at)
        except sqlite3.Error as error:
            log.error("answers that are kept cannot be read: %s", error)
            # To carry it out again is what the client asked us never to do.
            raise Unavailable(
                "nobody can tell now whether this request was answered before", retry_after=1.0
            ) from error

    async def _keep(self, call: Call, name: str, digest: bytes, answer: bytes) -> None:
        try:
            await self._relay.store.repeats.store(call.key.id, name, digest, answer, call.at)
        except (sqlite3.Error, StoreError) as error:
            log.error("the answer to %s cannot be kept, and a repeat of it would be carried out: %s", call.id, error)

    def _replay(self, call: Call, outlet: Outlet, kept: bytes) -> None:
        line, _, body = kept.partition(b"\n")
        about = orjson.loads(line)
        call.usage_source, call.cost, call.billed = "cache", 0, True
        call.first_byte = self._relay.clock()
        headers = {**about["headers"], "idempotent-replayed": "true"}
        if call.dialect is not None and call.dialect.request_id_header:
            headers[call.dialect.request_id_header] = call.id
        if about["stream"]:
            outlet.open(headers, about["type"], call.id, body, end=True)
        else:
            outlet.answer(headers, about["type"], body, call.id)


class Recorder(Outlet):
    """An outlet that remembers what went through it."""

    __slots__ = ("_about", "_complete", "_inner", "_parts", "_size")

    def __init__(self, inner: Outlet) -> None:
        self._inner = inner
        self.chunked = inner.chunked
        self._about: dict[str, object] = {}
        self._parts: list[bytes] = []
        self._size = 0
        self._complete = False

    def answered(self) -> bytes | None:
        """The whole answer, if it is complete and not too large."""
        if not self._complete or self._size > LARGEST:
            return None
        return orjson.dumps(self._about) + b"\n" + b"".join(self._parts)

    def _begin(self, headers: Mapping[str, str], content_type: str, *, stream: bool) -> None:
        lasting = {name: value for name, value in headers.items() if not any(word in name.lower() for word in OURS)}
        self._about = {"headers": lasting, "type": content_type, "stream": stream}

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= LARGEST:
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

    def passes(self, chunk: bytes) -> bool:
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
