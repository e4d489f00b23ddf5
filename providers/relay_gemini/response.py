"""A complete answer as a hub value."""

from __future__ import annotations

from relay import kit
from relay.errors import UpstreamProtocol
from relay.ir import Response
from relay_gemini.stream import AnswerReader

__all__ = ["response_of"]


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
