"""Reasoning that clients drop, kept for the next turn.

Some models will not go on from a tool's result unless their own reasoning comes back with it, signed or word for word;
some sign what they said as well. Many clients have no place for that, or throw it away. So what a model thought before
it called a tool is kept by the id of that call, which every client sends back, and the marks on what it said by the
words themselves. On the next turn both are put where they were.

They go back to the upstream that they came from and to nobody else, only for the key under which they came, and only
where they are missing: what a client sends itself is never replaced, and nothing is ever made up. Sans-IO.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from relay.ir import Extra, Message, Part, Request, Response, Text, Thinking, ToolCall, ToolResult
from relay.kit import dumps, loads
from relay.shelf import Look, Shelf
from relay.store.keys import Key

__all__ = ["Memory", "Thought", "place_of"]

TELLING = 8
"""Letters and digits of a call's id, beside the tool's name, that make it one of its kind."""
DISTINCT = 80
"""Characters of an answer that no other answer has."""
SHORT = 256
"""Characters of an id and a name that are remembered: callers choose them."""
_WORDS = re.compile(r"call|tool|func(?:tion)?s?|use|id", re.IGNORECASE)
_FORM = 1


class Thought:
    """What preceded one call of a tool, and what its own format says of that call."""

    __slots__ = ("extra", "thoughts")

    def __init__(self, thoughts: Sequence[Thinking], extra: Extra | None) -> None:
        self.thoughts = tuple(thoughts)
        self.extra = extra

    def written(self) -> bytes:
        """As it is kept."""
        return dumps({"form": _FORM, "thoughts": [_fields(one) for one in self.thoughts], "extra": self.extra})

    @classmethod
    def read(cls, document: bytes) -> Thought | None:
        """What `written` gave; None if a version of the relay that is not this one wrote it otherwise."""
        value = loads(document)
        if value.get("form") != _FORM:
            return None
        return cls([Thinking(**fields) for fields in value["thoughts"]], value["extra"])


class Memory:
    """What one upstream's models thought and signed, for one key at a time. `owner`s are keys."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    def keep(self, key: Key, upstream: str, response: Response, before: Message | None) -> None:
        """Remember what a complete answer thought before it called tools, and how it signed its words.

        `before` is the message that it answers: it tells conversations apart where ids and words do not.
        """
        for choice in response.choices:
            thoughts: list[Thinking] = []
            for part in choice.parts:
                if isinstance(part, Thinking):
                    thoughts.append(part)
                elif isinstance(part, ToolCall) and not part.server and part.id:
                    # They stand before the first of several calls.
                    place = place_of(part, before)
                    if thoughts or part.extra:
                        self.shelf.put(key, upstream, place, Thought(thoughts, part.extra).written())
                    else:
                        self.shelf.nothing(key, upstream, place)
                    thoughts = []
            pieces = [(len(part.text), part.extra) for part in choice.parts if isinstance(part, Text)]
            if any(_signed(extra) for _, extra in pieces):
                document = dumps({"form": _FORM, "pieces": [list(piece) for piece in pieces]})
                self.shelf.put(key, upstream, _said(choice.text, before), document)

    def recall(self, look: Look, upstream: str, place: str) -> Thought | None:
        """What preceded the call of that place, if it is known."""
        document = look.get(self.shelf, upstream, place)
        return None if document is None else Thought.read(document)

    def restored(self, look: Look, upstream: str, request: Request, *, signs: bool = False) -> Request:
        """The request with the reasoning that is missing from it; the very same object if there is none.

        `signs`: the upstream's models sign their words as well.
        """
        messages = list(request.messages)
        for index, message in enumerate(messages):
            if message.role == "assistant":
                before = messages[index - 1] if index else None
                new = self._message(look, upstream, message, before)
                messages[index] = self._marked(look, upstream, new, before) if signs else new
        if all(new is old for new, old in zip(messages, request.messages, strict=True)):
            return request
        return replace(request, messages=messages)

    def _message(self, look: Look, upstream: str, message: Message, before: Message | None) -> Message:
        parts: list[Part] = []
        changed = False
        for part in message.parts:
            if isinstance(part, ToolCall) and not part.server:
                known = self.recall(look, upstream, place_of(part, before))
                if known is not None:
                    missing = _missing(message.parts, known.thoughts)
                    if missing:
                        # In front of everything: that is where models think.
                        parts[:0] = missing
                        changed = True
                    if part.extra is None and known.extra is not None:
                        part = replace(part, extra=known.extra)
                        changed = True
            parts.append(part)
        return replace(message, parts=parts) if changed else message

    def _marked(self, look: Look, upstream: str, message: Message, before: Message | None) -> Message:
        """The message with the marks on its words."""
        if any(_signed(part.extra) for part in message.parts if isinstance(part, Text)):
            return message
        document = look.get(self.shelf, upstream, _said(message.text, before))
        value = None if document is None else loads(document)
        if value is None or value.get("form") != _FORM:
            return message
        return replace(message, parts=_divided(message.parts, [(length, extra) for length, extra in value["pieces"]]))


def place_of(call: ToolCall, before: Message | None) -> str:
    """The name under which is kept what belongs to a call.

    Its id alone, if there is but one of that; some hosts only number their calls, so that another conversation has the
    same ids: then the call itself and what it answers tell them apart.
    """
    if (_tells if len(call.id) + len(call.name) <= SHORT else _tells.__wrapped__)(call.id, call.name):
        return f"call {call.id}"
    try:
        arguments: Any = loads(call.arguments)
    except ValueError:
        arguments = call.arguments
    return f"call {call.id} {_digest([call.name, _sorted(arguments), *_content(before)])}"


@lru_cache(maxsize=4096)
def _tells(name: str, tool: str) -> bool:
    """Whether there is but one call of that id. Agents send the same ones with every turn."""
    rest = _WORDS.sub("", name.replace(tool, ""))
    return sum(character.isalnum() for character in rest) >= TELLING


def _said(text: str, before: Message | None) -> str:
    """The name under which the marks on a turn's words are kept: the words, and what they answer if they are few."""
    return f"text {_digest([text, *(_content(before) if len(text) < DISTINCT else ())])}"


def _content(message: Message | None) -> Iterator[Any]:
    """What a message says, as far as clients send the same again."""
    for part in () if message is None else message.parts:
        if isinstance(part, Text):
            yield part.text
        elif isinstance(part, ToolResult):
            yield [part.call_id, [inner.text for inner in part.parts if isinstance(inner, Text)]]


def _digest(values: list[Any]) -> str:
    return hashlib.sha256(dumps(values)).hexdigest()[:32]


def _sorted(value: Any) -> Any:
    """JSON in one order: clients may write arguments anew."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def _fields(thought: Thinking) -> dict[str, Any]:
    names = ("text", "signature", "redacted", "dialect", "extra")
    return {name: value for name in names if (value := getattr(thought, name)) or name == "text"}


def _signed(extra: Extra | None) -> bool:
    return any("signature" in name.lower() for fields in (extra or {}).values() for name in fields)


def _missing(parts: Sequence[Part], thoughts: tuple[Thinking, ...]) -> tuple[Thinking, ...]:
    """The thoughts, unless the message has some of the same origin."""
    origins = {part.dialect for part in parts if isinstance(part, Thinking)}
    return () if any(thought.dialect in origins for thought in thoughts) else thoughts


def _divided(parts: Sequence[Part], pieces: list[tuple[int, Extra | None]]) -> list[Part]:
    """The parts with their text cut into these pieces, each with its marks. A piece that goes on in another part has
    them where it ends."""
    found: list[Part] = []
    for part in parts:
        if not isinstance(part, Text):
            found.append(part)
            continue
        rest = part.text
        while pieces and (rest or not pieces[0][0]):
            length, extra = pieces.pop(0)
            taken, rest = rest[:length], rest[length:]
            if len(taken) < length:
                pieces.insert(0, (length - len(taken), extra))
                extra = None
            first = len(rest) + len(taken) == len(part.text)
            found.append(
                replace(
                    part,
                    text=taken,
                    citations=part.citations if first else None,
                    cache=None if rest else part.cache,
                    extra=extra or part.extra,
                )
            )
    return [*found, *(Text("", extra=extra) for length, extra in pieces if not length)]
