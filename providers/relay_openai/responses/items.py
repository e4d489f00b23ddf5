"""Parts of an answer as this format's output items, as they are when they are complete."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from relay.ir import Capacity, Citation, Media, Refusal, Text, Thinking, ToolCall
from relay.kit import loads
from relay_openai.custom import input_of
from relay_openai.responses.sealed import own_form, seal
from relay_openai.responses.toolbox import SEARCH
from relay_openai.responses.wire import DIALECT, own_fields

__all__ = ["CAPACITY", "Items", "annotation", "annotations_of", "citation_of"]


def annotation(citation: Citation, length: int) -> dict[str, Any] | None:
    """A citation of a text of that length in this format's words; None for one that names no source it has a form for.

    A page stands for the words that rest on it, a file for the end of the text.
    """
    own = own_fields(citation.extra)
    if own:
        return own
    start = 0 if citation.start is None else citation.start
    end = length if citation.end is None else min(citation.end, length)
    if citation.url:
        fields = {"url": citation.url, "title": citation.title or "", "start_index": start, "end_index": end}
        return {"type": "url_citation", **fields}
    if citation.file_id:
        return {"type": "file_citation", "file_id": citation.file_id, "filename": citation.title or "", "index": end}
    return None


def citation_of(value: Any) -> Citation:
    """What an annotation of this format cites."""
    if not isinstance(value, dict):
        return Citation()
    url, title, name, file, start, end = (
        value.get(name) for name in ("url", "title", "filename", "file_id", "start_index", "end_index")
    )
    known = type(start) is int and type(end) is int and 0 <= start < end
    return Citation(
        url if isinstance(url, str) and url else None,
        next((text for text in (title, name) if isinstance(text, str) and text), None),
        file_id=file if isinstance(file, str) and file else None,
        start=start if known else None,
        end=end if known else None,
        extra={DIALECT: value},
    )


def annotations_of(citations: Iterable[Citation], length: int) -> list[dict[str, Any]]:
    """Those citations of a text of that length for which there is a form."""
    return [shown for citation in citations if (shown := annotation(citation, length)) is not None]


CAPACITY = Capacity(
    choices=False,
    stops=frozenset(("stop", "length", "tool_calls", "filter", "error")),
    sequence=False,
    media=lambda part: part.kind == "image" and bool(part.data),
    citation=lambda citation: annotation(citation, 0) is not None,
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

    def text(self, part: Text, shown: str, annotations: list[Any], logprobs: list[Any]) -> dict[str, Any]:
        """A text inside of a message."""
        return {
            "type": "output_text",
            "annotations": annotations,
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
            item |= {"type": "custom_tool_call", "input": input_of(arguments)}
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


def _search_arguments(arguments: str) -> Any:
    """An object, as clients of the search expect it."""
    try:
        value = loads(arguments or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
