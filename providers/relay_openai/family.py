"""The upstream family `openai`: every host that takes Chat Completions, some of which speak Responses too.

Where the relay translates, hosts are asked in Chat Completions; those that are configured to speak Responses and
nothing else are asked in that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from relay import Family, Model, ModelListing, Secret, Target, Upstream, UpstreamRequest
from relay.errors import UpstreamError
from relay.events import StreamDecoder
from relay.ir import EmbeddingResponse, Loss, Request, Response, Usage
from relay.kit import loads, upstream_json
from relay.skim import SkimmingMeter
from relay_openai.completions.reader import TextReader, completions_meter, decode_text
from relay_openai.completions.wire import DIALECT as COMPLETIONS
from relay_openai.compose import compose_request
from relay_openai.counting import counted_answer
from relay_openai.embeddings.answer import count_answer, decode_answer
from relay_openai.embeddings.wire import DIALECT as EMBEDDINGS
from relay_openai.fault import upstream_error
from relay_openai.hosts import OPTIONS, known_hosts, placeholders
from relay_openai.listing import parse_models
from relay_openai.losses import LOSSES
from relay_openai.models import capabilities_of
from relay_openai.reader import Reader
from relay_openai.response import decode_response
from relay_openai.responses.compose import compose_request as compose_responses
from relay_openai.responses.response import decode_response as decode_responses
from relay_openai.responses.skim import responses_meter
from relay_openai.responses.stream import ResponsesDecoder
from relay_openai.responses.usage import decode_usage as responses_usage
from relay_openai.responses.wire import DIALECT as RESPONSES
from relay_openai.skim import chat_meter
from relay_openai.stream import ChatDecoder, WholeDecoder
from relay_openai.usage import decode_usage
from relay_openai.wire import DIALECT

__all__ = [
    "endpoint_of",
    "family",
    "models_listing",
    "read_error",
    "read_response",
    "stream_decoder",
    "translated",
]

_PATHS: Mapping[tuple[str, str], str] = {
    ("generate", DIALECT): "chat/completions",
    ("generate", RESPONSES): "responses",
    ("generate", COMPLETIONS): "completions",
    ("embeddings", ""): "embeddings",
    ("embeddings", EMBEDDINGS): "embeddings",
}
"""Path by operation and dialect, below the base URL."""
_UNLIKE_CHAT = frozenset((RESPONSES, EMBEDDINGS))
_MOVED: Mapping[str, str] = {"completions": "completions_path", "embeddings": "embeddings_path"}
"""The option that gives another path in place of one of these."""


def spoken(target: Target, dialect: str) -> str:
    """The format in which a host is asked: the caller's `dialect` where nothing is translated, else its own."""
    if dialect:
        return dialect
    dialects = target.upstream.dialects
    return RESPONSES if RESPONSES in dialects and DIALECT not in dialects else DIALECT


def translated(request: Request, target: Target, losses: list[Loss]) -> bytes:
    """The body of a request in the host's own format."""
    compose = compose_responses if spoken(target, "") == RESPONSES else compose_request
    return compose(request, target, losses)


_READERS: Mapping[str, Callable[[dict[str, Any], bytes, Secret | None], Response]] = {
    RESPONSES: decode_responses,
    COMPLETIONS: decode_text,
}
"""Who reads a complete answer, by dialect; Chat Completions, where nobody is named."""


def family() -> Family:
    """The family with all its known hosts."""
    return Family(
        "openai",
        dialects=frozenset((DIALECT, RESPONSES, EMBEDDINGS, COMPLETIONS)),
        # Nearly every server that calls itself compatible has these two, and few have more.
        usual_dialects=frozenset((DIALECT, EMBEDDINGS)),
        hosts=known_hosts(),
        capabilities={"chat": True, "streaming": True},
        losses=LOSSES,
        options=frozenset(OPTIONS),
    )


def address(upstream: Upstream, path: str, model: str = "") -> str:
    """The URL of `path` at an upstream: below its base URL, or below its host if `path` begins with a slash.

    `{model}` in the base URL is the model's name, as older deployments want it.

    Raises UpstreamError if the base URL still waits for an account.
    """
    base = upstream.base_url.rstrip("/")
    missing = placeholders(base)
    if missing:
        raise UpstreamError(
            f"upstream {upstream.name!r} needs its base_url: {', '.join(missing)} is not set",
            code="upstream_unconfigured",
        )
    parts = urlsplit(base)
    if path.startswith("/"):
        base = f"{parts.scheme}://{parts.netloc}"
    elif not parts.path:
        port = upstream.options.get("default_port")
        if port and parts.port is None and parts.scheme == "http":
            base += f":{port}"
        base += str(upstream.options.get("default_path", "")).rstrip("/")
    url = f"{base.replace('{model}', quote(model, safe=''))}/{path.lstrip('/')}"
    query = upstream.options.get("query")
    return f"{url}?{urlencode(query)}" if query else url


def credentials(upstream: Upstream) -> dict[str, str]:
    """Headers that carry the key, if there is one, and those of the configuration, which win."""
    headers: dict[str, str] = {}
    if upstream.api_key:
        auth = str(upstream.options.get("auth", "bearer"))
        key = upstream.api_key.reveal()
        if auth.lower() == "bearer":
            headers["authorization"] = f"Bearer {key}"
        else:
            headers[auth.lower()] = key
    headers.update({name.lower(): value for name, value in upstream.headers.items()})
    return headers


def endpoint_of(
    target: Target, operation: str, body: bytes, stream: bool, headers: Mapping[str, str], dialect: str = ""
) -> UpstreamRequest | None:
    """Where the body goes; None for an operation that this family does not have."""
    path = _PATHS.get((operation, spoken(target, dialect) if operation == "generate" else dialect))
    if path is None:
        return None
    url, own = _prepared(target, path, stream)
    return UpstreamRequest(url, {**headers, **own} if headers else own, body, lasting=True)


@lru_cache(maxsize=1024)
def _prepared(target: Target, path: str, stream: bool) -> tuple[str, Mapping[str, str]]:
    """URL and headers, which are the same for every call of a target. Bounded: callers may name models themselves."""
    headers = {
        "content-type": "application/json",
        "accept": "text/event-stream" if stream else "application/json",
        **credentials(target.upstream),
    }
    path = str(target.upstream.options.get(_MOVED.get(path, ""), path))
    return address(target.upstream, path, target.model), MappingProxyType(headers)


def count_response(target: Target, body: bytes, dialect: str = "") -> Usage | None:
    """What a complete answer used; None, for the full reading to judge, unless it plainly is an answer."""
    if dialect not in _UNLIKE_CHAT and (usage := counted_answer(body)) is not None:
        return usage
    value = upstream_json(body)
    if dialect == RESPONSES:
        output = value.get("output")
        answered = (
            isinstance(output, list) and value.get("status") != "failed" and (not output or type(output[0]) is dict)
        )
        return responses_usage(value.get("usage")) if answered else None
    if dialect == EMBEDDINGS:
        return count_answer(value)
    choices = value.get("choices")
    if not choices or type(choices) is not list or type(choices[0]) is not dict or value.get("error"):
        return None
    return decode_usage(value.get("usage"))


def stream_meter(target: Target, headers: Mapping[str, str], dialect: str = "") -> SkimmingMeter | None:
    """A meter for an event stream; None for the other forms in which hosts answer."""
    if _is_whole(headers):
        return None
    if dialect == RESPONSES:
        return responses_meter(ResponsesDecoder(secret=target.upstream.api_key, fill=False))
    if dialect == COMPLETIONS:
        return completions_meter(_chat_decoder(target, TextReader()))
    return chat_meter(_chat_decoder(target))


def read_response(target: Target, body: bytes, dialect: str = "") -> Response:
    """A complete answer as a hub value."""
    format_ = spoken(target, dialect)
    read = _READERS.get(format_, decode_response)
    response = read(upstream_json(body), body, target.upstream.api_key)
    if not dialect and not response.choices:
        message = "the upstream answers in the background, where only clients of its own format can find it"
        raise UpstreamError(message, code="upstream_background", retryable=False)
    return response


def read_vectors(target: Target, body: bytes) -> EmbeddingResponse:
    """An answer's vectors as a hub value."""
    return decode_answer(upstream_json(body), body, target.upstream.api_key)


def stream_decoder(target: Target, headers: Mapping[str, str], dialect: str = "") -> StreamDecoder:
    """A decoder for the form in which the host really answers, which is not always the one it was asked for."""
    secret = target.upstream.api_key
    if spoken(target, dialect) == RESPONSES:
        events = ResponsesDecoder(secret=secret)
        return WholeDecoder(secret, events, decode_responses) if _is_whole(headers) else events
    if dialect == COMPLETIONS:
        texts = _chat_decoder(target, TextReader())
        return WholeDecoder(secret, texts, decode_text) if _is_whole(headers) else texts
    decoder = _chat_decoder(target)
    return WholeDecoder(secret, decoder) if _is_whole(headers) else decoder


def _chat_decoder(target: Target, reader: Reader | None = None) -> ChatDecoder:
    upstream = target.upstream
    finish_reason = upstream.options.get("finish_reason", True)
    return ChatDecoder(finish_reason=finish_reason, secret=upstream.api_key, reader=reader)


def _is_whole(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").lower().startswith("application/json")


def read_error(target: Target, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
    """What an answer with a status of 400 or more means."""
    try:
        value = loads(body)
    except ValueError:
        value = None
    return upstream_error(value, body, status, headers, target.upstream.api_key)


def models_listing(upstream: Upstream) -> ModelListing | Sequence[Model]:
    """How to ask for the models; for a host without a list, the names that its row knows by heart."""
    path = str(upstream.options.get("models_path", "models"))
    if not path or "{model}" in upstream.base_url:
        return [Model(name, capabilities=capabilities_of(name)) for name in upstream.models if "*" not in name]
    headers = {"accept": "application/json", **credentials(upstream)}
    return ModelListing(UpstreamRequest(address(upstream, path), headers, method="GET"), parse_models)
