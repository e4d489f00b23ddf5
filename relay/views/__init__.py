"""The HTTP side: one thin handler per kind of request. What a request means is decided in `relay.pipeline`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from aiohttp import web

from relay.dialect import Dialect, Route
from relay.views.calls import CallView
from relay.views.health import Health, Ready
from relay.views.kept import KEPT, KeptView
from relay.views.models import ModelList, ModelView, OneModel

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["add_routes"]

MODEL_VIEWS: Mapping[str, type[ModelView]] = {"models": ModelList, "model": OneModel}


def _view(relay: Relay, dialect: Dialect, route: Route) -> CallView | KeptView | ModelView:
    if route.operation in KEPT:
        return KeptView(relay, dialect, route.operation)
    kind = MODEL_VIEWS.get(route.operation)
    return CallView(relay, dialect, route) if kind is None else kind(relay, dialect)


def add_routes(app: web.Application, relay: Relay) -> None:
    """All routes: those of the dialects' plugins, and the i8Relay API's own."""
    for dialect in relay.plugins.dialects.values():
        for route in dialect.routes:
            app.router.add_route(route.method, route.path, _view(relay, dialect, route).handle)
    for prefix in ("/v1", ""):
        app.router.add_get(f"{prefix}/models", ModelList(relay).handle)
        app.router.add_get(f"{prefix}/models/{{id:.+}}", OneModel(relay).handle)
    app.router.add_get("/healthz", Health(relay).handle)
    app.router.add_get("/readyz", Ready(relay).handle)
