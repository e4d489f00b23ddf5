"""`GET /v1/models` and `GET /v1/models/{id}`: what can be asked for, what it can do, what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from relay.errors import NoSuchModel, RelayError
from relay.family import CAPABILITIES
from relay.pricing import MILLION, NANO, Price
from relay.routing import PublicModel
from relay.views.auth import authenticate

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["ModelList", "OneModel", "describe"]


def describe(relay: Relay, model: PublicModel) -> dict[str, Any]:
    """A model in the i8Relay API's form. Prices are USD per 1,000 tokens; None is "not known"."""
    target = model.targets[0]
    price = model.price or relay.target_price(target)
    return {
        "id": model.id,
        "object": "model",
        "created": model.created or 0,
        "owned_by": model.owned_by or target.upstream.name,
        "capabilities": {name: bool(model.capabilities.get(name, False)) for name in CAPABILITIES},
        "context_length": model.context_length or relay.context_length(target),
        "pricing": None if price is None else pricing(price),
    }


def pricing(price: Price) -> dict[str, float | None]:
    """Rates in USD per 1,000 tokens."""

    def per_thousand(rate: int | None) -> float | None:
        return None if rate is None else rate * 1000 / MILLION / NANO

    rates = price.rates
    return {
        "input": per_thousand(rates.input),
        "output": per_thousand(rates.output),
        "cache_read": per_thousand(rates.cache_read),
        "cache_write": per_thousand(rates.cache_write_5m),
    }


class ModelView:
    """Authenticates, answers JSON, leaves its usage row."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        call = await authenticate(self.relay, request, "models")
        try:
            body = self.answer(request, call.key.allows)
            return web.Response(body=orjson.dumps(body), content_type="application/json")
        except RelayError as error:
            call.failed(error)
            raise
        finally:
            self.relay.finish(call)

    def answer(self, request: web.Request, allows: Any) -> dict[str, Any]:
        """The JSON of this view."""
        raise AssertionError("each view has its own")


class ModelList(ModelView):
    """All models that the caller's key may use."""

    def answer(self, request: web.Request, allows: Any) -> dict[str, Any]:
        """The list object that clients expect, with i8Relay models in it."""
        models = [describe(self.relay, model) for model in self.relay.router.models() if allows(model.id)]
        return {"object": "list", "data": models}


class OneModel(ModelView):
    """One model by its name, which may hold slashes."""

    def answer(self, request: web.Request, allows: Any) -> dict[str, Any]:
        """The model. Raises NoSuchModel, also for one that the key may not use: its existence is not told."""
        name = request.match_info["id"]
        model = self.relay.router.resolve(name)
        if not allows(model.id):
            raise NoSuchModel(f"there is no model {name[:100]!r} here", param="model")
        return describe(self.relay, model)
