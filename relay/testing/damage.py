"""Bytes that nobody should send, made of bytes that somebody does."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["ODD_BODIES", "damaged", "pieces", "places", "renumbered", "reshaped"]

ODD_BODIES = (
    b"",
    b" ",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"17",
    b"<html><body>Bad gateway</body></html>",
    b"\xff\xfe\x00",
    b'{"error":',
    b'{"error":null}',
    b'{"error":[]}',
    b'{"error":"words"}',
    b'{"error":{"message":null,"code":7,"type":[]}}',
    b'{"error":{"message":{"deep":{"er":1}}}}',
    b'[{"error":{"code":400,"message":"m","status":"S"}}]',
    b'{"message":"words","detail":[{"loc":["body"],"msg":"m"}]}',
    b"[" * 100_000,
    b'{"a":' * 2000 + b"1" + b"}" * 2000,
)
ODD_NUMBERS = (b"-5", b"1000000000000", b"1e400", b"NaN", b"1.5", b"null", b'"7"', b"true", b"[]", b"-0", b"2" * 400)
NUMBER = re.compile(rb"(?<=[:\[, ])-?\d+(?:\.\d+)?(?=[,\]} \r\n])")
DAMAGES = 150
RESHAPED = 400
"""Values that are replaced in one stream or answer, at most."""
ODD_VALUES: tuple[Any, ...] = (None, [], {}, "", "words", 7, -1, 1.5, True, [[]], [None], {"a": {}}, ["a", 1])
PUT_IN = (
    b"\x00",
    b"\xff",
    b"\n\n",
    b"data: [DONE]\n\n",
    b"null",
    b"{}",
    b"[]",
    b'"',
    b"\\",
    b"}",
    b"\r",
    b"data:",
    b"-1",
)


def places(length: int, most: int) -> Sequence[int]:
    """Places in so many bytes, evenly; all of them if they are not too many."""
    step = max(1, length // most)
    return range(0, length, step)


def pieces(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """The bytes in pieces, as they might arrive."""
    at = 0
    while at < len(data):
        end = at + chance.choice((1, 3, 20, 500))
        yield data[at:end]
        at = end


def damaged(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """The bytes with something changed, left out, doubled or put in."""
    for _ in range(DAMAGES):
        start = chance.randrange(len(data))
        end = min(len(data), start + chance.choice((0, 1, 1, 5, 60)))
        yield data[:start] + chance.choice((b"", b"", data[start:end] * 2, chance.choice(PUT_IN))) + data[end:]


def renumbered(data: bytes) -> Iterator[bytes]:
    """The bytes with another value in the place of each number in turn."""
    for match in NUMBER.finditer(data):
        for odd in ODD_NUMBERS:
            yield data[: match.start()] + odd + data[match.end() :]


def reshaped(data: bytes, chance: random.Random) -> Iterator[bytes]:
    """The bytes with a value of another kind in the place of each value of their JSON, or without it."""
    lines = data.split(b"\n")
    places = [
        (number, prefix, path)
        for number, line in enumerate(lines)
        for prefix in (b"data: ", b"")
        if line.startswith(prefix) and (value := _object(line.removeprefix(prefix))) is not None
        for path in _paths(value)
    ]
    every = [(*place, odd) for place in places for odd in (*ODD_VALUES, _GONE)]
    for number, prefix, path, odd in every if len(every) <= RESHAPED else chance.sample(every, RESHAPED):
        value = _object(lines[number].removeprefix(prefix))
        _replace(value, path, odd)
        yield b"\n".join([*lines[:number], prefix + json.dumps(value).encode(), *lines[number + 1 :]])


_GONE = object()


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where values stand in a JSON value, however deep."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield (*path, name)
        yield from _paths(one, (*path, name))


def _replace(value: Any, path: Sequence[str | int], odd: Any) -> None:
    *way, last = path
    for name in way:
        value = value[name]
    if odd is _GONE:
        del value[last]
    else:
        value[last] = odd
