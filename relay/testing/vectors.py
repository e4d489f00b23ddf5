"""What a family's suite has to know of its upstream: its own bytes, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Refusal", "ToolCallVector", "Vectors"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer."""

    status: int
    body: bytes
    says: str
    """Words that have to reach the client."""
    shown: int
    """The status that the client gets."""


@dataclass(frozen=True, slots=True)
class ToolCallVector:
    """An answer that calls a tool, whole and streamed. `arguments` is the JSON that it spells."""

    stream: bytes
    answer: bytes
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Vectors:
    """The upstream's own bytes. Written by hand or recorded, with nothing in them that anybody would miss."""

    stream: bytes
    """A whole stream whose text is `text`."""
    answer: bytes
    """A complete answer with the same text."""
    text: str
    input_tokens: int | None
    output_tokens: int | None
    """What both report; None: they do not."""
    refusals: tuple[Refusal, ...] = ()
    tool: ToolCallVector | None = None
    """Needed if the family can call functions."""
    stream_type: str = "text/event-stream"
    answer_type: str = "application/json"
    dialect: str = ""
    """The dialect that these bytes are in; empty: the family's own format."""
    model: str = "model-1"
    secret: str = "secret-of-the-suite-0123456789"  # noqa: S105 - it opens nothing
    """The upstream's credential; empty for families that have none."""
    base_url: str = "http://upstream.test/base"
    options: Mapping[str, Any] = field(default_factory=dict)
    """The upstream's options."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers of its answers."""
