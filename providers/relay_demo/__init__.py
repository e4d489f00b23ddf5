"""A family that needs nothing: it answers at once, always the same, inside the relay's own process.

For tests, for documentation, and for a first look where no model is at hand. It is also the smallest complete example
of a family: five hooks, a decoder, and a transport in the place of HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relay import (
    Family,
    Host,
    Model,
    Price,
    Rates,
    Target,
    Upstream,
    UpstreamRequest,
    hookimpl,
)
from relay.errors import UpstreamError
from relay.events import StreamDecoder
from relay.ir import EmbeddingRequest, EmbeddingResponse, Loss, Request, Response
from relay.kit import error_for_status, upstream_json
from relay_demo.transport import DemoTransport
from relay_demo.vectors import VECTOR_LOSSES, embedding_body, embedding_response
from relay_demo.wire import LOSSES, DemoDecoder, request_body, response

MODEL = "demo-echo"
CAN = {"chat": True, "completion": True, "streaming": True, "function_calling": True, "embeddings": True}
PRICE = Price(Rates(input=1_000_000_000, output=2_000_000_000), source="demo")
"""$1 and $2 per million tokens: not money, but something to see in the usage tables."""


@hookimpl
def relay_families() -> Sequence[Family]:
    """The family `demo`, used by itself only if nothing better is found."""
    host = Host(name="demo", base_url="demo:", fallback=2, models=("demo-*",), capabilities=CAN)
    return [
        Family(
            "demo",
            hosts=[host],
            capabilities=CAN,
            losses=(*LOSSES, *VECTOR_LOSSES),
            options=frozenset({"delay_ms"}),
            addressed=False,
            transport=DemoTransport(),
        )
    ]


@hookimpl
def translate_request(request: Request, target: Target, losses: list[Loss]) -> bytes:
    """The conversation as plain text."""
    return request_body(request, target.model, losses)


@hookimpl
def endpoint(target: Target, body: bytes) -> UpstreamRequest:
    """Nowhere: the transport answers by itself."""
    return UpstreamRequest("demo:/answer", {"content-type": "application/json"}, body)


@hookimpl
def translate_response(target: Target, body: bytes) -> Response:
    """A whole answer."""
    return response(target.model, upstream_json(body))


@hookimpl
def translate_stream(target: Target) -> StreamDecoder:
    """One JSON object a line."""
    return DemoDecoder(target.model)


@hookimpl
def translate_embedding_request(request: EmbeddingRequest, losses: list[Loss]) -> bytes:
    """The texts as they are."""
    return embedding_body(request, losses)


@hookimpl
def translate_embedding_response(target: Target, body: bytes) -> EmbeddingResponse:
    """A vector for each text."""
    return embedding_response(target.model, upstream_json(body))


@hookimpl
def translate_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """`{"error": "..."}`."""
    return error_for_status(status, str(upstream_json(body).get("error") or "the demo gave no reason"), headers)


@hookimpl
def list_models(upstream: Upstream) -> Sequence[Model]:
    """The one there is."""
    return [Model(MODEL, owned_by="demo", context_length=8192)]


@hookimpl
def price(target: Target) -> Price | None:
    """A price for the demo's own models."""
    options: Mapping[str, Any] = target.upstream.options
    return PRICE if target.upstream.family == "demo" and not options.get("free") else None
