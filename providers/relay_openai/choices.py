"""What is known of a choice, and of its calls of tools, while it streams in."""

from __future__ import annotations

from typing import Any

__all__ = ["Call", "Choice"]


class Call:
    """One tool call of a choice while it streams in."""

    __slots__ = ("arguments", "custom", "extra", "id", "name", "part")

    def __init__(self) -> None:
        self.part: int | None = None
        self.id = ""
        self.name = ""
        self.arguments = ""
        self.custom = False
        self.extra: dict[str, Any] = {}


class Choice:
    """One choice while it streams in: which of its parts are open."""

    __slots__ = (
        "audio",
        "calls",
        "current",
        "details",
        "extra",
        "finish",
        "named",
        "number",
        "plain",
        "refusal",
        "refusal_logprobs",
        "sequence",
        "slots",
        "text",
        "thinking",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.text: int | None = None
        self.thinking: int | None = None
        self.refusal: int | None = None
        self.plain = False
        self.details: list[dict[str, Any]] = []
        self.calls: list[Call] = []
        self.slots: dict[int, Call] = {}
        self.named: dict[str, Call] = {}
        self.current: Call | None = None
        self.audio: dict[str, Any] = {}
        self.refusal_logprobs: list[Any] = []
        self.finish: str | None = None
        self.sequence: str | None = None
        self.extra: dict[str, Any] = {}
