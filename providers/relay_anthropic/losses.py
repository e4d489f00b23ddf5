"""What requests lose on their way into this format, each loss declared once."""

from __future__ import annotations

from collections.abc import Mapping

from relay.ir import LossKind
from relay.kit import FOREIGN_LOSSES

__all__ = [
    "OWN_LOSSES",
    "BLANK_STOP",
    "BLOCK",
    "CITATIONS",
    "DETAIL",
    "EFFORT",
    "FOREIGN",
    "FOREIGN_CITATIONS",
    "HOT",
    "JSON_MODE",
    "LATE_SYSTEM",
    "LONE_SYSTEM",
    "LOSSES",
    "LOWERED",
    "NAMES",
    "NO_BUDGET",
    "NO_ROOM",
    "NO_SAMPLING",
    "NO_THINKING",
    "NO_THOUGHT",
    "NO_TOP_K",
    "NOT_FORCED",
    "RAW_ARGUMENTS",
    "SERVER_CALL",
    "TEMPERATURE_FIRST",
    "THINKING",
    "THINKS",
    "TOOL",
    "TOP_K_THINKS",
    "UNKNOWN",
    "UNSIGNED",
]

REASONING = "reasoning_effort"

FOREIGN = LossKind(
    "native.thinking",
    "thinking",
    "reasoning of another vendor's model is not shown to this one",
    "a conversation that another vendor's model took part in comes to this vendor's",
)

FOREIGN_CITATIONS = LossKind(
    "native.citations",
    "citations",
    "citations of another vendor's model, which this one would look for",
    "the same, where that model cited something; its text stays",
    hint=True,
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
    'a system message stands between turns, unless the upstream has `system_messages = "native"`',
    hint=True,
)
NAMES = LossKind("messages.name", "messages[].name", "messages have no names here", "a message has a name")
CITATIONS = LossKind(
    "messages.citations",
    "{where}.annotations",
    "citations of another vendor",
    "an earlier answer cites; its text stays",
    hint=True,
)
THINKING = LossKind(
    "messages.thinking",
    "{where}.reasoning_content",
    "thinking can only go back to the vendor that produced it",
    "an earlier turn holds reasoning of another vendor's model",
)
UNSIGNED = LossKind(
    "messages.unsigned",
    "{where}.reasoning_content",
    "thinking without its signature is refused",
    "a client gave this vendor's reasoning back without its signature",
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
BLOCK = LossKind(
    "messages.block",
    "{where}.content",
    "a block that only {dialect} knows",
    "a turn holds a block of another vendor's",
)
DETAIL = LossKind(
    "messages.detail",
    "{where}.content[].image_url.detail",
    "images are always read in full detail",
    "an image is to be read in a certain detail",
    hint=True,
)

# Tools and the form of the answer.
TOOL = LossKind(
    "tools.type", "{where}", "a tool of type {type!r} exists only in {dialect}", "a tool is another vendor's own"
)
JSON_MODE = LossKind(
    "output.json",
    "response_format",
    "there is no JSON mode without a schema: only the prompt asks for JSON",
    "JSON is asked for without a schema",
)

# Sampling.
UNKNOWN: Mapping[str, LossKind] = {
    name: LossKind(f"sampling.{name}", name, reason, "it is set to anything but nothing")
    for name, reason in (
        ("seed", "answers cannot be made repeatable here"),
        ("logprobs", "token probabilities are not reported here"),
        ("top_logprobs", "token probabilities are not reported here"),
        ("frequency_penalty", "there is no such penalty here"),
        ("presence_penalty", "there is no such penalty here"),
    )
}
"""Sampling fields without an equivalent. Zero and false ask for nothing and are no loss."""
BLANK_STOP = LossKind(
    "sampling.stop",
    "stop",
    "a stop sequence of white space alone is not accepted",
    "a stop sequence is white space",
)
NO_SAMPLING = LossKind(
    "sampling.none",
    "{name}",
    "this model takes no sampling parameters",
    "`temperature` or `top_p` for a model of a generation that takes none",
)
NO_TOP_K = LossKind(
    "sampling.no_top_k",
    "top_k",
    "this model takes no sampling parameters",
    "the same for `top_k`, which trims only what is unlikely anyway",
    hint=True,
)
THINKS = LossKind(
    "sampling.thinking",
    "{name}",
    "it cannot be set while the model thinks",
    "`temperature` or a low `top_p` together with reasoning",
)
TOP_K_THINKS = LossKind(
    "sampling.top_k",
    "top_k",
    "it cannot be set while the model thinks",
    "`top_k` together with reasoning",
    hint=True,
)
HOT = LossKind(
    "sampling.temperature",
    "temperature",
    "{temperature:g} is above this vendor's highest, 1",
    "`temperature` is above 1; it is sent as 1",
)
TEMPERATURE_FIRST = LossKind(
    "sampling.top_p",
    "top_p",
    "temperature and top_p cannot both be set: temperature is kept",
    "both are set",
)

# Reasoning: how much of it there is, is a wish.
NO_THINKING = LossKind(
    "reasoning.none", REASONING, "this model does not think", "reasoning is asked of a model without it", hint=True
)
NO_BUDGET = LossKind(
    "reasoning.budget",
    "reasoning.max_tokens",
    "this model takes no thinking budget: effort {effort!r} stands for it",
    "a number of tokens is given to a model that takes a word",
    hint=True,
)
EFFORT = LossKind(
    "reasoning.effort",
    REASONING,
    "this model has no effort {asked!r}: {given!r} stands for it",
    "a word is given that the model does not take",
    hint=True,
)
NOT_FORCED = LossKind(
    "reasoning.forced",
    REASONING,
    "this model cannot think when it is forced to call a tool",
    "an older model is to think and to call a tool",
    hint=True,
)
NO_THOUGHT = LossKind(
    "reasoning.unthought",
    REASONING,
    "the tool call to be continued came without its signed thinking, which this model insists on",
    "an older model goes on from a tool call that another model made, or that a client gave back without its reasoning",
    hint=True,
)
NO_ROOM = LossKind(
    "reasoning.room",
    REASONING,
    "max_tokens leaves no room for thinking, which takes at least {least} tokens",
    "the limit of output is too small for an older model to think",
    hint=True,
)
LOWERED = LossKind(
    "reasoning.lowered",
    REASONING,
    "the thinking budget is lowered to {budget} tokens to fit into max_tokens",
    "the limit of output is smaller than the reasoning that is asked for",
    hint=True,
)

OWN_LOSSES: tuple[LossKind, ...] = (
    LONE_SYSTEM,
    LATE_SYSTEM,
    NAMES,
    CITATIONS,
    THINKING,
    UNSIGNED,
    SERVER_CALL,
    RAW_ARGUMENTS,
    BLOCK,
    DETAIL,
    TOOL,
    JSON_MODE,
    *UNKNOWN.values(),
    BLANK_STOP,
    NO_SAMPLING,
    NO_TOP_K,
    THINKS,
    TOP_K_THINKS,
    HOT,
    TEMPERATURE_FIRST,
    NO_THINKING,
    NO_BUDGET,
    EFFORT,
    NOT_FORCED,
    NO_THOUGHT,
    NO_ROOM,
    LOWERED,
)
"""Those that Claude has, or its format, wherever it is served."""

LOSSES: tuple[LossKind, ...] = (*OWN_LOSSES, *FOREIGN_LOSSES)
"""Of requests that are translated."""
