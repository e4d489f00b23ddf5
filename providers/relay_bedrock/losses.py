"""What requests lose on their way into this format, each loss declared once."""

from __future__ import annotations

from relay.ir import LossKind
from relay.kit import FOREIGN_LOSSES
from relay_anthropic.losses import OWN_LOSSES

__all__ = [
    "BARE_TOOLS",
    "CACHE",
    "LOSSES",
    "NO_OFF",
    "NO_REPLAY",
    "PARALLEL",
    "RESULT",
    "SYSTEM",
    "TITLE",
    "TOOLS_STAY",
    "TOP_K",
    "USER",
]

# Conversations.
SYSTEM = LossKind(
    "messages.system",
    "{where}.content",
    "a system message holds text only",
    "a system message holds a picture or a block of another kind",
)
NO_REPLAY = LossKind(
    "messages.replay",
    "{where}.reasoning_content",
    "this model is not shown again what it thought",
    "an earlier turn holds reasoning of a model that is served here and does not sign it",
    hint=True,
)
RESULT = LossKind(
    "messages.result",
    "{where}.content",
    "a tool's answer holds text, pictures, documents and video only",
    "a tool's answer holds a block of another kind",
)
TITLE = LossKind(
    "messages.document_name",
    "{where}.content[].file.filename",
    "names of documents hold letters, digits, blanks, hyphens and brackets only: it is written with those",
    "the name of a document has other characters, such as the dot before its ending",
    hint=True,
)
CACHE = LossKind(
    "cache",
    "cache_control",
    "this model takes no such marker",
    "a part or a tool is marked for the cache, for a model that takes no markers there, or none for an hour",
    hint=True,
)

# Tools.
PARALLEL = LossKind(
    "tools.parallel",
    "parallel_tool_calls",
    "calls side by side cannot be switched off for this model, or not while a call is forced",
    "the model is to make one call at a time",
)
TOOLS_STAY = LossKind(
    "tools.none",
    "tool_choice",
    "tools that earlier turns used cannot be taken away",
    "no tool is to be called, in a conversation in which some were",
)
BARE_TOOLS = LossKind(
    "tools.bare",
    "tools",
    "tools that earlier turns used have to be named: by their names alone",
    "earlier turns used tools, and the request has none",
    hint=True,
)

# Sampling, and the rest.
TOP_K = LossKind(
    "sampling.unknown_top_k",
    "top_k",
    "it is not known how this model takes it",
    "`top_k` for a model that is neither Claude nor Nova; it trims only what is unlikely anyway",
    hint=True,
)
NO_OFF = LossKind(
    "reasoning.off",
    "reasoning_effort",
    "it is not known how this model is kept from thinking",
    "reasoning is switched off for a model that is neither Claude nor Nova",
    hint=True,
)
USER = LossKind(
    "user",
    "user",
    "labels of requests are short, and of letters, digits and a few signs only",
    "the end user's name is longer than 256 characters, or has others",
    hint=True,
)

LOSSES: tuple[LossKind, ...] = (
    *OWN_LOSSES,
    SYSTEM,
    NO_REPLAY,
    RESULT,
    TITLE,
    CACHE,
    PARALLEL,
    TOOLS_STAY,
    BARE_TOOLS,
    TOP_K,
    NO_OFF,
    USER,
    *FOREIGN_LOSSES,
)
"""Of requests that are translated."""
