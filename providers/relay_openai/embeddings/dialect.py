"""The client dialect `openai-embeddings`: Embeddings as clients speak it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from relay import EmbeddingDialect, Forward, Head, Route, Target
from relay.body import read_body, read_model
from relay.errors import RelayError
from relay.ir import EmbeddingRequest, EmbeddingResponse
from relay.kit import dumps, splice_model
from relay_openai.embeddings.answer import encode_answer
from relay_openai.embeddings.request import estimate_input, parse_request, read_inputs, wants_base64
from relay_openai.embeddings.wire import DIALECT
from relay_openai.encoder import error_body

__all__ = ["OpenAIEmbeddings"]


class OpenAIEmbeddings(EmbeddingDialect):
    """Embeddings."""

    name: ClassVar[str] = DIALECT
    routes: ClassVar[tuple[Route, ...]] = (
        Route("POST", "/v1/embeddings", "embeddings"),
        Route("POST", "/embeddings", "embeddings"),
    )

    def peek(self, raw: bytes, operation: str, path: Mapping[str, str], headers: Mapping[str, str]) -> Head:
        """Read the model and the inputs, which are checked for all: no host makes a vector of nothing."""
        data = read_body(raw)
        return Head(
            operation=operation,
            model=read_model(data),
            raw=raw,
            data=data,
            choices=0,
            input_estimate=estimate_input(read_inputs(data)),
        )

    def forward(self, head: Head, target: Target) -> Forward:
        """The caller's bytes, but for the model's name."""
        return Forward(splice_model(head.raw, head.data, target.model))

    def parse_embedding(self, head: Head) -> EmbeddingRequest:
        """The whole request as a hub value."""
        return parse_request(head.data)

    def encode_embedding(self, response: EmbeddingResponse, head: Head) -> bytes:
        """A list of vectors, as numbers or as base64."""
        return encode_answer(response, model=head.model, packed=wants_base64(head.data))

    def encode_error(self, error: RelayError, request_id: str) -> bytes:
        """The error object; the request's id travels in a header."""
        return dumps(error_body(error))
