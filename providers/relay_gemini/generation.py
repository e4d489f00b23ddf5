"""What the generations of models differ in: how they are told to think, and what they insist on.

An unknown model is taken for a new one; the upstream option `thinking` overrides the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

__all__ = ["BUDGETS", "Generation", "LEVELS", "generation_of"]

LEVELS: Mapping[str, str] = {
    "none": "minimal",
    "minimal": "minimal",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
"""The caller's effort word to the vendor's level, for models that take a word."""

BUDGETS: Mapping[str, int] = {
    "none": 0,
    "minimal": 512,
    "low": 1024,
    "medium": 8192,
    "high": 24_576,
    "xhigh": 32_768,
    "max": 32_768,
}
"""The caller's effort word to thinking tokens, for models that take a number."""


@dataclass(frozen=True, slots=True)
class Generation:
    """The rules of one generation."""

    thinking: str = "level"
    """`level` (a word), `budget` (a number of tokens), or `none`."""
    levels: Mapping[str, str] = field(default_factory=dict)
    """Levels that this model lacks, and what stands for them."""
    least: int = 0
    """The smallest budget that still lets the model think, in tokens."""
    most: int = 32_768
    off: bool = True
    """Whether thinking can be switched off."""
    signed: bool = True
    """Whether function calls of earlier turns must carry a `thoughtSignature`, and results may hold media."""


_NONE = Generation(thinking="none", signed=False)
_ROWS: tuple[tuple[str, Generation], ...] = (
    ("*gemini-2.5-pro*", Generation("budget", least=128, off=False, signed=False)),
    ("*gemini-2.5-flash-lite*", Generation("budget", least=512, most=24_576, signed=False)),
    ("*gemini-2.5-*image*", _NONE),
    ("*gemini-2.5-*", Generation("budget", most=24_576, signed=False)),
    ("*gemini-2.*", _NONE),
    ("*gemini-1.*", _NONE),
    ("*gemma-*", _NONE),
    ("*gemini-3-pro*", Generation(levels={"minimal": "low", "medium": "high"}, off=False)),
    ("*gemini-3*-pro*", Generation(levels={"minimal": "low"}, off=False)),
)


def generation_of(model: str, options: Mapping[str, Any]) -> Generation:
    """The rules for `model`; of `options`, the upstream's, `thinking` counts here."""
    found = next((row for pattern, row in _ROWS if fnmatchcase(model.lower(), pattern)), Generation(off=False))
    thinking = options.get("thinking")
    return replace(found, thinking=thinking) if thinking in ("level", "budget", "none") else found
