"""A long body without its long texts: nearly all of a prompt is text that the relay passes on and never looks at.

To read it, a parser makes objects of it, which takes as long as all else that is done for a call. So the texts are left
out first, and what is left is read: it has every field, and all that the core asks of a request. What the texts
themselves are asked for is how many tokens they are, and that is counted on the way. Whoever wants them all the same
gets the whole body, read then (`relay.dialect.Head.data`).

This is done in C (`relay/native/outline.c`) or not at all: in Python it would take longer than the parser. A body of
which anything is unusual is read whole, so that whatever is wrong with one is said of the body that the caller sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from relay.body import read_body
from relay.errors import BadParameter

__all__ = ["COMPILED", "Outline", "Texts", "read_outline"]

LONG = 8192
"""Bytes of a body that is worth it."""
LONGEST = 128
"""Bytes of a text that stays."""
MODEL = (b"model",)


class Texts(NamedTuple):
    """What may be left out of a body: long strings, by the key that they are the value of."""

    fields: tuple[bytes, ...]
    """Fields of the outermost object in which they are."""
    texts: tuple[bytes, ...]
    """Keys of texts, whose tokens count."""
    bulk: tuple[bytes, ...] = ()
    """Keys of what is no text: media as base64."""


class Outline(NamedTuple):
    """What was read of a body."""

    data: dict[str, Any]
    """The body, with empty strings where texts were left out."""
    tokens: int = 0
    """Tokens of what was left out, estimated as `relay.kit.estimate_tokens` does."""
    spot: tuple[int, int] | None = None
    """Where the model's name stands in the body, quotes and all; None: nobody looked. Nothing was left out then."""


def read_outline(raw: bytes, texts: Texts) -> Outline:
    """The body's outline, or all of it. Raises BadParameter as `relay.body.read_body`."""
    if len(raw) >= LONG and _outline is not None:
        found = _outline(raw, LONGEST, texts.fields, texts.texts, texts.bulk, MODEL)
        if found is not None:
            short, tokens, begin, end = found
            try:
                return Outline(read_body(short), tokens, (begin, end))
            except BadParameter:
                # What is wrong, and where, is to be said of the whole.
                pass
    return Outline(read_body(raw))


_outline: Callable[..., tuple[bytes, int, int, int] | None] | None
try:
    from relay._native import outline as _outline
except ImportError:
    _outline = None
COMPILED = _outline is not None
"""Whether it can be done."""
