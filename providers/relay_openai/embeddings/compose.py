"""The hub's requests for vectors to the bodies that the family's hosts take. Reached by callers of other dialects."""

from __future__ import annotations

from typing import Any

from relay import Target
from relay.ir import EmbeddingRequest, Loss
from relay.kit import dumps, foreign_fields
from relay_openai.compose import adapt
from relay_openai.embeddings.wire import DIALECT
from relay_openai.losses import PURPOSE, TITLE

__all__ = ["compose_request"]


def compose_request(request: EmbeddingRequest, target: Target, losses: list[Loss]) -> bytes | None:
    """The body to send; None for a host that has no embeddings. What cannot be carried is appended to `losses`."""
    if DIALECT not in target.upstream.dialects:
        return None
    lost = foreign_fields(request, DIALECT)
    inputs = request.inputs
    body: dict[str, Any] = {
        "model": target.model,
        "input": inputs[0] if len(inputs) == 1 else inputs,
        # Said although it is the usual form: some hosts have another one.
        "encoding_format": "float",
    }
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    if request.user is not None:
        body["user"] = request.user
    if request.purpose is not None:
        lost.append(PURPOSE.at())
    if request.title is not None:
        lost.append(TITLE.at())
    adapt(body, target.upstream.options, lost)
    losses.extend(dict.fromkeys(lost))
    return dumps(body)
