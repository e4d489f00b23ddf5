"""What requests lose on their way into this vendor's formats, each loss declared once."""

from __future__ import annotations

from collections.abc import Mapping

from relay.ir import LossKind
from relay.kit import FOREIGN_LOSSES

__all__ = [
    "BLOCK",
    "CACHE",
    "CHAT_LOSSES",
    "EFFORT",
    "EMBEDDING_LOSSES",
    "FIXED",
    "IS_ERROR",
    "LOSSES",
    "MEDIA",
    "NAMES",
    "NO_BUDGET",
    "NO_OFF",
    "NO_REASONING",
    "PURPOSE",
    "REFUSED",
    "RESPONSES_LOSSES",
    "RESULT_MEDIA",
    "SCHEMA",
    "SERVER_CALL",
    "SERVER_RESULT",
    "SWITCH",
    "THINKING",
    "TITLE",
    "TOOL",
    "TOP_K",
    "UNKNOWN",
]

# Conversations.
CACHE = LossKind(
    "cache",
    "cache_control",
    "the host caches by itself and takes no markers",
    "a part, a tool or a message is marked for the cache, unless the upstream has `cache_control = true`",
    hint=True,
)
NAMES = LossKind("messages.name", "messages[].name", "messages have no names in this format", "a message has a name")
THINKING = LossKind(
    "messages.thinking",
    "thinking",
    "reasoning of another vendor's model is not shown to the target",
    "an earlier turn holds reasoning of another vendor's model",
)
SERVER_CALL = LossKind(
    "messages.server_call",
    "server tool calls",
    "the target did not run them and cannot know them",
    "an earlier turn holds a call that another vendor's own tools answered",
)
SERVER_RESULT = LossKind(
    "messages.server_result",
    "server tool results",
    "the target did not run these tools and cannot know them",
    "an earlier turn of the model's holds what another vendor's own tools answered",
)
BLOCK = LossKind(
    "messages.block",
    "content",
    "the target has no block of the kind {kind}",
    "a turn holds a block of another vendor's",
)
MEDIA = LossKind(
    "messages.media",
    "assistant media",
    "the target takes no media in the model's own turns",
    "an earlier answer holds a picture or sound",
)
RESULT_MEDIA = LossKind(
    "messages.result_media",
    "tool result media",
    "moved to a user message: a tool's answer is only text",
    "a tool's answer holds a picture or a file",
    hint=True,
)
IS_ERROR = LossKind(
    "messages.is_error",
    "tool result is_error",
    "the target has no such mark",
    "a tool's answer is marked as an error; its words stay",
    hint=True,
)

# Tools and the form of the answer.
TOOL = LossKind(
    "tools.type", "tools", "the target has no built-in tool of the kind {kind}", "a tool is another vendor's own"
)
SCHEMA = LossKind(
    "output.schema",
    "output schema",
    "the host only knows JSON without a schema",
    "an answer by a schema, at an upstream with `json_schema = false`",
)

# Sampling.
FIXED = LossKind(
    "sampling.fixed",
    "{name}",
    "{model} does not let it be changed",
    "`temperature`, `top_p`, a penalty or token probabilities for a reasoning model that insists on its own",
)
TOP_K = LossKind(
    "sampling.top_k",
    "top_k",
    "the host has no such parameter",
    "it is set, unless the upstream has `top_k = true`; it trims only what is unlikely anyway",
    hint=True,
)
UNKNOWN: Mapping[str, LossKind] = {
    name: LossKind(f"sampling.{name}", name, reason, "it is set to anything but nothing")
    for name, reason in (
        ("stop", "the host takes no stop sequences in this format"),
        ("seed", "answers cannot be made repeatable in this format"),
        ("frequency_penalty", "there is no such penalty in this format"),
        ("presence_penalty", "there is no such penalty in this format"),
    )
}
"""What Responses has no place for."""

# Reasoning: how much of it there is, is a wish.
NO_REASONING = LossKind(
    "reasoning.none",
    "reasoning",
    "{model} takes no instructions about reasoning",
    "reasoning is asked of a model without it",
    hint=True,
)
NO_OFF = LossKind(
    "reasoning.off", "reasoning", "the host has no switch for reasoning", "reasoning is switched off", hint=True
)
NO_BUDGET = LossKind(
    "reasoning.budget",
    "reasoning budget",
    "the host takes a word for it; sent as {word}",
    "reasoning is limited by a number of tokens",
    hint=True,
)
EFFORT = LossKind(
    "reasoning.effort",
    "reasoning effort",
    "the host has no effort max; sent as high",
    "the effort `max`",
    hint=True,
)
SWITCH = LossKind(
    "reasoning.switch",
    "reasoning budget",
    "the host only knows reasoning on and off",
    'a number of tokens, at an upstream with `reasoning = "thinking"`',
    hint=True,
)

REFUSED = LossKind(
    "refused", "{name}", "the host refuses this field", "a field that the upstream's option `drop` names is set"
)

# Vectors.
PURPOSE = LossKind("purpose", "purpose", "the host is not told what vectors are for", "what vectors are for is said")
TITLE = LossKind("title", "title", "the host takes no title beside a text", "a text has a title")

_BOTH = (CACHE, THINKING, SERVER_CALL, SERVER_RESULT, MEDIA, IS_ERROR, FIXED, TOP_K, NO_REASONING, NO_BUDGET, REFUSED)
CHAT_LOSSES: tuple[LossKind, ...] = (
    *(_BOTH),
    BLOCK,
    RESULT_MEDIA,
    TOOL,
    SCHEMA,
    NO_OFF,
    EFFORT,
    SWITCH,
    *FOREIGN_LOSSES,
)
"""Of requests that become Chat Completions."""
RESPONSES_LOSSES: tuple[LossKind, ...] = (*_BOTH, BLOCK, NAMES, TOOL, *UNKNOWN.values(), *FOREIGN_LOSSES)
"""Of requests that become Responses, at hosts that speak nothing else."""
EMBEDDING_LOSSES: tuple[LossKind, ...] = (PURPOSE, TITLE, REFUSED, *FOREIGN_LOSSES)
"""Of requests for vectors."""
LOSSES: tuple[LossKind, ...] = tuple(dict.fromkeys((*CHAT_LOSSES, *RESPONSES_LOSSES, *EMBEDDING_LOSSES)))
