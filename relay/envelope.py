"""The i8Relay API's own error bodies, and the names of request ids."""

from __future__ import annotations

import os
import time

import orjson

from relay.errors import RelayError

RANDOM_BYTES = 8
TICKS = 8
"""How many different endings ids have in a second."""

__all__ = ["error_body", "new_request_id"]


_random = bytearray()


def new_request_id() -> str:
    """A fresh id, unguessable and safe in headers, logs and file names.

    Its last eight digits are the time, because the store's index is of them: an index that only grows at its end costs
    a third of one that grows all over.
    """
    # The kernel is asked for many at once: a call of it per request would cost more than the rest of this.
    if not _random:
        _random.extend(os.urandom(RANDOM_BYTES * 256))
    taken = _random[-RANDOM_BYTES:].hex()
    del _random[-RANDOM_BYTES:]
    return f"req_{taken}{int(time.time() * TICKS) & 0xFFFFFFFF:08x}"


def error_body(error: RelayError) -> bytes:
    """`{"error": {"type", "code", "message", "param"}}`."""
    return orjson.dumps(
        {"error": {"type": error.type, "code": error.code, "message": error.message, "param": error.param}}
    )
