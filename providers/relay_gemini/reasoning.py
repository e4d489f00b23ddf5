"""How much a model may think, in the vendor's words."""

from __future__ import annotations

from typing import Any

from relay import kit
from relay.ir import Reasoning
from relay_gemini.generation import BUDGETS, LEVELS, Generation
from relay_gemini.losses import BUDGET, LEVEL, NO_THINKING, THINKS

__all__ = ["thinking_config"]


def thinking_config(reasoning: Reasoning | None, generation: Generation, losses: kit.Losses) -> dict[str, Any] | None:
    """`thinkingConfig` for what the caller asks: level or budget by `LEVELS` or `BUDGETS`, and visible thoughts."""
    if reasoning is None:
        return None
    effort, budget = reasoning.effort, reasoning.budget
    if reasoning.enabled is False or effort in ("off", "disabled"):
        effort, budget = "none", None
    if effort is None and budget is None and not reasoning.enabled:
        return None
    off = effort == "none" or budget == 0
    if generation.thinking == "none":
        if not off:
            losses.add(NO_THINKING)
        return None
    if off and not generation.off:
        losses.add(THINKS)
    config: dict[str, Any] = {} if off else {"includeThoughts": reasoning.summary != "none"}
    if budget is None and effort is not None and generation.thinking == "level":
        config["thinkingLevel"] = _level(effort, generation, losses)
    else:
        config.update(_budget(effort, budget, generation, losses))
    return config


def _level(effort: str, generation: Generation, losses: kit.Losses) -> str:
    level = LEVELS.get(effort, effort)
    level = generation.levels.get(level, level)
    if level != effort and effort not in ("none",):
        losses.add(LEVEL, asked=effort, given=level)
    return level


def _budget(effort: str | None, budget: int | None, generation: Generation, losses: kit.Losses) -> dict[str, Any]:
    if budget is None:
        if effort is None:
            # Only "think": the models that do not by themselves need to be told that they may.
            return {"thinkingBudget": -1} if generation.thinking == "budget" else {}
        asked = BUDGETS.get(effort, BUDGETS["medium"])
        return {"thinkingBudget": _within(asked, generation)}
    fits = _within(budget, generation)
    if fits != budget and budget > 0:
        losses.add(BUDGET, least=generation.least, most=generation.most)
    return {"thinkingBudget": fits}


def _within(budget: int, generation: Generation) -> int:
    if budget < 0 or (budget == 0 and generation.off):
        return budget
    return min(max(budget, generation.least), generation.most)
