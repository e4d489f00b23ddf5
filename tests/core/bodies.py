"""Bodies of requests, drawn at random: what they are made of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st

from relay.outline import COMPILED

__all__ = ["SPACES", "STRING", "compiled", "values"]

compiled = pytest.mark.skipif(not COMPILED, reason="the part in C could not be built")
LETTERS = st.text(st.sampled_from('ab ,:{}[]"\\/\n\t\x1féß€漢😀'), max_size=40)
STRING = st.one_of(
    LETTERS, st.just("label:x"), st.builds(lambda text, times: text * times, LETTERS, st.integers(1, 60))
)
SPACES = st.sampled_from([(",", ":"), (", ", ": "), (",\n\t ", "\r : ")])
"""What stands between values, and behind keys."""


def values(keys: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Any value, with these keys in its objects."""
    return st.recursive(
        st.one_of(STRING, st.integers(-(2**63), 2**64 - 1), st.booleans(), st.none()),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
        max_leaves=12,
    )
