"""A complete answer as a hub value."""

from __future__ import annotations

from relay import kit
from relay.errors import UpstreamProtocol
from relay.ir import Response, Usage
from relay_gemini.stream import AnswerReader
from relay_gemini.usage import usage_of

__all__ = ["count_of", "response_of"]


def response_of(body: bytes) -> Response:
    """The answer in `body`, which may also be the list that a stream without `alt=sse` is.

    Raises UpstreamError if it holds an error, UpstreamProtocol if it is not an answer.
    """
    try:
        value = kit.loads(body)
    except ValueError:
        raise UpstreamProtocol("the upstream's answer is not JSON") from None
    reader = AnswerReader()
    for entry in value if isinstance(value, list) else [value]:
        if not isinstance(entry, dict):
            raise UpstreamProtocol("the upstream's answer is not a JSON object")
        reader.read(entry)
    if reader.empty:
        raise UpstreamProtocol("the upstream's answer has no candidates and no reason for that")
    reader.end()
    return kit.folded(reader.take())


def count_of(body: bytes) -> Usage | None:
    """What the answer in `body` used; None, for the full reading to judge, unless it plainly is an answer."""
    try:
        value = kit.loads(body)
    except ValueError:
        return None
    metadata = value.get("usageMetadata") if isinstance(value, dict) and value.get("candidates") else None
    if not isinstance(metadata, dict) or "error" in value:
        return None
    return usage_of(metadata)
