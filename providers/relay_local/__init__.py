"""The family `local`: a model in a child process of the relay, reached over loopback.

The server inside is llama.cpp's, which speaks Chat Completions, Completions and Embeddings, so `relay_openai` reads and
writes them; what is new here is the process: started with the relay, started again if it died, ended with the relay.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from relay import Family, Host, Model, Price, Rates, Target, Upstream, UpstreamRequest, hookimpl
from relay.errors import UpstreamError, UpstreamUnreachable
from relay.events import StreamDecoder, StreamMeter
from relay.ir import EmbeddingRequest, EmbeddingResponse, Loss, Request, Response, Usage
from relay_local.process import Process, available, local_model
from relay_openai.compose import compose_request
from relay_openai.embeddings.compose import compose_request as compose_embedding
from relay_openai.family import (
    count_response,
    read_error,
    read_response,
    read_vectors,
    stream_decoder,
    stream_meter,
)
from relay_openai.losses import CHAT_LOSSES, EMBEDDING_LOSSES

if TYPE_CHECKING:
    from relay.app import Relay

__all__: list[str] = []

FREE = Price(Rates(input=0, output=0), source="local")
CAN = {"chat": True, "completion": True, "streaming": True, "structured_output": True, "embeddings": True}

PATHS: Mapping[tuple[str, str], str] = {
    ("generate", ""): "chat/completions",
    ("generate", "openai-chat"): "chat/completions",
    ("generate", "openai-completions"): "completions",
    ("embeddings", ""): "embeddings",
    ("embeddings", "openai-embeddings"): "embeddings",
}
"""Path by operation and dialect, below the server's version."""

_processes: dict[Upstream, Process] = {}
"""The children that run now, by their upstreams."""


@hookimpl
def relay_families() -> Sequence[Family]:
    """The family; used by itself if nothing else was found and the extra is installed."""
    host = Host(name="local", base_url="", fallback=1, capabilities=CAN)
    return [
        Family(
            "local",
            dialects=frozenset({"openai-chat", "openai-embeddings", "openai-completions"}),
            hosts=[host] if available() else [],
            capabilities=CAN,
            losses=tuple(dict.fromkeys((*CHAT_LOSSES, *EMBEDDING_LOSSES))),
            options=frozenset({"model", "name", "context", "slots", "threads"}),
            addressed=False,
            alone=True,
        )
    ]


@hookimpl
def relay_lifespan(relay: Relay) -> AbstractAsyncContextManager[None]:
    """Children of this relay's local upstreams: started in the background, ended at the end."""
    return _lifespan([item for item in relay.catalog.upstreams if item.family == "local"])


@contextlib.asynccontextmanager
async def _lifespan(upstreams: Sequence[Upstream]) -> AsyncIterator[None]:
    started = {upstream: Process(upstream) for upstream in upstreams}
    _processes.update(started)
    # Loading takes a second or more; a call that comes earlier waits in `endpoint`, nobody else does.
    loading = [asyncio.create_task(process.ready()) for process in started.values()]
    try:
        yield
    finally:
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        await asyncio.gather(*(process.stop() for process in started.values()))
        for upstream in upstreams:
            _processes.pop(upstream, None)


@hookimpl
def translate_request(request: Request, target: Target, losses: list[Loss]) -> bytes:
    """A Chat Completions request."""
    return compose_request(request, target, losses)


@hookimpl
async def endpoint(target: Target, operation: str, body: bytes, stream: bool, dialect: str) -> UpstreamRequest | None:
    """The child's address, once it serves."""
    path = PATHS.get((operation, dialect))
    if path is None:
        return None
    process = _processes.get(target.upstream)
    if process is None:
        raise UpstreamUnreachable("the local model is not running")
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream" if stream else "application/json",
        "authorization": f"Bearer {process.api_key}",
    }
    return UpstreamRequest(f"{await process.ready()}/v1/{path}", headers, body)


@hookimpl
def translate_response(target: Target, body: bytes, dialect: str) -> Response:
    """A complete answer."""
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
    """What an error answer means."""
    return read_error(target, status, headers, body)


@hookimpl
def list_models(upstream: Upstream) -> Sequence[Model]:
    """The one model that an upstream's options name; nothing has to be started to know it."""
    model = local_model(upstream)
    return [Model(model.name, owned_by="local", context_length=model.context)]


@hookimpl
def price(target: Target) -> Price | None:
    """Your own machine asks no money."""
    return FREE if target.upstream.family == "local" else None
