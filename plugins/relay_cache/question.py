"""When are two questions the same? If nothing that could change the answer differs.

That is the body, all of it, in a spelling of its own in which neither the order of keys nor blanks matter; the dialect,
and what of headers and path goes into the request; the model, and the one who asks, unless answers are shared. And on
the other side the target: its upstream as it is configured, the model's name there, the code that talks to it, and what
it costs. A question whose body cannot be spelled without doubt is the same as another only byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from typing import Any

import orjson

from relay import Question, Source

__all__ = ["canonical", "place", "question_digest"]

READ = 262_144
"""Bytes of a body up to which it is looked through for keys that are there twice."""
LONG_NUMBER = re.compile(rb"[0-9]{16}")
"""Numbers that may not be what they were, once they were read; or text that looks so."""


class _Twins(Exception):
    """A key is there twice."""


def canonical(raw: bytes, data: Any) -> bytes:
    """The body in a spelling that is the same for all bodies that mean the same; itself, where that is in doubt.

    >>> canonical(b'{"b": 1, "a": [2]}', {"b": 1, "a": [2]})
    b'json {"a":[2],"b":1}'
    """
    if len(raw) <= READ and not LONG_NUMBER.search(raw):
        try:
            if orjson.dumps(data) == raw or not _twins(raw):
                return b"json " + orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
        except (TypeError, RecursionError, ValueError):
            # Nested too deeply, or in an odd encoding.
            pass
    return b"raw " + raw


def _twins(raw: bytes) -> bool:
    """Whether an object has a key twice: then every reader chooses for itself."""
    try:
        json.loads(raw, object_pairs_hook=_counted)
    except _Twins:
        return True
    return False


def _counted(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise _Twins


def question_digest(question: Question, *, shared: bool) -> bytes:
    """What stands for the question, but for who would answer it."""
    head = question.head
    # Tools make a conversation, in which the relay remembers things for each key.
    owner = 0 if shared and not head.has_tools else question.key
    about = (
        owner,
        question.strict,
        question.model,
        question.dialect,
        question.plugin,
        head.operation,
        head.model,
        head.stream,
        head.stream_type,
        sorted(head.headers.items()),
    )
    found = hashlib.sha256(repr(about).encode("utf-8", "surrogatepass"))
    found.update(b"\0")
    found.update(canonical(head.raw, head.data))
    return found.digest()


def place(question: bytes, source: Source) -> bytes:
    """Where the answer of this source to that question is kept."""
    return hashlib.sha256(question + _mark(source)).digest()


@lru_cache(maxsize=1024)
def _mark(source: Source) -> bytes:
    upstream = source.target.upstream
    about = (
        upstream.name,
        upstream.family,
        upstream.base_url,
        upstream.host,
        sorted(upstream.dialects),
        sorted(upstream.headers.items()),
        sorted((name, repr(value)) for name, value in upstream.options.items()),
        source.target.model,
        source.plugin,
        source.price,
    )
    return hashlib.sha256(repr(about).encode("utf-8", "surrogatepass")).digest()
