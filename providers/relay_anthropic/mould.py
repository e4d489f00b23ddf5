"""The mould of a delta: where its text begins and ends."""

from __future__ import annotations

import re

from relay.mould import Mould

__all__ = ["delta_mould"]

_TEXT = re.compile(rb'"(?:text|thinking|partial_json)":\s*"((?:[^"\\]|\\.)*)"')
_PADDED = re.compile(rb"( +)(}\n\n)$")
_START = b"event: content_block_delta\ndata:"


def delta_mould(event: bytes) -> Mould | None:
    """The mould of a delta with one text; None for any other event.

    The vendor hides the length of texts by a changing number of spaces before the last brace.
    """
    texts = list(_TEXT.finditer(event))
    if not event.startswith(_START) or event.count(b"\n") != 3 or len(texts) != 1:
        return None
    padded = _PADDED.search(event, texts[0].end(1))
    return Mould.of(event, texts[0].span(1), None if padded is None else padded.span(1))
