"""The Gemini API: the dialect `gemini`, and the family `gemini` with every server that speaks it.

Settings of an upstream's `options` table:

* `thinking`: `level`, `budget` or `none`, where the model's name does not tell (see `generation.py`).
* `safety_settings`: the `safetySettings` of requests that bring none of their own.
* `auth`: `bearer` for servers that expect `Authorization: Bearer` in place of `x-goog-api-key`.

A `base_url` that ends in an API version (`/v1`, `/v1beta1`) keeps it; otherwise `/v1beta` is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from relay import Dialect, Family, Host, ModelListing, Target, Upstream, UpstreamRequest, hookimpl
from relay.errors import UpstreamError
from relay.events import StreamDecoder, StreamMeter
from relay.ir import EmbeddingRequest, EmbeddingResponse, Loss, Request, Response, Usage
from relay.kit import upstream_json
from relay_gemini import errors
from relay_gemini.dialect import GenerateContent
from relay_gemini.embedding import embedding_body, embedding_response
from relay_gemini.endpoint import endpoint_of
from relay_gemini.losses import LOSSES
from relay_gemini.models import listing_of
from relay_gemini.request import body_of, count_body
from relay_gemini.response import count_of, response_of
from relay_gemini.skim import ContentMeter
from relay_gemini.stream import DIALECT, GeminiDecoder

__all__ = ["FAMILY", "GenerateContent"]

FAMILY = Family(
    "gemini",
    dialects=frozenset({DIALECT}),
    signs=True,
    hosts=(
        Host(
            "gemini",
            "https://generativelanguage.googleapis.com",
            env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
            base_url_env=("GOOGLE_GEMINI_BASE_URL",),
            models=("gemini-*", "gemma-*"),
        ),
    ),
    capabilities={
        "chat": True,
        "streaming": True,
        "function_calling": True,
        "vision": True,
        "audio": True,
        "structured_output": True,
        "reasoning": True,
    },
    losses=LOSSES,
    options=frozenset({"thinking", "safety_settings", "auth"}),
)


@hookimpl
def relay_families() -> Sequence[Family]:
    """The one family of this plugin."""
    return [FAMILY]


@hookimpl
def relay_dialects() -> Sequence[Dialect]:
    """The dialect `gemini`."""
    return [GenerateContent()]


@hookimpl
def translate_request(request: Request, target: Target, losses: list[Loss]) -> bytes:
    """A `generateContent` body."""
    return body_of(request, target, losses)


@hookimpl
def count_request(request: Request, target: Target) -> bytes:
    """A `countTokens` body."""
    return count_body(request, target)


@hookimpl
def count_response(body: bytes) -> Any:
    """Its `totalTokens`."""
    return upstream_json(body).get("totalTokens")


@hookimpl
def endpoint(target: Target, operation: str, body: bytes, stream: bool) -> UpstreamRequest:
    """`models/NAME:generateContent`, its streaming twin or `:countTokens`, with the relay's key."""
    return endpoint_of(target, operation, body, stream)


@hookimpl
def translate_response(body: bytes) -> Response:
    """A complete answer."""
    return response_of(body)


@hookimpl
def translate_stream() -> StreamDecoder:
    """A decoder for one stream."""
    return GeminiDecoder()


@hookimpl
def meter_response(body: bytes) -> Usage | None:
    """What an answer that passes through used."""
    return count_of(body)


@hookimpl
def meter_stream() -> StreamMeter:
    """A meter for one stream that passes through."""
    return ContentMeter()


@hookimpl
def translate_embedding_request(request: EmbeddingRequest, target: Target, losses: list[Loss]) -> bytes:
    """A `batchEmbedContents` body."""
    return embedding_body(request, target, losses)


@hookimpl
def translate_embedding_response(body: bytes) -> EmbeddingResponse:
    """The vectors of an answer."""
    return embedding_response(body)


@hookimpl
def translate_error(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """The vendor's error, in its own words."""
    return errors.translate_error(target, status, headers, body)


@hookimpl
def list_models(upstream: Upstream) -> ModelListing:
    """`models`, those that generate content or make vectors."""
    return listing_of(upstream)
