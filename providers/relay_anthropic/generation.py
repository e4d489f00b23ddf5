"""What the generations of models differ in: how they are told to think, and whether they can be told how to sample.

The rows are what the vendor's model list and its refusals said. An unknown model is taken for a new one, so a model
that appears tomorrow needs a row only if it changes the rules again; the upstream option `thinking` overrides the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

__all__ = ["Generation", "generation_of"]


@dataclass(frozen=True, slots=True)
class Generation:
    """The rules of one generation."""

    thinking: str = "adaptive"
    """`adaptive` (the model decides, `effort` guides it), `budget` (a number of tokens), or `none`."""
    budgets: bool = False
    """Whether an adaptive model also still takes a number of tokens."""
    efforts: Mapping[str, str] | None = None
    """The effort words that this generation reads in another way."""
    sampling: bool = False
    """Whether `temperature`, `top_p` and `top_k` are accepted. New models refuse all three."""
    max_tokens: int = 32_000
    """`max_tokens` for callers that set none: the vendor requires it. As much as every model of the row allows."""


EFFORTS: Mapping[str, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}
"""The caller's effort word to the vendor's, for models that take a word."""

BUDGETS: Mapping[str, int] = {
    "minimal": 1024,
    "low": 2048,
    "medium": 8192,
    "high": 16_384,
    "xhigh": 24_576,
    "max": 28_000,
}
"""The caller's effort word to thinking tokens, for models that take a number."""

LEAST_BUDGET = 1024
"""The smallest thinking budget that the vendor accepts, in tokens."""

_BUDGET = Generation(thinking="budget", sampling=True)
_ROWS: tuple[tuple[str, Generation], ...] = (
    ("*claude-3-7*", _BUDGET),
    ("*claude-3-5*", Generation(thinking="none", sampling=True, max_tokens=8192)),
    ("*claude-3-*", Generation(thinking="none", sampling=True, max_tokens=4096)),
    ("*claude-2*", Generation(thinking="none", sampling=True, max_tokens=4096)),
    ("*claude-instant*", Generation(thinking="none", sampling=True, max_tokens=4096)),
    ("*claude-*-4-6*", Generation(budgets=True, efforts={"xhigh": "high"}, sampling=True)),
    ("*claude-*-4-5*", _BUDGET),
    ("*claude-*-4-1*", _BUDGET),
    ("*claude-*-4-0*", _BUDGET),
    ("*claude-*-4-20*", _BUDGET),
    ("*claude-*-4@*", _BUDGET),
    ("*claude-*-4", _BUDGET),
)


def generation_of(model: str, options: Mapping[str, Any]) -> Generation:
    """The rules for `model`; `options` are the upstream's, of which `thinking` and `max_tokens` count here."""
    found = next((row for pattern, row in _ROWS if fnmatchcase(model.lower().replace(".", "-"), pattern)), Generation())
    thinking, limit = options.get("thinking"), options.get("max_tokens")
    if thinking in ("adaptive", "budget", "none"):
        found = replace(found, thinking=thinking)
    if type(limit) is int and limit > 0:
        found = replace(found, max_tokens=limit)
    return found
