"""The client dialect `gemini`: `generateContent` and its like, as clients speak them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from relay import Dialect, Forward, Head, Model, Route, Target
from relay.body import check_model, read_body, read_object
from relay.errors import BadParameter, RelayError
from relay.events import StreamEncoder
from relay.fields import word
from relay.ir import Capacity, EmbeddingRequest, EmbeddingResponse, LossKind, Request, Response, Tool
from relay.kit import WholeEvents, dumps, renamed
from relay.outline import Known, Outline, read_outline
from relay_gemini.caller import counted, parse_request, parse_tools
from relay_gemini.embedding import embedding_object
from relay_gemini.encoder import ContentEncoder
from relay_gemini.endpoint import resource_of
from relay_gemini.foreign import LABEL, without_labelled
from relay_gemini.frames import ARRAY_TYPE, ArrayFilter, ArrayFrames, SseFrames
from relay_gemini.generation import generation_of
from relay_gemini.head import TEXTS, check_contents, estimate_input, has_functions, limits_of
from relay_gemini.inputs import check_inputs, estimate_inputs, is_batch, parse_embedding, renamed_inputs
from relay_gemini.listing import model_object, models_object
from relay_gemini.losses import FOREIGN
from relay_gemini.message import response_body
from relay_gemini.names import camel, message
from relay_gemini.shapes import CAPACITY, error_object
from relay_gemini.stream import DIALECT

__all__ = ["GenerateContent"]

VERSIONS = ("v1beta", "v1")
TUNED = "tunedModels"
"""The collection whose name belongs to the names of its models."""
_LABELLED = b'"' + LABEL.encode()


def _routes() -> tuple[Route, ...]:
    """Of the versions the first has lists of models of its own; those of the other share a path with other dialects."""
    found = []
    for version in VERSIONS:
        model = f"/{version}/{{collection:models|tunedModels}}/{{model:.+}}"
        found += [
            Route("POST", f"{model}:generateContent"),
            Route("POST", f"{model}:{{stream:streamGenerateContent}}", query=("alt",)),
            Route("POST", f"{model}:countTokens", "count_tokens"),
            Route("POST", f"{model}:embedContent", "embeddings"),
            Route("POST", f"{model}:{{batch:batchEmbedContents}}", "embeddings"),
        ]
    found += [Route("GET", "/v1beta/models", "models"), Route("GET", "/v1beta/models/{id:.+}", "model")]
    return tuple(found)


class GenerateContent(Dialect):
    """The Gemini API. `new_id` is asked where an upstream does not tell under which id it answered.

    The model and the form of the stream stand in the URL; between two events of a stream, empty lines change nothing.
    """

    name: ClassVar[str] = DIALECT
    routes: ClassVar[tuple[Route, ...]] = _routes()
    key_parameter: ClassVar[str] = "key"
    keep_alive: ClassVar[bytes] = b"\n"
    tool_fields: ClassVar[tuple[str, ...]] = ("tools",)
    call_words: ClassVar[tuple[bytes, ...]] = (b"functionCall", b"function_call")
    capacity: ClassVar[Capacity] = CAPACITY
    losses: ClassVar[Sequence[LossKind]] = (FOREIGN,)

    def __init__(self, new_id: Callable[[], str] = lambda: uuid.uuid4().hex) -> None:
        self._new_id = new_id
        self._known = Known()

    def peek(self, raw: bytes, operation: str, path: Mapping[str, str], headers: Mapping[str, str]) -> Head:
        """Read what the core needs. No header of the caller's passes."""
        embeds = operation == "embeddings"
        told = Outline(read_object(raw)) if embeds else read_outline(raw, TEXTS, self._known, named=False)
        data = told.data
        model = word(path.get("model"), "model")
        if path.get("collection") == TUNED:
            model = f"{TUNED}/{model}"
        check_model(model)
        if any(name.lower() == "model" and value is not None for name, value in data.items()):
            # The URL counts. An upstream might think otherwise.
            data = read_body(raw)
            told = Outline(data)
            if word(data.get("model"), "model").removeprefix("models/") != model:
                raise BadParameter("model is another one than in the URL", param="model")
        if embeds:
            check_inputs(data, model, batch="batch" in path)
            return Head(operation, model, raw, data, choices=0, input_estimate=estimate_inputs(data))
        fields = counted(data) if operation == "count_tokens" else camel(data, "body")
        check_contents(fields)
        most, choices = limits_of(fields)
        streamed = "stream" in path
        return Head(
            operation=operation,
            model=model,
            raw=raw,
            data=data,
            stream=streamed,
            max_output=most,
            choices=choices,
            input_estimate=estimate_input(fields, told.listed) + told.tokens,
            has_tools=has_functions(fields),
            stream_type=ARRAY_TYPE if streamed and path.get("alt") != "sse" else "",
            outline=told,
            definitions=told.listed,
        )

    def parse(self, head: Head) -> Request:
        """The whole request as a hub value."""
        return parse_request(_asked(head), head.model, stream=head.stream)

    def forward(self, head: Head, target: Target) -> Forward:
        """The caller's bytes. The model's name is in the URL; where the body names it as well, that is made to fit.

        Only a conversation that another vendor's model took part in is written anew, without that model's reasoning:
        the relay labelled it so that it finds its way back there, and the vendor would refuse it.
        """
        name = "/".join(resource_of(target.model))
        if head.operation == "embeddings":
            return Forward(renamed_inputs(head.raw, head.data, name))
        stream_filter = (ArrayFilter() if head.stream_type else WholeEvents()) if head.stream else None
        raw, data = head.raw, head.fields
        if data.get("model") is not None:
            raw = renamed(head, name)
        losses = []
        if head.labelled(_LABELLED):
            data = head.data
            signed = generation_of(target.model, target.upstream.options).signed
            if (cleaned := _without_labelled(data, signed)) is not data:
                data, losses = cleaned, [FOREIGN.at()]
                raw = dumps({**data, "model": name} if data.get("model") is not None else data)
        inner = next((spelling for spelling in _INNER if isinstance(data.get(spelling), dict)), None)
        if inner is not None and data[inner].get("model") not in (None, name):
            raw = dumps({**data, inner: {**data[inner], "model": name}})
        return Forward(raw, stream_filter, losses)

    def tools(self, head: Head) -> Sequence[tuple[str, Tool]]:
        """The functions. What the vendor offers beside them has no schema to check."""
        given = camel(head.fields, "body").get("tools")
        return [(path, tool) for path, tool in parse_tools(given or []) if isinstance(tool, Tool)]

    def encode_response(self, response: Response, head: Head) -> bytes:
        """A `GenerateContentResponse`."""
        return response_body(response, model=head.model, new_id=self._new_id(), thoughts=_wants_thoughts(head))

    def stream_encoder(self, head: Head) -> StreamEncoder:
        """An encoder for a stream of these, in the form that the URL asks for."""
        return ContentEncoder(
            ArrayFrames() if head.stream_type else SseFrames(),
            model=head.model,
            new_id=self._new_id(),
            thoughts=_wants_thoughts(head),
        )

    def encode_error(self, error: RelayError, request_id: str) -> bytes:
        """The error object, with the request's id among its details."""
        return dumps({"error": error_object(error, request_id)})

    def encode_count(self, tokens: int) -> bytes:
        """`{"totalTokens": ...}`."""
        return dumps({"totalTokens": tokens})

    def parse_embedding(self, head: Head) -> EmbeddingRequest:
        """A request for one vector, or for a list of them."""
        return parse_embedding(head.data, head.model)

    def encode_embedding(self, response: EmbeddingResponse, head: Head) -> bytes:
        """An `EmbedContentResponse`, or that of a batch."""
        return dumps(embedding_object(response, batch=is_batch(head.data)))

    def claims_models(self, headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
        """Clients of this dialect send their key where no others do."""
        return "x-goog-api-key" in headers or self.key_parameter in query

    def encode_models(self, models: Sequence[Model], query: Mapping[str, str]) -> bytes:
        """All models, or the page that `pageSize` and `pageToken` ask for."""
        return dumps(models_object(models, query))

    def encode_model(self, model: Model) -> bytes:
        """One model."""
        return dumps(model_object(model))


_INNER = ("generateContentRequest", "generate_content_request")
"""Where a request may stand whose tokens are to be counted."""


def _asked(head: Head) -> dict[str, Any]:
    return counted(head.data) if head.operation == "count_tokens" else head.data


def _without_labelled(data: dict[str, Any], signed: bool) -> dict[str, Any]:
    """A request without the reasoning of others; the very same object if there is none."""
    for spelling in _INNER:
        inner = data.get(spelling)
        if isinstance(inner, dict):
            cleaned = _without_labelled(inner, signed)
            return data if cleaned is inner else {**data, spelling: cleaned}
    contents = data.get("contents")
    if not isinstance(contents, list):
        return data
    kept = without_labelled(contents, signed=signed)
    return data if kept is contents else {**data, "contents": kept}


def _wants_thoughts(head: Head) -> bool:
    """Whether the caller asked to see what the model thinks."""
    config = camel(head.fields, "body").get("generationConfig")
    if not isinstance(config, dict):
        return False
    thinking = camel(config, "generationConfig").get("thinkingConfig")
    return isinstance(thinking, dict) and message(thinking, "thinkingConfig").get("includeThoughts") is True
