"""Complete answers: the hub's response as a `GenerateContentResponse`."""

from __future__ import annotations

from typing import Any

from relay.ir import Choice, Media, Opaque, Part, Refusal, Response, Text, Thinking, ToolCall
from relay.kit import dumps
from relay_gemini.shapes import (
    Thoughts,
    Wire,
    beside,
    call_part,
    ending,
    logprobs_result,
    media_part,
    own_fields,
    prompt_feedback,
    thought_part,
    usage_object,
)
from relay_gemini.stream import DIALECT

__all__ = ["response_body"]


def response_body(response: Response, *, model: str, new_id: str, thoughts: bool) -> bytes:
    """The answer. `model` and `new_id` stand in where the upstream named neither.

    What the model thought is shown only to callers who asked for it (`thoughts`), as the vendor does: many read the
    first part for the answer.
    """
    body: dict[str, Any] = {}
    candidates = []
    for index, choice in enumerate(response.choices):
        feedback = prompt_feedback(choice.stop, choice.extra, silent=not choice.parts)
        if feedback is not None:
            body["promptFeedback"] = feedback
        else:
            candidates.append(_candidate(choice, index, thoughts))
    if candidates:
        body["candidates"] = candidates
    if (usage := usage_object(response.usage)) is not None:
        body["usageMetadata"] = usage
    return dumps({**body, **beside(response, model=model, new_id=new_id)})


def _candidate(choice: Choice, index: int, shown: bool) -> Wire:
    thoughts = Thoughts()
    parts = [written for part in choice.parts if (written := _part(part, thoughts, shown)) is not None]
    texts = [(part.text, part.citations or ()) for part in choice.parts if isinstance(part, Text)]
    refused = any(isinstance(part, Refusal) for part in choice.parts)
    candidate: Wire = {
        "content": {"parts": parts or [{"text": ""}], "role": "model"},
        **ending(choice.stop, choice.extra, texts, refused=refused),
        "index": index,
    }
    if (result := logprobs_result(choice.logprobs or ())) is not None:
        candidate["logprobsResult"] = result
    return candidate


def _part(part: Part, thoughts: Thoughts, shown: bool) -> Wire | None:
    """A part on the wire; None for what this format has no place for, and for thoughts that nobody asked for."""
    match part:
        case Text():
            return {"text": part.text, **own_fields(part.extra)}
        case Refusal():
            return {"text": part.text}
        case Thinking():
            thoughts.add(part)
            return thought_part(part) if shown and not part.redacted else None
        case ToolCall(server=False):
            return call_part(part, thoughts.signature(part))
        case Media():
            return media_part(part)
        case Opaque(dialect=dialect, data=dict() as data) if dialect == DIALECT:
            return data
    return None
