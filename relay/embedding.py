"""Vectors of texts: the same way as a generation's, with an answer of another kind at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace

from relay.attempt import Attempt, content_type
from relay.bound import guarded
from relay.counting import SOURCE
from relay.errors import NoSuchOperation, PluginError, UpstreamProtocol
from relay.ir import EmbeddingRequest, EmbeddingResponse, Loss, Usage
from relay.meter import Meter

__all__ = ["EmbeddingAttempt"]


class EmbeddingAttempt(Attempt):
    """One try of one target for vectors. Raises NoSuchOperation, before anything is sent, if it makes none."""

    wanted: EmbeddingRequest | None = None
    """What was asked for; None where it passes through unread."""

    def _translated(self, losses: list[Loss]) -> bytes:
        dialect = self.dialect
        wanted = self.wanted = guarded(
            f"dialect {dialect.name}", "parse_embedding", lambda: dialect.parse_embedding(self.head)
        )
        body = self.family.translate_embedding_request(wanted, self.target, losses)
        if body is None:
            raise self._lacking()
        return body

    def _lacking(self) -> NoSuchOperation:
        return NoSuchOperation(
            f"the model {self.head.model!r} makes no embeddings: its upstream {self.target.upstream.name!r} has none",
            param="model",
        )

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Count the vectors' texts and send the vectors on."""
        call = self.call
        meter = call.count = Meter()
        if self.native:
            response = None
            meter.usage = self._counted(status, headers, body)
        else:
            response = self._vectors(status, headers, body)
            meter.usage = _usage(response.usage)
        meter.complete = True
        call.first_byte = self.relay.clock()
        self.relay.bill(call)
        self._describe()
        if response is None:
            self.outlet.answer(call.headers, content_type(headers), body, call.id)
            return
        call.headers[SOURCE] = "estimate" if meter.usage is None else "upstream"
        # Clients of these formats read the count without asking whether there is one.
        response.usage = call.usage
        encoded = guarded(
            f"dialect {self.dialect.name}",
            "encode_embedding",
            lambda: self.dialect.encode_embedding(response, self.head),
        )
        self.outlet.answer(call.headers, "application/json", encoded, call.id)

    def _counted(self, status: int, headers: Mapping[str, str], body: bytes) -> Usage | None:
        """The tokens of an answer that passes through. A fault of the reader costs its numbers and no more."""
        with contextlib.suppress(PluginError):
            usage = self.family.meter_response(self.target, headers, body, self.speaks)
            if usage is not None:
                return _usage(usage)
            response = self.family.translate_embedding_response(self.target, status, headers, body, self.speaks)
            return None if response is None else _usage(response.usage)
        return None

    def _vectors(self, status: int, headers: Mapping[str, str], body: bytes) -> EmbeddingResponse:
        response = self.family.translate_embedding_response(self.target, status, headers, body)
        if response is None:
            raise PluginError(self.family.plugin, "asks for embeddings and does not read them")
        wanted = len(self.wanted.inputs) if self.wanted is not None else 0
        if len(response.vectors) != wanted:
            raise UpstreamProtocol(f"the upstream answered {len(response.vectors)} vectors to {wanted} inputs")
        return response


def _usage(usage: Usage | None) -> Usage | None:
    """A count that can be billed, or None. Nothing is generated, whether the upstream says so or not."""
    return None if usage is None or usage.input is None else replace(usage, output=usage.output or 0)
