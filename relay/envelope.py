"""The i8Relay API's own error bodies, and the names of request ids."""

from __future__ import annotations

import os

import orjson

from relay.errors import RelayError

ID_BYTES = 12

__all__ = ["error_body", "new_request_id"]


_random = bytearray()


def new_request_id() -> str:
    """A fresh id, unguessable and safe in headers, logs and file names."""
    # The kernel is asked for many at once: a call of it per request would cost more than the rest of this.
    if not _random:
        _random.extend(os.urandom(ID_BYTES * 256))
    taken = _random[-ID_BYTES:].hex()
    del _random[-ID_BYTES:]
    return "req_" + taken


def error_body(error: RelayError) -> bytes:
    """`{"error": {"type", "code", "message", "param"}}`."""
    return orjson.dumps(
        {"error": {"type": error.type, "code": error.code, "message": error.message, "param": error.param}}
    )
