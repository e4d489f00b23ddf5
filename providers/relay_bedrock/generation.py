"""What the models that are served here differ in, by their names.

Where a model's own vendor has a way of its own, this format passes it on unread: how the model is told to think, what
it takes as `top_k`. A model without a row gets nothing of the kind; what it then refuses, it says itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from relay import Target
from relay_anthropic.generation import Generation as ClaudeGeneration
from relay_anthropic.generation import generation_of as claude_generation_of

__all__ = ["EFFORTS", "Generation", "foundation_of", "generation_of", "is_claude", "name_of"]


@dataclass(frozen=True, slots=True)
class Generation:
    """The rules of one kind of models."""

    claude: ClaudeGeneration | None = None
    """Those that Claude has wherever it is served."""
    effort: str = ""
    """Field of the model's own for how much it thinks: a word of `EFFORTS`. Empty: there is none."""
    nova: bool = False
    """Whether it is told so as newer Nova models are."""
    replays: bool = False
    """Whether it is shown again what it thought and did not sign."""
    cache: bool = False
    """Whether messages and system prompts take cache markers."""
    cache_tools: bool = False
    """Whether tools do."""
    cache_hour: bool = False
    """Whether markers can be for an hour."""
    top_k: tuple[str, ...] = ()
    """Where `top_k` stands among the model's own fields."""
    parallel: bool = False
    """Whether it can be told to call one tool at a time."""
    json_results: bool = False
    """Whether what tools answer must be JSON."""


PLACES = frozenset({"us", "us-gov", "eu", "apac", "jp", "au", "ca", "global"})
"""With what the names of profiles begin that send requests around a part of the world."""

EFFORTS: Mapping[str, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
"""The caller's word for an effort to the word of models that know three."""

_CLAUDE = Generation(cache=True, cache_tools=True, cache_hour=True, top_k=("top_k",), parallel=True)
_OLDER = replace(_CLAUDE, cache_hour=False, parallel=False)
_OLD = replace(_OLDER, cache=False, cache_tools=False)
_NOVA = Generation(cache=True, top_k=("inferenceConfig", "topK"))
_ROWS: tuple[tuple[str, Generation], ...] = (
    ("*anthropic.claude-3-5-haiku*", _OLDER),
    ("*anthropic.claude-3-5-sonnet*-v2*", _OLDER),
    ("*anthropic.claude-3-7-*", _OLDER),
    ("*anthropic.claude-3-*", _OLD),
    ("*anthropic.claude-v2*", _OLD),
    ("*anthropic.claude-instant*", _OLD),
    ("*anthropic.claude-*-4-2025*", _OLDER),
    ("*anthropic.claude-*-4-1-*", _OLDER),
    ("*anthropic.claude-*", _CLAUDE),
    ("*amazon.nova-2-*", replace(_NOVA, nova=True)),
    ("*amazon.nova-*", _NOVA),
    ("*openai.gpt-oss-*", Generation(effort="reasoning_effort")),
    ("*qwen.qwen3-32b-*", Generation(effort="reasoning_config")),
    ("*deepseek.r1-*", Generation(replays=True)),
    ("*mistral.*", Generation(json_results=True)),
)


def name_of(target: Target) -> str:
    """The name by which the model is known: the target's, or what the upstream's option `profiles` says it stands for.

    A profile that somebody made has a name that says nothing of the model behind it.
    """
    profiles = target.upstream.options.get("profiles")
    found = profiles.get(target.model) if isinstance(profiles, Mapping) else None
    return found if isinstance(found, str) else target.model


def foundation_of(target: Target) -> str:
    """The model without the place where it is served: `anthropic.claude-...` of `eu.anthropic.claude-...`."""
    name = name_of(target).rpartition("/")[2]
    place, _, rest = name.partition(".")
    return rest if place in PLACES else name


def is_claude(target: Target) -> bool:
    """Whether the model behind a target is Claude."""
    return _is_claude(name_of(target))


def _is_claude(name: str) -> bool:
    return "anthropic.claude-" in name.lower()


def generation_of(target: Target) -> Generation:
    """The rules for a target. The upstream's options `thinking` and `cache` count for more than its row."""
    name, options = name_of(target), target.upstream.options
    found = next((row for pattern, row in _ROWS if fnmatchcase(name.lower(), pattern)), Generation())
    if _is_claude(name):
        found = replace(found, claude=_claude(name, options))
    marked = options.get("cache")
    if isinstance(marked, bool):
        found = replace(found, cache=marked, cache_tools=marked and found.cache_tools)
    return found


def _claude(name: str, options: Mapping[str, Any]) -> ClaudeGeneration:
    """By the model's own name, without the version of its serving: `-v1:0`."""
    own = name.rpartition("anthropic.")[2].partition(":")[0]
    return claude_generation_of(own.replace("claude-v2", "claude-2"), options)
