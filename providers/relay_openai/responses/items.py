"""Parts of an answer as this format's output items, as they are when they are complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.ir import Capacity, Media, Refusal, Text, Thinking, ToolCall
from relay.kit import loads
from relay_openai.responses.sealed import own_form, seal
from relay_openai.responses.toolbox import INPUT, SEARCH
from relay_openai.responses.wire import own_fields

__all__ = ["CAPACITY", "Items", "annotation"]

_OWN_ANNOTATIONS = frozenset(("url_citation", "file_citation", "container_file_citation", "file_path"))


def annotation(citation: Any) -> dict[str, Any] | None:
    """A citation of any dialect in this format's words; None for one that names no source it has a form for."""
    if not isinstance(citation, dict):
        return None
    nested = citation.get("url_citation")
    if isinstance(nested, dict):
        citation = nested
    elif citation.get("type") in _OWN_ANNOTATIONS:
        return citation
    url = citation.get("url") or citation.get("uri")
    if not isinstance(url, str) or not url:
        return None
    return {
        "type": "url_citation",
        "url": url,
        "title": citation.get("title") or "",
        "start_index": citation.get("start_index") or citation.get("startIndex") or 0,
        "end_index": citation.get("end_index") or citation.get("endIndex") or 0,
    }


CAPACITY = Capacity(
    choices=False,
    stops=frozenset(("stop", "length", "tool_calls", "filter", "error")),
    sequence=False,
    media=lambda part: part.kind == "image" and bool(part.data),
    citation=lambda citation: annotation(citation) is not None,
    server_call=lambda part: False,
)
"""What answers of this format have room for."""


class Items:
    """Writes the items of one answer.

    `kinds` are the tools whose calls are no plain function calls, by the name that models see. Items that bring no id
    of their own get one made from `seed`, which is the answer's own.
    """

    __slots__ = ("_kinds", "_made", "_seed")

    def __init__(self, seed: str, kinds: Mapping[str, Mapping[str, Any]]) -> None:
        self._seed = seed.partition("_")[2] or seed
        self._kinds = kinds
        self._made = 0

    def new_id(self, prefix: str) -> str:
        """An id that is this answer's alone."""
        self._made += 1
        return f"{prefix}_{self._seed}{self._made:02x}"

    def message(self, name: str, content: list[dict[str, Any]], status: str = "completed") -> dict[str, Any]:
        """A message of the model's."""
        return {"id": name, "type": "message", "status": status, "role": "assistant", "content": content}

    def text(self, part: Text, shown: str, citations: list[Any], logprobs: list[Any]) -> dict[str, Any]:
        """A text inside of a message."""
        found = [one for citation in citations if (one := annotation(citation)) is not None]
        return {
            "type": "output_text",
            "annotations": found,
            "logprobs": logprobs,
            "text": shown,
            **own_fields(part.extra),
        }

    def refusal(self, part: Refusal, shown: str) -> dict[str, Any]:
        """A refusal inside of a message."""
        return {"type": "refusal", "refusal": shown}

    def reasoning(self, name: str, part: Thinking, shown: str, signature: str | None) -> dict[str, Any]:
        """Reasoning. Another dialect's is shown as its summary, which is where clients look for it."""
        own = own_form(part)
        item: dict[str, Any] = {"id": name, "type": "reasoning", "summary": []}
        if shown and not own.get("content") and not own.get("summary"):
            item["summary"] = [{"type": "summary_text", "text": shown}]
        item.update(own)
        sealed = seal(part, signature)
        if sealed is not None:
            item["encrypted_content"] = sealed
        return item

    def call_kind(self, part: ToolCall) -> Mapping[str, Any]:
        """What is known of a call beside its function: `type` if it is no plain one, and its namespace."""
        own = own_fields(part.extra)
        return own if "type" in own or "namespace" in own else self._kinds.get(part.name, {})

    def call(self, name: str, part: ToolCall, arguments: str, status: str = "completed") -> dict[str, Any]:
        """A call of the kind that the client expects of this tool."""
        kind = self.call_kind(part)
        item: dict[str, Any] = {"id": name, "type": "function_call", "status": status, "call_id": part.id}
        if kind.get("type") == "custom":
            item |= {"type": "custom_tool_call", "input": _custom_input(arguments)}
        elif kind.get("type") == SEARCH:
            item |= {"type": "tool_search_call", "execution": "client", "arguments": _search_arguments(arguments)}
        else:
            item["arguments"] = arguments
        if kind.get("type") != SEARCH:
            item["name"] = kind.get("name", part.name)
        if kind.get("namespace") is not None:
            item["namespace"] = kind["namespace"]
        for key, value in own_fields(part.extra).items():
            item.setdefault(key, value)
        return item

    def image(self, name: str, part: Media) -> dict[str, Any]:
        """A picture that the model made."""
        form = (part.media_type or "image/png").partition("/")[2]
        return {
            "id": name,
            "type": "image_generation_call",
            "status": "completed",
            "output_format": form,
            "result": part.data,
            **own_fields(part.extra),
        }


def _custom_input(arguments: str) -> str:
    """The free text that a custom tool is called with; arguments that hold no such text are themselves it."""
    try:
        value = loads(arguments)
    except ValueError:
        return arguments
    found = value.get(INPUT) if isinstance(value, dict) else None
    return found if isinstance(found, str) else arguments


def _search_arguments(arguments: str) -> Any:
    """An object, as clients of the search expect it."""
    try:
        value = loads(arguments or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
