"""Chat Completions, Responses, Embeddings and legacy Completions: the dialects `openai-chat`, `openai-responses`,
`openai-embeddings` and `openai-completions`, and the family `openai`, which is every host that is compatible with the
first; some speak the others too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relay import Dialect, Family, Model, ModelListing, Target, Upstream, UpstreamRequest, hookimpl
from relay.errors import UpstreamError
from relay.events import StreamDecoder, StreamMeter
from relay.ir import EmbeddingRequest, EmbeddingResponse, Loss, Request, Response, Usage
from relay_openai.completions.dialect import OpenAICompletions
from relay_openai.dialect import OpenAIChat
from relay_openai.embeddings.compose import compose_request as compose_embedding
from relay_openai.embeddings.dialect import OpenAIEmbeddings
from relay_openai.family import (
    count_response,
    endpoint_of,
    family,
    models_listing,
    read_error,
    read_response,
    read_vectors,
    stream_decoder,
    stream_meter,
    translated,
)
from relay_openai.responses.dialect import OpenAIResponses

__all__ = ["OpenAIChat", "OpenAICompletions", "OpenAIEmbeddings", "OpenAIResponses"]


@hookimpl
def relay_families() -> Sequence[Family]:
    """The family `openai`."""
    return [family()]


@hookimpl
def relay_dialects() -> Sequence[Dialect]:
    """The dialects `openai-chat`, `openai-responses`, `openai-embeddings` and `openai-completions`."""
    return [OpenAIChat(), OpenAIResponses(), OpenAIEmbeddings(), OpenAICompletions()]


@hookimpl
def translate_request(request: Request, target: Target, losses: list[Loss]) -> bytes:
    """The body of a Chat Completions request; of a Responses request where the host speaks nothing else."""
    return translated(request, target, losses)


@hookimpl
def endpoint(
    target: Target, operation: str, body: bytes, stream: bool, headers: Mapping[str, str], dialect: str
) -> UpstreamRequest | None:
    """The host's address for this operation."""
    return endpoint_of(target, operation, body, stream, headers, dialect)


@hookimpl
def translate_response(target: Target, body: bytes, dialect: str) -> Response:
    """A complete answer as a hub value."""
    return read_response(target, body, dialect)


@hookimpl
def translate_stream(target: Target, headers: Mapping[str, str], dialect: str) -> StreamDecoder:
    """A decoder for one stream."""
    return stream_decoder(target, headers, dialect)


@hookimpl
def translate_embedding_request(request: EmbeddingRequest, target: Target, losses: list[Loss]) -> bytes | None:
    """The body of a request for vectors."""
    return compose_embedding(request, target, losses)


@hookimpl
def translate_embedding_response(target: Target, body: bytes) -> EmbeddingResponse:
    """An answer's vectors."""
    return read_vectors(target, body)


@hookimpl
def meter_response(target: Target, body: bytes, dialect: str) -> Usage | None:
    """What an answer that passes through used."""
    return count_response(target, body, dialect)


@hookimpl
def meter_stream(target: Target, headers: Mapping[str, str], dialect: str) -> StreamMeter | None:
    """A meter for one stream that passes through."""
    return stream_meter(target, headers, dialect)


@hookimpl
def translate_error(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """What the host's error means."""
    return read_error(target, status, headers, body)


@hookimpl
def list_models(upstream: Upstream) -> ModelListing | Sequence[Model]:
    """How to ask the host for its models."""
    return models_listing(upstream)
