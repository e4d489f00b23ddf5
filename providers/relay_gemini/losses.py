"""What requests lose on their way into this format, each loss declared once."""

from __future__ import annotations

from relay.ir import LossKind
from relay.kit import FOREIGN_LOSSES

__all__ = [
    "BLOCK",
    "BUDGET",
    "DETAIL",
    "FOREIGN",
    "LATE_SYSTEM",
    "LEVEL",
    "LONE_SYSTEM",
    "LOSSES",
    "NAMES",
    "NO_THINKING",
    "PARALLEL",
    "RAW_ARGUMENTS",
    "RESULT",
    "SERVER_CALL",
    "STOPS",
    "SYSTEM",
    "THINKING",
    "THINKS",
    "TOOL",
]

REASONING = "reasoning_effort"

FOREIGN = LossKind(
    "native.thought",
    "thought",
    "reasoning of another vendor's model is not shown to this one",
    "a conversation that another vendor's model took part in comes to this vendor's",
)

# Conversations.
LONE_SYSTEM = LossKind(
    "messages.lone_system",
    "{where}.role",
    "a prompt needs a user message: the system message is sent as one",
    "there are system messages only",
    hint=True,
)
LATE_SYSTEM = LossKind(
    "messages.late_system",
    "{where}.role",
    "a system message after the first turn is sent as user text in its place",
    "a system message stands between turns",
    hint=True,
)
NAMES = LossKind("messages.name", "messages[].name", "messages have no names here", "a message has a name")
SYSTEM = LossKind(
    "messages.system",
    "{where}.content",
    "a system message holds text only",
    "a system message holds a picture or a block of another kind",
)
THINKING = LossKind(
    "messages.thinking",
    "{where}.reasoning_content",
    "thinking can only go back to the vendor that produced it",
    "an earlier turn holds reasoning of another vendor's model",
)
SERVER_CALL = LossKind(
    "messages.server_call",
    "{where}.tool_calls",
    "a tool that another vendor ran by itself is unknown here",
    "an earlier turn holds a call that another vendor's own tools answered",
)
RAW_ARGUMENTS = LossKind(
    "messages.arguments",
    "{where}.tool_calls[].function.arguments",
    "not a JSON object: sent as text in one",
    "an earlier call has arguments that are no JSON object",
    hint=True,
)
RESULT = LossKind(
    "messages.result",
    "{where}.content",
    "a tool result holds text and media only",
    "a tool's answer holds a block of another kind",
)
BLOCK = LossKind(
    "messages.block",
    "{where}.content",
    "a block that only {dialect} knows",
    "a turn holds a block of another vendor's",
)
DETAIL = LossKind(
    "messages.detail",
    "messages[].content[].image_url.detail",
    "one detail, low or high, holds for all images of a request",
    "images are to be read in different detail, or in a word that is neither",
    hint=True,
)

# Tools and sampling.
TOOL = LossKind(
    "tools.type", "{where}", "a tool of type {type!r} exists only in {dialect}", "a tool is another vendor's own"
)
PARALLEL = LossKind(
    "tools.parallel",
    "parallel_tool_calls",
    "calls side by side cannot be switched off here",
    "the model is to make one call at a time",
)
STOPS = LossKind("sampling.stop", "stop", "only the first {most} stop sequences can be sent", "there are more of them")

# Reasoning: how much of it there is, is a wish.
NO_THINKING = LossKind(
    "reasoning.none", REASONING, "this model does not think", "reasoning is asked of a model without it", hint=True
)
THINKS = LossKind(
    "reasoning.off",
    REASONING,
    "this model cannot stop thinking: it is told to think as little as it can",
    "reasoning is switched off for a model that always thinks",
    hint=True,
)
LEVEL = LossKind(
    "reasoning.effort",
    REASONING,
    "this model has no effort {asked!r}: {given!r} stands for it",
    "a word is given that the model does not take",
    hint=True,
)
BUDGET = LossKind(
    "reasoning.budget",
    "reasoning.max_tokens",
    "this model thinks between {least} and {most} tokens",
    "a number of tokens is given that is out of the model's range",
    hint=True,
)

LOSSES: tuple[LossKind, ...] = (
    LONE_SYSTEM,
    LATE_SYSTEM,
    NAMES,
    SYSTEM,
    THINKING,
    SERVER_CALL,
    RAW_ARGUMENTS,
    RESULT,
    BLOCK,
    DETAIL,
    TOOL,
    PARALLEL,
    STOPS,
    NO_THINKING,
    THINKS,
    LEVEL,
    BUDGET,
    *FOREIGN_LOSSES,
)
"""Of requests that are translated."""
