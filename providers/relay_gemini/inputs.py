"""What callers want vectors of: `embedContent` is one request for a vector, `batchEmbedContents` a list of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.errors import BadParameter, Unsupported
from relay.fields import items, obj, text
from relay.ir import EmbeddingRequest, Purpose
from relay.kit import dumps
from relay_gemini.embedding import TASKS
from relay_gemini.head import estimate_contents
from relay_gemini.names import message, rest_of, whole
from relay_gemini.stream import DIALECT

__all__ = ["check_inputs", "estimate_inputs", "is_batch", "parse_embedding", "renamed_inputs"]

MAX_INPUTS = 2048
MAX_DIMENSIONS = 1_000_000
_PURPOSES: Mapping[str, Purpose | None] = {
    **{task: purpose for purpose, task in TASKS.items()},
    "TASK_TYPE_UNSPECIFIED": None,
}


def is_batch(data: Mapping[str, Any]) -> bool:
    """Whether a body that was checked asks for a list of vectors."""
    return "requests" in data


def _requests(data: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The single requests, each with the beginning of its fields' paths."""
    if not is_batch(data):
        return [("", message(data, "body"))]
    found = []
    for place, entry in enumerate(items(data["requests"], "requests")):
        path = f"requests[{place}]"
        found.append((f"{path}.", message(entry, path)))
    return found


def check_inputs(data: dict[str, Any], model: str, *, batch: bool) -> None:
    """There is something to make vectors of, and each request is for the model that the URL names.

    An upstream might think otherwise about which name counts.
    """
    if batch and not is_batch(data):
        raise BadParameter("requests is missing", param="requests")
    if not batch and is_batch(data):
        raise BadParameter("requests is for batchEmbedContents", param="requests")
    requests = _requests(data)
    if not 1 <= len(requests) <= MAX_INPUTS:
        raise BadParameter(f"requests must have between 1 and {MAX_INPUTS} entries", param="requests")
    for path, fields in requests:
        if fields.get("content") is None:
            raise BadParameter(f"{path}content is missing", param=f"{path}content")
        obj(fields["content"], f"{path}content")
        named = fields.get("model")
        if named is not None and text(named, f"{path}model").removeprefix("models/") != model:
            raise BadParameter(f"{path}model is another one than in the URL", param=f"{path}model")


def estimate_inputs(data: dict[str, Any]) -> int:
    """Tokens of all inputs, roughly."""
    return estimate_contents([fields["content"] for _, fields in _requests(data)])


def renamed_inputs(raw: bytes, data: dict[str, Any], name: str) -> bytes:
    """`raw` (parsed: `data`) for the model `name`; the very same bytes if each request names it already, and once."""
    requests = data["requests"] if is_batch(data) else [data]
    named = [request for request in requests if request.get("model") is not None]
    once = raw.count(b'"model"') == len(named) and b"\\u00" not in raw
    if once and all(request["model"] == name for request in named):
        return raw
    fresh = [{**request, "model": name} if request.get("model") is not None else request for request in requests]
    return dumps({**data, "requests": fresh} if is_batch(data) else fresh[0])


def parse_embedding(data: dict[str, Any], model: str) -> EmbeddingRequest:
    """The request that `data` spells. Raises BadParameter with the path of the first fault.

    Raises Unsupported for what only upstreams of this dialect can do: vectors of pictures, and settings that differ
    from input to input.
    """
    request = EmbeddingRequest(model=model, inputs=[])
    first: dict[str, Any] | None = None
    for path, fields in _requests(data):
        settings = rest_of(fields, "model", "content")
        request.inputs.append(_text(fields["content"], f"{path}content"))
        if first is None:
            first = settings
            _settings(request, settings, path)
        elif settings != first:
            name = next(name for name in {**first, **settings} if first.get(name) != settings.get(name))
            raise Unsupported(f"{path}{name} is not that of the first input", param=f"{path}{name}")
    return request


def _settings(request: EmbeddingRequest, settings: dict[str, Any], path: str) -> None:
    if "taskType" in settings:
        word = text(settings["taskType"], f"{path}taskType")
        if word not in _PURPOSES:
            raise BadParameter(f"{path}taskType must be one of: {', '.join(_PURPOSES)}", param=f"{path}taskType")
        request.purpose = _PURPOSES[word]
    if "outputDimensionality" in settings:
        request.dimensions = whole(settings["outputDimensionality"], f"{path}outputDimensionality")
        if not 1 <= request.dimensions <= MAX_DIMENSIONS:
            name = f"{path}outputDimensionality"
            raise BadParameter(f"{name} must be between 1 and {MAX_DIMENSIONS}", param=name)
    if "title" in settings:
        request.title = text(settings["title"], f"{path}title")
    own = rest_of(settings, "taskType", "outputDimensionality", "title")
    request.extra = {DIALECT: own} if own else None


def _text(content: Any, path: str) -> str:
    """The text of one input."""
    fields = message(content, path)
    texts = []
    for place, value in enumerate(items(fields.get("parts"), f"{path}.parts")):
        here = f"{path}.parts[{place}]"
        part = message(value, here)
        if part.get("text") is None:
            raise Unsupported(f"{here} is no text, and the upstream makes vectors of texts only", param=here)
        texts.append(text(part["text"], f"{here}.text"))
    joined = "".join(texts)
    if not joined:
        raise BadParameter(f"{path} must not be empty", param=path)
    return joined
