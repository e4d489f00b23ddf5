"""The i8Relay API's own error bodies, and the names of request ids."""

from __future__ import annotations

import os

import orjson

from relay.errors import RelayError

RANDOM_BYTES = 8
AT_ONCE = 256
TICK = 125
"""Milliseconds in which all ids end alike."""

__all__ = ["error_body", "new_request_id"]


_random: list[str] = []


def new_request_id(at: int) -> str:
    """A fresh id for a request that came `at` a time in Unix milliseconds, safe in headers, logs and file names.

    It begins with random digits and ends with the time, because the store's index is of its last eight digits: an index
    that only grows at its end costs a third of one that grows all over.
    """
    if not _random:
        # The kernel is asked for many at once: a call of it per request would cost more than the rest of this.
        digits = os.urandom(RANDOM_BYTES * AT_ONCE).hex()
        width = 2 * RANDOM_BYTES
        _random.extend(digits[place : place + width] for place in range(0, len(digits), width))
    return f"req_{_random.pop()}{at // TICK & 0xFFFFFFFF:08x}"


def error_body(error: RelayError) -> bytes:
    """`{"error": {"type", "code", "message", "param"}}`."""
    return orjson.dumps(
        {"error": {"type": error.type, "code": error.code, "message": error.message, "param": error.param}}
    )
