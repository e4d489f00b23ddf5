"""How much a model may think, in the words of its own vendor, which this format passes on unread."""

from __future__ import annotations

from typing import Any

from relay import kit
from relay.ir import Reasoning, Request
from relay_anthropic.losses import EFFORT, NO_BUDGET, NO_THINKING
from relay_anthropic.reasoning import apply_reasoning
from relay_bedrock.generation import EFFORTS, Generation
from relay_bedrock.losses import NO_OFF
from relay_bedrock.wire import Block

__all__ = ["reasoning_fields"]

OFF = frozenset({"none", "off", "disabled"})
BUDGETS = ((2048, "low"), (8192, "medium"))
"""A number of tokens as a word, for models that take none: up to so many tokens; anything above is `high`."""
CLAUDE_FIELDS = ("thinking", "output_config")


def reasoning_fields(request: Request, generation: Generation, choice: Block | None, losses: kit.Losses) -> Block:
    """The model's own fields for what the caller asks. `choice` is the request's choice of tools."""
    if generation.claude is not None:
        limit = request.sampling.max_tokens or generation.claude.max_tokens
        forced = "any" if choice is not None and "auto" not in choice else "auto"
        body: dict[str, Any] = {"max_tokens": limit, "tool_choice": {"type": forced}}
        apply_reasoning(body, request, generation.claude, losses)
        return {name: body[name] for name in CLAUDE_FIELDS if name in body}
    reasoning = request.reasoning
    if reasoning is None:
        return {}
    if reasoning.enabled is False or reasoning.effort in OFF or reasoning.budget == 0:
        if not generation.nova:
            losses.add(NO_OFF)
            return {}
        return {"reasoningConfig": {"type": "disabled"}}
    asked = reasoning.effort is not None or reasoning.budget is not None
    if not asked and not reasoning.enabled:
        return {}
    return _worded(reasoning, generation, losses)


def _worded(reasoning: Reasoning, generation: Generation, losses: kit.Losses) -> Block:
    if not generation.nova and not generation.effort:
        losses.add(NO_THINKING)
        return {}
    effort = reasoning.effort
    if effort is None:
        effort = "medium"
        if reasoning.budget is not None:
            budget = reasoning.budget
            effort = next((word for limit, word in BUDGETS if budget <= limit), "high")
            losses.add(NO_BUDGET, effort=effort)
    word = EFFORTS.get(effort, effort)
    if word != effort:
        losses.add(EFFORT, asked=effort, given=word)
    if generation.nova:
        return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": word}}
    return {generation.effort: word}
