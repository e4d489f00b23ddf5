"""Complete answers: `response` objects to the hub and back."""

from __future__ import annotations

from typing import Any

from relay import Secret
from relay.errors import UpstreamProtocol
from relay.events import Event, MessageStart
from relay.fold import Fold
from relay.ir import Response
from relay_openai.fault import is_fault, upstream_error
from relay_openai.responses.fault import failed
from relay_openai.responses.reader import Reader

__all__ = ["decode_response"]


def decode_response(body: dict[str, Any], raw: bytes, secret: Secret | None = None) -> Response:
    """The answer that `body` (parsed from `raw`) holds; one that is still waiting has no choices.

    Raises UpstreamError if it failed, UpstreamProtocol if it is not a response.
    """
    if body.get("status") == "failed":
        raise failed({"response": body}, raw, secret)
    if is_fault(body) and not body.get("output"):
        raise upstream_error(body, raw, None, {}, secret)
    output = body.get("output")
    if not isinstance(output, list) or not all(isinstance(item, dict) for item in output):
        raise UpstreamProtocol("the upstream's answer is not a response: it has no output")
    events: list[Event] = []
    reader = Reader()
    reader.start(body, events)
    if body.get("status") in ("queued", "in_progress", "cancelled"):
        # Answers in the background: what they will say is asked for later.
        fold = Fold()
        fold.add([event for event in events if isinstance(event, MessageStart)])
        return fold.response()
    reader.finish(body, events)
    fold = Fold()
    fold.add(events)
    return fold.response()
