"""Values of the hub, for hypothesis: the pieces that all dialects share. What one of them carries is put together of
these by its own tests."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from relay.ir import Cache, Media, Output, Sampling, Text, Tool, ToolCall, Usage
from relay.kit import dumps

SPACE = " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0"
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
WORDS = TEXTS.map(str.strip).filter(bool)
"""With something in them, and no white space around it."""
NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
IDS = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
SCALARS = st.one_of(st.integers(-(2**53), 2**53), st.booleans(), TEXTS, st.none(), st.floats(-1e6, 1e6))
OBJECTS = st.dictionaries(TEXTS, st.one_of(SCALARS, st.lists(SCALARS, max_size=2)), max_size=3)
ARGUMENTS = OBJECTS.map(lambda value: dumps(value).decode())
DATA = st.binary(min_size=1, max_size=9).map(lambda raw: base64.b64encode(b"\x00" + raw).decode())
"""Base64 that no vendor takes for the beginning of a known format."""
URLS = st.from_regex(r"https://[a-z]{1,8}\.test/[a-z]{1,8}", fullmatch=True)
COUNTS = st.integers(0, 10**6)
CACHES = st.one_of(st.none(), st.builds(Cache, st.sampled_from([None, "5m", "1h"])))


def counts(usage: Usage | None) -> Usage | None:
    """What was used, without the host's own object: that is for whoever reads an answer, and not for who counts it."""
    return None if usage is None else replace(usage, raw=None)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A value, or None."""
    return st.one_of(st.none(), strategy)


def texts(cache: st.SearchStrategy[Any] | None = None) -> st.SearchStrategy[Text]:
    """Texts, with cache markers where they are carried."""
    return st.builds(Text, WORDS, cache=cache if cache is not None else st.none())


def media(kind: str, *types: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Media]:
    """Media of a kind whose content is there."""
    return st.builds(Media, st.just(kind), media_type=st.sampled_from(types), data=DATA, **fields)


def linked(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Media]:
    """Media of a kind that are somewhere else."""
    return st.builds(Media, st.just(kind), url=URLS, **fields)


def calls(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[list[ToolCall]]:
    """Up to three calls with different ids."""
    one = st.builds(ToolCall, IDS, NAMES, ARGUMENTS, **fields)
    return st.lists(one, max_size=3, unique_by=lambda call: call.id)


def tools(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Tool]]:
    """Up to three tools with different names."""
    schema = st.dictionaries(NAMES, st.just({"type": "string"}), max_size=2).map(
        lambda properties: {"type": "object", "properties": properties}
    )
    one = st.builds(Tool, NAMES, maybe(WORDS), schema, **fields)
    return st.lists(one, max_size=3, unique_by=lambda tool: tool.name)


def sampling(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Sampling]:
    """Sampling in which each of these may be set."""
    return st.builds(Sampling, **{name: maybe(strategy) for name, strategy in fields.items()})


SHARES = st.floats(0.01, 0.99)
PENALTIES = st.floats(-2, 2)
STOPS = st.lists(WORDS, min_size=1, max_size=4)
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}


def outputs(name: st.SearchStrategy[Any], strict: st.SearchStrategy[Any]) -> st.SearchStrategy[Output]:
    """Forms of answers by a schema."""
    return st.builds(Output, st.just("schema"), st.just(SCHEMA), name=name, strict=strict)


@st.composite
def usages(draw: Any, *parts: str) -> Usage:
    """Counts in which the parts are not more than their totals."""
    usage = Usage(input=draw(COUNTS), output=draw(COUNTS))
    for name in parts:
        whole = usage.output if name in ("reasoning", "audio_out") else usage.input
        setattr(usage, name, draw(st.integers(0, whole or 0)) // len(parts))
    return usage


LOGPROBS = st.lists(
    st.fixed_dictionaries(
        {"token": TEXTS, "logprob": st.floats(-20, 0), "bytes": st.none(), "top_logprobs": st.just([])}
    ),
    min_size=1,
    max_size=3,
)
