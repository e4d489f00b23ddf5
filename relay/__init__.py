"""i8Relay: a relay between LLM clients and LLM upstreams.

This module is what a plugin imports, together with `relay.ir`, `relay.events`, `relay.errors` and `relay.kit`.
"""

from relay.dialect import Dialect, EmbeddingDialect, Forward, Head, Route, StreamFilter
from relay.family import (
    CAPABILITIES,
    Answer,
    Family,
    Host,
    Model,
    ModelListing,
    Target,
    TargetOrder,
    Transport,
    Upstream,
    UpstreamRequest,
)
from relay.hookspecs import hookimpl, hookspec
from relay.limits import View as LimitView
from relay.policy import Asking, CallPolicy, Given, Question, Source
from relay.pricing import Price, Rates, Tier
from relay.secret import Secret
from relay.version import __version__

__all__ = [
    "Answer",
    "Asking",
    "CAPABILITIES",
    "CallPolicy",
    "Dialect",
    "EmbeddingDialect",
    "Family",
    "Forward",
    "Given",
    "Head",
    "Host",
    "LimitView",
    "Model",
    "ModelListing",
    "Price",
    "Question",
    "Rates",
    "Route",
    "Secret",
    "Source",
    "StreamFilter",
    "Target",
    "TargetOrder",
    "Tier",
    "Transport",
    "Upstream",
    "UpstreamRequest",
    "__version__",
    "hookimpl",
    "hookspec",
]
