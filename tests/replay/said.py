"""What an answer says, whatever the format: the common ground on which a recording and a client's view are compared."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

FRAME = re.compile(rb"\r?\n\r?\n")

Finish = Literal["stop", "length", "tool_calls", "content_filter", "error", "other"]
"""Why an answer ended."""


@dataclass
class Said:
    """One answer."""

    text: str = ""
    reasoning: str = ""
    refusal: str | None = ""
    """None: it is refused, and the recording has no words for it."""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    """Names and parsed arguments; text where the arguments are not JSON."""
    finish: str | None = None
    """In a recording one of `Finish`, in a client's view that dialect's own word."""
    pages: list[tuple[str, str]] = field(default_factory=list)
    """Addresses that are cited, each with the words that rest on it; empty where nobody says which."""
    marks: list[tuple[str, Any, Any]] = field(default_factory=list)
    """The same where words are told by their place in the whole text: where they begin, and where they end."""
    beside: Counter[str] = field(default_factory=Counter)
    """What else there is, counted: `citations`, `server_tools`, `media`, `logprobs`, and `unreadable` for what
    no SDK takes: media of which the recorder kept a part, enumerations in numbers."""

    def cited(self) -> list[tuple[str, str]]:
        """All pages with their words."""
        return [*self.pages, *((url, words(self.text, start, end)) for url, start, end in self.marks)]


def words(text: str, start: Any, end: Any) -> str:
    """A part of a text; none where no sensible one is named."""
    return text[start:end] if type(start) is int and type(end) is int and 0 <= start < end else ""


@dataclass
class Counted:
    """Tokens; None: it is not said."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None


@dataclass
class Reading:
    """Everything that must come out at the other end."""

    choices: dict[int, Said] = field(default_factory=dict)
    counted: Counted = field(default_factory=Counted)


def arguments(text: str) -> Any:
    """Tool arguments as a value; the text itself where they are not JSON."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def frames(body: bytes) -> list[tuple[str, bytes]]:
    """The events of a stream with their names, also the one without a blank line behind it."""
    found = []
    for block in FRAME.split(body):
        lines = block.decode().splitlines()
        data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
        name = [line[6:].strip() for line in lines if line.startswith("event:")]
        if data:
            found.append((name[-1] if name else "", "\n".join(data).encode()))
    return found


def objects(body: bytes) -> list[dict[str, Any]]:
    """The events of a stream that are JSON objects."""
    found = []
    for _, data in frames(body):
        try:
            value = json.loads(data)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def is_base64(text: str) -> bool:
    """Whether this can be decoded. Recorders shorten what is long."""
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def words_of(body: bytes) -> str:
    """The reason in an error answer, wherever its host puts it; the innermost one where a gateway wraps it."""
    try:
        value = json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return str(value)
    if isinstance(inner := value.get("response"), dict):
        value = inner
    error = value.get("error") or value
    if isinstance(error, str):
        return error
    message = error.get("message") or error.get("detail")
    raw = (error.get("metadata") or {}).get("raw")
    if message == "Provider returned error" and raw:
        try:
            return words_of(raw.encode())
        except ValueError:
            return str(raw)
    return message if isinstance(message, str) else ""


def status_in(error: Any) -> int | None:
    """The HTTP status that an error inside of an answer names, if it does."""
    if isinstance(error, dict):
        for name in ("status_code", "code", "status"):
            value = error.get(name)
            if type(value) is int and 400 <= value < 600:
                return value
    return None
