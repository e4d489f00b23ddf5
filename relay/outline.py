"""A long body without what the relay need not read of it: texts, turns that hold nothing else, and lists that it knows.

To read a body, a parser makes objects of it, which takes as long as all else that is done for a call. So texts are left
out first, and what is left is read: it has every field, and all that the core asks of a request. What the texts
themselves are asked for is how many tokens they are, and that is counted on the way. Of a long conversation most turns
are plain: they have a few fields that are known, with text in them. Those are left out whole. The definitions of tools,
which agents send with every turn, byte by byte the same, are compared with those that came last, and not read again.
Whoever wants all of it gets the whole body, read then (`relay.dialect.Head.data`).

This is done in C (`relay/native/outline.c`, `plain.c`) or not at all: in Python it would take longer than the parser. A
body of which anything is unusual is read whole, so that whatever is wrong with one is said of the body that the caller
sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from relay.body import check_names, read_body, read_object
from relay.errors import BadParameter

__all__ = [
    "COMPILED",
    "DATA",
    "MANY",
    "ONE",
    "REST",
    "TEXT",
    "WORD",
    "Field",
    "Known",
    "Outline",
    "Texts",
    "read_outline",
]

LONG = 8192
"""Bytes of a body that is worth it."""
LONGEST = 128
"""Bytes of a text that stays."""
MODEL = (b"model",)
LEAST = 512
"""Bytes of a list that is remembered."""
MOST, MOST_BYTES = 64, 1024 * 1024
"""Lists that are remembered, and their bytes. What was read of them takes some ten times as much."""


# Forms of what is plain, for `Field.forms`; null is each of them.
TEXT = 1
"""A string that counts as text."""
WORD = 2
"""A string, a number, true or false, which counts nothing; one of `inner`, if there are any."""
MANY = 4
"""A list of objects with the fields `inner`."""
ONE = 8
"""One such object."""
DATA = 16
"""An object without the keys `inner`, which counts a quarter of the bytes in which this program would write it."""
REST = 32
"""Anything, for nothing."""


class Field(NamedTuple):
    """What an object may have that is plain: nothing but text, so that no more need be known of it than its tokens."""

    name: bytes
    forms: int
    """Those that its value may have: a sum, as `TEXT | MANY`."""
    inner: tuple[Field, ...] | tuple[bytes, ...] = ()
    tokens: int = 0
    """What an object counts beside what is in it."""


class Texts(NamedTuple):
    """What may be left out of a body."""

    fields: tuple[bytes, ...]
    """Fields of the outermost object in which there are long strings, and in those, by their keys:"""
    texts: tuple[bytes, ...]
    """texts, whose tokens count;"""
    bulk: tuple[bytes, ...] = ()
    """what is no text: media as base64. A string that begins with words is one all the same, and stays."""
    lists: tuple[bytes, ...] = ()
    """The field of the outermost object that is a list, and the same in many bodies. There is at most one."""
    labels: tuple[bytes, ...] = ()
    """Beginnings of strings that are looked for, wherever they are."""
    items: tuple[bytes, ...] = ()
    """Fields of the outermost object that are lists, of which an object becomes an empty one if it has"""
    plain: tuple[Field, ...] = ()
    """only such fields."""


class Outline(NamedTuple):
    """What was read of a body."""

    data: dict[str, Any]
    """The body, with empty strings where texts were left out, and empty objects where plain ones were. A list that was
    not read again is shared with others who sent the same, and must stay as it is."""
    tokens: int = 0
    """Tokens of all that was left out, estimated as `relay.kit.estimate_tokens` does."""
    spot: tuple[int, int] | None = None
    """Where the model's name stands in the body, quotes and all; None: nobody looked, and nothing was left out."""
    listed: bytes | None = None
    """The list, if it is one to be remembered, as this program would write it: the same object for the same list."""
    labelled: bool | None = None
    """Whether a string begins with one of the labels; None: nobody looked."""
    keyed: tuple[bytes, Mapping[str, Any]] | None = None
    """Bytes, and what was read of them, that have a key twice in an object if the body has. None: the body itself."""


_new = tuple.__new__


class Read(NamedTuple):
    """A list as it was read."""

    value: list[Any]
    written: bytes
    alike: bool
    """Whether it came just as this program writes it: then it has no key twice."""


class Known:
    """Lists that came before, by their bytes: the one that came last is the first."""

    def __init__(self, most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.lists: tuple[bytes, ...] = ()
        self._read: list[Read] = []
        self.size = 0
        """Bytes of them."""

    def take(self, number: int) -> Read:
        """One of them, which has come again."""
        read = self._read[number]
        if number:
            lists = self.lists
            self.lists = lists[number], *lists[:number], *lists[number + 1 :]
            self._read.insert(0, self._read.pop(number))
        return read

    def learn(self, raw: bytes, value: list[Any]) -> Read:
        """A new one."""
        written = orjson.dumps(value)
        read = Read(value, written, written == raw)
        if len(raw) <= self._most_bytes:
            self.lists = raw, *self.lists
            self._read.insert(0, read)
            self.size += len(raw)
            while len(self._read) > self._most or self.size > self._most_bytes:
                self.size -= len(self.lists[-1])
                self.lists = self.lists[:-1]
                self._read.pop()
        return read


def read_outline(raw: bytes, texts: Texts, known: Known, *, named: bool = True) -> Outline:
    """The body's outline, or all of it. `named`: the body names the model. Raises BadParameter as `relay.body` does."""
    if len(raw) >= LONG and _outline is not None:
        found = _outline(raw, LONGEST, texts, MODEL, known.lists)
        if found is not None:
            try:
                return _read(raw, texts, known, named, *found)
            except (BadParameter, orjson.JSONEncodeError):
                # What is wrong, and where, is to be said of the whole.
                pass
    # As `Outline(...)`, which is a Python function.
    return _new(Outline, (read_body(raw) if named else read_object(raw), 0, None, None, None, None))


def _read(
    raw: bytes,
    texts: Texts,
    known: Known,
    named: bool,
    short: bytes,
    tokens: int,
    begin: int,
    end: int,
    first: int,
    last: int,
    number: int,
    labelled: bool,
) -> Outline:
    data = read_object(short)
    if named:
        # That there is only one was seen on the way.
        check_names(data)
    listed = None
    keyed: tuple[bytes, Mapping[str, Any]] | None = short, data
    if number >= 0:
        name = texts.lists[0].decode()
        value, listed, alike = known.take(number)
        keyed = (short, data) if alike else None
        data = {**data, name: value}
    elif last - first >= LEAST:
        listed = known.learn(raw[first:last], data[texts.lists[0].decode()]).written
    return Outline(data, tokens, (begin, end), listed, labelled, keyed)


_outline: Callable[..., tuple[bytes, int, int, int, int, int, int, bool] | None] | None
try:
    from relay._native import outline as _outline
except ImportError:
    _outline = None
COMPILED = _outline is not None
"""Whether it can be done."""
