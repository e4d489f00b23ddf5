"""`GET /v1/models` and `GET /v1/models/{id}`: what can be asked for, what it can do, what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from relay.dialect import Dialect
from relay.errors import NoSuchModel, RelayError
from relay.family import CAPABILITIES, Model
from relay.middleware import DIALECT
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
    """Authenticates, answers JSON, leaves its usage row.

    On a path of one dialect that dialect writes the answer. The others share a path: the first that claims the request
    writes it. If none does, it is in the i8Relay API's own form.
    """

    def __init__(self, relay: Relay, dialect: Dialect | None = None) -> None:
        self.relay = relay
        self.dialect = dialect

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        dialect = self.dialect or self._claimant(request)
        if dialect is not None:
            request[DIALECT] = dialect
        call = await authenticate(self.relay, request, "models", dialect)
        call.dialect = dialect
        try:
            body = self.answer(request, dialect, call.key.allows)
            return web.Response(body=body, content_type="application/json")
        except RelayError as error:
            call.failed(error)
            raise
        finally:
            self.relay.finish(call)

    def _claimant(self, request: web.Request) -> Dialect | None:
        dialects = self.relay.plugins.dialects.values()
        return next((dialect for dialect in dialects if dialect.claims_models(request.headers, request.query)), None)

    def answer(self, request: web.Request, dialect: Dialect | None, allows: Callable[[str], bool]) -> bytes:
        """The JSON of this view."""
        raise AssertionError("each view has its own")

    def model(self, model: PublicModel) -> Model:
        """A public model as dialects are told of it."""
        target = model.targets[0]
        return Model(
            id=model.id,
            created=model.created,
            owned_by=model.owned_by or target.upstream.name,
            context_length=model.context_length or self.relay.context_length(target),
            capabilities=model.capabilities,
        )


class ModelList(ModelView):
    """All models that the caller's key may use."""

    def answer(self, request: web.Request, dialect: Dialect | None, allows: Callable[[str], bool]) -> bytes:
        """The list object that clients expect."""
        models = [model for model in self.relay.router.models() if allows(model.id)]
        if dialect is not None:
            return dialect.encode_models([self.model(model) for model in models], request.query)
        return orjson.dumps({"object": "list", "data": [describe(self.relay, model) for model in models]})


class OneModel(ModelView):
    """One model by its name, which may hold slashes."""

    def answer(self, request: web.Request, dialect: Dialect | None, allows: Callable[[str], bool]) -> bytes:
        """The model. Raises NoSuchModel, also for one that the key may not use: its existence is not told."""
        name = request.match_info["id"]
        model = self.relay.router.resolve(name)
        if not allows(model.id):
            raise NoSuchModel(f"there is no model {name[:100]!r} here", param="model")
        if dialect is not None:
            return dialect.encode_model(self.model(model))
        return orjson.dumps(describe(self.relay, model))
