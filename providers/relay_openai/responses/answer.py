"""The response object: what surrounds the items of an answer, whole or at both ends of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.ir import StopKind, StopReason, Usage
from relay_openai.responses.usage import encode_usage
from relay_openai.responses.wire import INCOMPLETE

__all__ = ["Envelope"]

_ECHOED: Mapping[str, Any] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": None,
    "temperature": None,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}
"""Fields of the request that its answer repeats, with what stands there if the caller said nothing."""

_ID = "resp_"


class Envelope:
    """The fields of one answer. `data` is the request; `created` (Unix seconds), `new_id` and `model` stand in where
    the upstream gave none.

    Ids of other vendors are replaced: two of theirs may be equal, and clients come back with this one.
    """

    __slots__ = ("_data", "created", "id", "model")

    def __init__(self, data: Mapping[str, Any], *, model: str, created: int, new_id: str) -> None:
        self._data = data
        self.id = new_id
        self.created = created
        self.model = model

    def adopt(self, name: str, model: str, created: int | None) -> None:
        """Take over what the upstream says of its answer."""
        if name.startswith(_ID):
            self.id = name
        self.model = model or self.model
        self.created = self.created if created is None else created

    def open(self) -> dict[str, Any]:
        """The answer at its beginning."""
        return self._object("in_progress", [], None)

    def closed(self, output: list[Any], stop: StopReason | None, usage: Usage | None, now: int) -> dict[str, Any]:
        """The answer when it is complete, or as complete as it will be."""
        kind: StopKind = stop.kind if stop is not None else "stop"
        if kind == "error":
            error = {"code": "server_error", "message": "the model stopped with an error"}
            return self._object("failed", output, usage, error=error)
        reason = INCOMPLETE.get(kind)
        if reason is None:
            return self._object("completed", output, usage, completed_at=now)
        return self._object("incomplete", output, usage, incomplete_details={"reason": reason})

    def failed(self, output: list[Any], error: dict[str, Any], usage: Usage | None) -> dict[str, Any]:
        """The answer as far as it came."""
        return self._object("failed", output, usage, error=error)

    def _object(self, status: str, output: list[Any], usage: Usage | None, **more: Any) -> dict[str, Any]:
        data = self._data
        fields: dict[str, Any] = {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "background": False,
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": output,
        }
        for name, default in _ECHOED.items():
            value = data.get(name)
            fields[name] = default if value is None else value
        reasoning, text = data.get("reasoning"), data.get("text")
        fields["reasoning"] = {"effort": None, "summary": None, **(reasoning if isinstance(reasoning, dict) else {})}
        fields["text"] = {"format": {"type": "text"}, **(text if isinstance(text, dict) else {})}
        fields["previous_response_id"] = getattr(data, "previous", None) or fields["previous_response_id"]
        fields["store"] = data.get("store") is not False
        fields["usage"] = encode_usage(usage)
        fields.update(more)
        return fields
