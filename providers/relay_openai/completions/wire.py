"""Words of the `openai-completions` wire format, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.ir import Capacity, Refusal, StopKind, Text
from relay_openai.wire import FINISH_WORDS

__all__ = ["CAPACITY", "DIALECT", "FINISHES", "Scores", "TEXTS"]

DIALECT = "openai-completions"

FINISHES: Mapping[StopKind, str] = {**FINISH_WORDS, "tool_calls": "stop"}
"""What clients are told. There are no tools in this format."""

TEXTS = (Text, Refusal)
"""The parts of an answer that this format has a place for: it knows nothing but text."""


CAPACITY = Capacity(
    thinking=False,
    refusal=False,
    stops=frozenset(("stop", "length", "filter", "error")),
    sequence=False,
    media=lambda part: False,
    citation=lambda citation: False,
    server_call=lambda part: False,
)
"""What answers of this format have room for."""


class Scores:
    """Log-probabilities of one choice in the form that this format has for them, whose offsets count from its text."""

    __slots__ = ("_offset",)

    def __init__(self) -> None:
        self._offset = 0

    def encode(self, tokens: list[Any]) -> dict[str, Any]:
        """The next tokens."""
        body: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for token in tokens:
            if not isinstance(token, dict) or not isinstance(token.get("token"), str):
                continue
            body["tokens"].append(token["token"])
            body["token_logprobs"].append(token.get("logprob"))
            body["top_logprobs"].append(
                {
                    other["token"]: other.get("logprob")
                    for other in token.get("top_logprobs") or ()
                    if isinstance(other, dict) and isinstance(other.get("token"), str)
                }
            )
            body["text_offset"].append(self._offset)
            self._offset += len(token["token"])
        return body
