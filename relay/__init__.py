"""i8Relay: a relay between LLM clients and LLM upstreams.

This module is what a plugin imports, together with `relay.ir`, `relay.events`, `relay.errors` and `relay.kit`.

Each name is imported when it is first asked for: a command line, and a plugin that adds a command to it, must not wait
for what only a serving relay needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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

_PLACES = {
    "dialect": ("Dialect", "EmbeddingDialect", "Forward", "Head", "Route", "StreamFilter"),
    "family": (
        "Answer",
        "CAPABILITIES",
        "Family",
        "Host",
        "Model",
        "ModelListing",
        "Target",
        "TargetOrder",
        "Transport",
        "Upstream",
        "UpstreamRequest",
    ),
    "hookspecs": ("hookimpl", "hookspec"),
    "policy": ("Asking", "CallPolicy", "Given", "Question", "Source"),
    "pricing": ("Price", "Rates", "Tier"),
    "secret": ("Secret",),
    "version": ("__version__",),
}
_PLACE_OF = {name: (module, name) for module, names in _PLACES.items() for name in names}
_PLACE_OF["LimitView"] = ("limits", "View")


def __getattr__(name: str) -> object:
    if name not in _PLACE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _PLACE_OF[name]
    found: object = getattr(import_module(f"relay.{module}"), own)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
