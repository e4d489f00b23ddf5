"""How much a model may think, in the vendor's words."""

from __future__ import annotations

from typing import Any

from relay import kit
from relay.ir import Reasoning, Request, Thinking, ToolCall, ToolResult
from relay_anthropic.block import DIALECT
from relay_anthropic.generation import BUDGETS, EFFORTS, LEAST_BUDGET, Generation
from relay_anthropic.losses import EFFORT, LOWERED, NO_BUDGET, NO_ROOM, NO_THINKING, NO_THOUGHT, NOT_FORCED

__all__ = ["apply_reasoning"]

OFF = frozenset({"none", "off", "disabled"})
ROOM = 4000
"""Tokens left for the answer where the caller asked for a budget and set no `max_tokens`."""
BUDGET_EFFORTS = ((2048, "low"), (8192, "medium"), (24_576, "high"))
"""For models that take no number: up to so many tokens are that effort, anything above is `max`."""


def apply_reasoning(body: dict[str, Any], request: Request, generation: Generation, losses: kit.Losses) -> None:
    """Write `thinking` and `output_config.effort` for what the caller asks, and what follows from them.

    Effort words map to the vendor's own where the model takes a word (`minimal` to `low`, the others as they are) and
    to a number of tokens by the table `BUDGETS` where it takes a number.
    """
    reasoning = request.reasoning
    if reasoning is None:
        return
    if reasoning.enabled is False or (reasoning.effort in OFF) or reasoning.budget == 0:
        if generation.thinking != "none":
            body["thinking"] = {"type": "disabled"}
        return
    if reasoning.effort is None and reasoning.budget is None and not reasoning.enabled:
        return
    if generation.thinking == "none":
        losses.add(NO_THINKING)
    elif generation.thinking == "budget" or (reasoning.budget is not None and generation.budgets):
        _budget(body, request, reasoning, generation, losses)
    else:
        _adaptive(body, reasoning, generation, losses)


def _adaptive(body: dict[str, Any], reasoning: Reasoning, generation: Generation, losses: kit.Losses) -> None:
    # Without `display` these models think in silence, and the caller asked for thinking.
    shown = "omitted" if reasoning.summary == "none" else "summarized"
    body["thinking"] = {"type": "adaptive", "display": shown}
    effort = reasoning.effort
    if effort is None and reasoning.budget is not None:
        budget = reasoning.budget
        effort = next((word for limit, word in BUDGET_EFFORTS if budget <= limit), "max")
        losses.add(NO_BUDGET, effort=effort)
    if effort is None:
        return
    word = EFFORTS.get(effort, effort)
    if generation.efforts is not None and word in generation.efforts:
        losses.add(EFFORT, asked=word, given=generation.efforts[word])
        word = generation.efforts[word]
    body.setdefault("output_config", {})["effort"] = word


def _budget(
    body: dict[str, Any], request: Request, reasoning: Reasoning, generation: Generation, losses: kit.Losses
) -> None:
    if body.get("tool_choice", {}).get("type") in ("any", "tool"):
        losses.add(NOT_FORCED)
        return
    if _unthought_call(request):
        losses.add(NO_THOUGHT)
        return
    budget = reasoning.budget
    if budget is None:
        budget = BUDGETS.get(reasoning.effort or "medium", BUDGETS["medium"])
    if budget < LEAST_BUDGET:
        budget = LEAST_BUDGET
    limit = body["max_tokens"]
    if request.sampling.max_tokens is None and limit < budget + ROOM:
        limit = body["max_tokens"] = budget + ROOM
    if budget >= limit:
        # Thinking counts against max_tokens and must leave room for an answer.
        budget = max(LEAST_BUDGET, limit // 2)
        if budget >= limit:
            losses.add(NO_ROOM, least=LEAST_BUDGET)
            return
        losses.add(LOWERED, budget=budget)
    body["thinking"] = {"type": "enabled", "budget_tokens": budget}


def _unthought_call(request: Request) -> bool:
    """Whether the conversation goes on from a tool call of a turn whose thinking is not there."""
    result = False
    for message in reversed(request.messages):
        if message.role == "user" and any(isinstance(part, ToolResult) for part in message.parts):
            result = True
        elif message.role == "assistant":
            called = any(isinstance(part, ToolCall) and not part.server for part in message.parts)
            thought = any(isinstance(part, Thinking) and part.dialect == DIALECT for part in message.parts)
            return result and called and not thought
    return False
