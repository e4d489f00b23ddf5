"""Model lists of `openai-chat` hosts, in the forms in which they tell what a model can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from relay import Model
from relay.errors import UpstreamProtocol
from relay.kit import loads, token_count
from relay_openai.fault import is_fault, upstream_error
from relay_openai.models import capabilities_of

__all__ = ["parse_models"]

_CONTEXT = (
    ("context_length",),
    ("context_window",),
    ("max_model_len",),
    ("max_context_length",),
    ("max_context_window",),
    ("context_size",),
    ("max_input_tokens",),
    ("top_provider", "context_length"),
    ("model_spec", "availableContextTokens"),
    ("meta", "n_ctx"),
    ("meta", "n_ctx_train"),
    ("metadata", "context_length"),
    ("limits", "max_input_tokens"),
)
"""Where hosts put the size of the context, in tokens."""


def parse_models(body: bytes) -> Sequence[Model]:
    """The models of a list. Entries without a name are skipped. Raises UpstreamProtocol if it is no list at all."""
    try:
        value = loads(body)
    except ValueError:
        raise UpstreamProtocol("the upstream's model list is not JSON") from None
    if isinstance(value, dict) and is_fault(value):
        raise upstream_error(value, body, None, {})
    rows = value
    if isinstance(value, dict):
        rows = next((value[key] for key in ("data", "models", "result") if isinstance(value.get(key), list)), None)
    if not isinstance(rows, list):
        raise UpstreamProtocol("the upstream's model list holds no list")
    models: dict[str, Model] = {}
    for row in rows:
        model = _model({"id": row} if isinstance(row, str) else row)
        if model is not None:
            models.setdefault(model.id, model)
    return list(models.values())


def _model(row: Any) -> Model | None:
    if not isinstance(row, dict):
        return None
    name = row.get("id") or row.get("name") or row.get("model")
    if not isinstance(name, str) or not name:
        return None
    created = row.get("created")
    owner = row.get("owned_by") or row.get("organization") or row.get("publisher")
    return Model(
        id=name,
        created=created if type(created) is int and created > 0 else None,
        owned_by=owner if isinstance(owner, str) else None,
        context_length=next((size for path in _CONTEXT if (size := token_count(_at(row, path)))), None),
        capabilities={**capabilities_of(name), **_told(row)},
    )


def _at(row: Mapping[str, Any], path: Iterable[str]) -> Any:
    value: Any = row
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


# What the host itself says, which counts more than a name.


def _told(row: Mapping[str, Any]) -> dict[str, bool]:
    told: dict[str, bool] = {}
    for read in _READERS:
        told.update(read(row))
    return told


def _architecture(row: Mapping[str, Any]) -> dict[str, bool]:
    """A gateway's lists of what goes in and comes out."""
    inputs = _at(row, ("architecture", "input_modalities"))
    outputs = _at(row, ("architecture", "output_modalities"))
    told = {}
    if isinstance(inputs, list):
        told = {"vision": "image" in inputs, "audio": "audio" in inputs}
    if isinstance(outputs, list):
        told |= {"chat": "text" in outputs, "streaming": "text" in outputs}
    return told


def _parameters(row: Mapping[str, Any]) -> dict[str, bool]:
    """A gateway's list of the parameters that a model takes."""
    names = row.get("supported_parameters")
    if not isinstance(names, list):
        return {}
    return {
        "function_calling": "tools" in names,
        "structured_output": "structured_outputs" in names,
        "reasoning": "reasoning" in names or "include_reasoning" in names,
    }


_FLAGS: Mapping[str, Mapping[tuple[str, ...], str]] = {
    "capabilities": {
        ("completion_chat",): "chat",
        ("function_calling",): "function_calling",
        ("vision",): "vision",
        ("audio",): "audio",
        ("reasoning",): "reasoning",
    },
    "model_spec": {
        ("capabilities", "supportsFunctionCalling"): "function_calling",
        ("capabilities", "supportsVision"): "vision",
        ("capabilities", "supportsReasoning"): "reasoning",
        ("capabilities", "supportsResponseSchema"): "structured_output",
        ("capabilities", "supportsAudioInput"): "audio",
    },
}


def _flags(row: Mapping[str, Any]) -> dict[str, bool]:
    """Plain true and false, by the names that several hosts have for them."""
    told = {}
    for holder, names in _FLAGS.items():
        for path, capability in names.items():
            value = _at(row, (holder, *path))
            if isinstance(value, bool):
                told[capability] = value
    for name, capability in (
        ("supports_chat", "chat"),
        ("supports_image_input", "vision"),
        ("supports_image_in", "vision"),
        ("supports_tools", "function_calling"),
        ("supports_reasoning", "reasoning"),
    ):
        if isinstance(row.get(name), bool):
            told[capability] = row[name]
    return told


_KINDS: Mapping[str, Mapping[str, bool]] = {
    "chat": {"chat": True, "streaming": True},
    "llm": {"chat": True, "streaming": True},
    "vlm": {"chat": True, "streaming": True, "vision": True},
    "language": {"chat": True, "streaming": True},
    "embedding": {"chat": False, "embeddings": True},
    "embeddings": {"chat": False, "embeddings": True},
    "image": {"chat": False},
    "audio": {"chat": False},
    "moderation": {"chat": False},
    "rerank": {"chat": False},
}


def _kind(row: Mapping[str, Any]) -> Mapping[str, bool]:
    """One word for what the model is."""
    kind = row.get("type")
    return _KINDS.get(kind, {}) if isinstance(kind, str) else {}


_READERS: tuple[Callable[[Mapping[str, Any]], Mapping[str, bool]], ...] = (_kind, _flags, _architecture, _parameters)
