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
from typing import TYPE_CHECKING

import orjson

from relay.call import Call
from relay.errors import BadParameter, CallerError, Unavailable
from relay.outlet import Outlet
from relay.recorder import Ample, Recorder, replay
from relay.store.database import StoreError
from relay.store.repeats import LARGEST, Unopened

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["HEADER", "Repeater"]

HEADER = "Idempotency-Key"
LONGEST = 255

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
                recorder = Recorder(outlet, LARGEST, Ample())
                await self._relay.pipeline.run(call, recorder)
                answer = _kept(recorder)
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
            return await self._relay.store.repeats.find(call.key, name, call.at)
        except Unopened:
            raise CallerError(
                f"this {HEADER} was used with another secret of this API key, which alone opens the answer: give the "
                "request one of its own",
                status=422,
                code="idempotency_key_reused",
            ) from None
        except (sqlite3.Error, StoreError) as error:
            log.error("answers that are kept cannot be read: %s", error)
            # To carry it out again is what the client asked us never to do.
            raise Unavailable(
                "nobody can tell now whether this request was answered before", retry_after=1.0
            ) from error

    async def _keep(self, call: Call, name: str, digest: bytes, answer: bytes) -> None:
        try:
            await self._relay.store.repeats.store(call.key, name, digest, answer, call.at)
        except (sqlite3.Error, StoreError) as error:
            log.error("the answer to %s cannot be kept, and a repeat of it would be carried out: %s", call.id, error)

    def _replay(self, call: Call, outlet: Outlet, kept: bytes) -> None:
        line, _, body = kept.partition(b"\n")
        about = orjson.loads(line)
        headers = {**about["headers"], "idempotent-replayed": "true"}
        replay(call, outlet, headers, about["type"], body, self._relay.clock(), stream=about["stream"])


def _kept(recorder: Recorder) -> bytes | None:
    """An answer as it is stored: what there is to say of it, and itself."""
    body = recorder.body()
    if body is None:
        return None
    about = {"headers": recorder.headers, "type": recorder.content_type, "stream": recorder.stream}
    return orjson.dumps(about) + b"\n" + body
