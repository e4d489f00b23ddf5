"""What gets lost in translation, on the way there and on the way back: found, told once, weighed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from relay.events import ChoiceStop, Event, Logprobs, PartExtra, PartStart
from relay.ir import (
    Capacity,
    Citation,
    EmbeddingRequest,
    Extra,
    Loss,
    LossKind,
    Media,
    Opaque,
    Refusal,
    Request,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    everything,
)
from relay.outlet import safe_header

__all__ = [
    "ANSWER_LOSSES",
    "FOREIGN_LOSSES",
    "HARMLESS",
    "HINTS",
    "UNHEARD",
    "Losses",
    "answer_losses",
    "asked_for",
    "declared_answer_losses",
    "dropped",
    "foreign_fields",
    "last_words",
]


class Losses:
    """Reports what cannot be carried into the list that the relay handed over, each fact once."""

    __slots__ = ("_list", "_seen")

    def __init__(self, losses: list[Loss]) -> None:
        self._list = losses
        self._seen = set(losses)

    def add(self, kind: LossKind, /, **facts: object) -> None:
        """Report a loss of this kind, unless the same was reported already."""
        self.take(kind.at(**facts))

    def take(self, loss: Loss) -> None:
        """Report a loss that somebody else has found."""
        if loss not in self._seen:
            self._seen.add(loss)
            self._list.append(loss)


# Requests: fields that only the caller's own vendor knows.

_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "logit_bias": ({},),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "truncation": ("disabled",),
    "verbosity": ("medium",),
}
"""Values that ask for nothing more than what every upstream does anyway."""

HARMLESS: Mapping[str, str] = {
    "background": "the relay answers while the caller waits",
    "client_metadata": "labels for the vendor's own records",
    "include": "asks for more detail in the answer, which stays as complete as the target makes it",
    "metadata": "labels for the vendor's own dashboard",
    "prompt_cache_key": "a hint for routing inside the vendor",
    "prompt_cache_retention": "a hint for the vendor's own cache",
    "prompt_cache_options": "a hint for the vendor's own cache",
    "safety_identifier": "identifies the end user to the vendor only",
    "store": "whether the vendor keeps a copy",
    "stream_options": "the relay itself reports usage and padding as the caller asked",
    "type": "names the kind of message where requests travel over a WebSocket",
    "user": "identifies the end user; travels as the request's `user`",
}
"""Vendor fields that change nothing in the answer, each with the reason: leaving them out is no loss."""

HINTS: Mapping[str, str] = {
    "context_management": "has the vendor clear away old tool results, which other models then read once more",
    "prediction": "makes an answer that is mostly known beforehand come faster",
    "safeguards": "has the vendor look at the answer a second time",
    "service_tier": "how fast the vendor is to answer, and at what price",
    "speed": "how fast the vendor is to answer",
    "thinking": "how reasoning is shown while it goes on; that the model reasons, and how much, travels separately",
    "tools[].format": "the grammar of a tool's input, of which the model is told in words",
    "verbosity": "how long answers should be",
}
"""Vendor fields that shape how an answer comes about and not what was asked, each with its meaning."""

FOREIGN_FIELD = LossKind(
    "foreign.field",
    "{name}",
    "the target has no equivalent of this {dialect} field",
    "a field that only the caller's own vendor knows, with a value that asks for something",
)
FOREIGN_HINT = LossKind(
    "foreign.hint",
    "{name}",
    "the target has no equivalent of this {dialect} field",
    "the same, where it is one of " + ", ".join(f"`{name}`" for name in HINTS),
    hint=True,
)
FOREIGN_LOSSES = (FOREIGN_FIELD, FOREIGN_HINT)
"""What `foreign_fields` reports: every family that asks it declares these."""

_PLACES = re.compile(r"\[\d+\]")


def foreign_fields(request: Request | EmbeddingRequest, own: str) -> list[Loss]:
    """A loss for each field of another dialect that a family of dialect `own` has no way to send.

    Fields that change nothing in the answer (`HARMLESS`) and values that ask for nothing are left out. An empty object
    is no such value: in several vendors' words it switches a feature on with its defaults.
    """
    losses = []
    for dialect, fields in (request.extra or {}).items():
        if dialect == own:
            continue
        for name, value in fields.items():
            idle = value is None or value is False or value == [] or value in _NEUTRAL.get(name, ())
            if name not in HARMLESS and not idle:
                kind = FOREIGN_HINT if _PLACES.sub("[]", name) in HINTS else FOREIGN_FIELD
                losses.append(kind.at(name=name, dialect=dialect))
    return losses


def asked_for(request: Request) -> Iterator[str]:
    """The names of all that a request asks for beside its conversation, for families that send little of it."""
    for name in ("tools", "tool_choice", "output", "reasoning"):
        if getattr(request, name):
            yield name
    for field in dataclasses.fields(request.sampling):
        value = getattr(request.sampling, field.name)
        if value is not None and (field.name, value) != ("choices", 1):
            yield field.name
    for loss in foreign_fields(request, ""):
        yield loss.field


UNHEARD = LossKind(
    "unheard", "{name}", "nothing but the last words is carried", "anything but the text of the last turn is there"
)
"""What `last_words` reports: every family that asks it declares this."""


def last_words(request: Request, losses: list[Loss]) -> str:
    """The text of the last turn, for families that carry nothing else. All else that was asked for is a loss."""
    found = Losses(losses)
    last = len(request.messages) - 1
    for number, message in enumerate(request.messages):
        if number < last:
            found.add(UNHEARD, name=f"messages[{number}]")
            continue
        if any(not isinstance(part, Text) for part in message.parts):
            found.add(UNHEARD, name=f"messages[{number}].content")
        if message.name is not None:
            found.add(UNHEARD, name=f"messages[{number}].name")
    for name in asked_for(request):
        found.add(UNHEARD, name=name)
    return request.messages[last].text


# Answers: what the caller's dialect has no room for.

CHOICES = LossKind("answer.choices", "choices", "this dialect has one choice", "the upstream gave several choices")
LOGPROBS = LossKind("answer.logprobs", "logprobs", "this dialect has no token probabilities", "the upstream gave them")
THINKING = LossKind(
    "answer.thinking", "reasoning", "this dialect has no place for it", "the model told what it thought", hint=True
)
CITATIONS = LossKind(
    "answer.citations", "citations", "this dialect has no form for them", "the answer cites what has no form there"
)
SERVER_TOOLS = LossKind(
    "answer.server_tools",
    "server tools",
    "calls that the upstream's own tools answered are not shown: clients would run them again",
    "the upstream ran tools of its own",
)
BLOCKS = LossKind(
    "answer.blocks",
    "blocks",
    "only clients of {dialect} know them",
    "the answer holds blocks that only the upstream's own format knows",
)
MEDIA = LossKind("answer.media", "media", "this dialect has no form for this {kind}", "the model made such media")
REFUSAL = LossKind(
    "answer.refusal", "refusal", "its words are told as text", "the model declined in a part made for that", hint=True
)
STOP = LossKind(
    "answer.stop",
    "stop reason",
    "this dialect has no word for {word!r}: the answer looks complete",
    "the model stopped for a reason without a word in the dialect",
)
SEQUENCE = LossKind(
    "answer.sequence",
    "stop sequence",
    "this dialect does not tell which one was met",
    "a stop sequence was met, and the upstream told which",
    hint=True,
)
SIGNATURES = LossKind(
    "answer.signatures",
    "signatures",
    "marks of {dialect} on texts and calls have no place: that vendor will not find them when they come back",
    "the upstream signed a text or a tool call, and the relay keeps nothing for the next turn (`megabytes = 0`)",
)
FIELDS = LossKind(
    "answer.fields",
    "vendor fields",
    "what only {dialect} tells of how an answer ended is not shown",
    "the upstream tells more of the end than a reason: details of a refusal, ratings, sources",
    hint=True,
)
ANSWER_LOSSES: tuple[LossKind, ...] = (
    CHOICES,
    LOGPROBS,
    THINKING,
    CITATIONS,
    SERVER_TOOLS,
    BLOCKS,
    MEDIA,
    REFUSAL,
    STOP,
    SEQUENCE,
    SIGNATURES,
    FIELDS,
)
"""What `answer_losses` reports."""


def declared_answer_losses(capacity: Capacity) -> list[LossKind]:
    """The losses of answers that a dialect of this capacity can make."""
    possible = {
        CHOICES: not capacity.choices,
        LOGPROBS: not capacity.logprobs,
        THINKING: not capacity.thinking,
        CITATIONS: capacity.citation is not everything,
        SERVER_TOOLS: capacity.server_call is not everything,
        BLOCKS: True,
        MEDIA: capacity.media is not everything,
        REFUSAL: not capacity.refusal,
        STOP: len(capacity.stops) < len(Capacity().stops),
        SEQUENCE: not capacity.sequence,
        SIGNATURES: True,
        FIELDS: True,
    }
    return [kind for kind in ANSWER_LOSSES if possible[kind]]


def answer_losses(events: Iterable[Event], dialect: str, capacity: Capacity, *, remembered: bool = False) -> list[Loss]:
    """What of the answer that `events` tell of, or begin to tell of, does not reach a client of `dialect`.

    `remembered`: the relay itself keeps the marks on texts and calls, and puts them back when these return.
    """
    found: list[Loss] = []
    look = _Look(Losses(found), dialect, capacity, remembered)
    for event in events:
        see = _SEE.get(type(event))
        if see is not None:
            see(look, event)
    return found


class _Look:
    """One look at an answer."""

    def __init__(self, losses: Losses, dialect: str, capacity: Capacity, remembered: bool) -> None:
        self._losses = losses
        self._dialect = dialect
        self._room = capacity
        self._remembered = remembered

    def signed(self, extra: Extra | None) -> None:
        """Whether another vendor signed a part in a way that has no place here."""
        if self._remembered:
            return
        for dialect, values in (extra or {}).items():
            homeless = dialect != self._dialect and dialect not in self._room.signatures
            if homeless and any("signature" in name.lower() for name in values):
                self._losses.add(SIGNATURES, dialect=dialect)

    def part(self, event: PartStart) -> None:
        if event.choice and not self._room.choices:
            self._losses.add(CHOICES)
            return
        part = event.part
        see = _PARTS.get(type(part))
        if see is not None:
            see(self, part)

    def text(self, part: Text) -> None:
        self.signed(part.extra)
        for citation in part.citations or ():
            self.citation(citation)

    def citation(self, citation: Citation) -> None:
        if not self._room.citation(citation):
            self._losses.add(CITATIONS)

    def thinking(self, part: Thinking) -> None:
        if not self._room.thinking:
            self._losses.add(THINKING)

    def refusal(self, part: Refusal) -> None:
        if not self._room.refusal:
            self._losses.add(REFUSAL)

    def call(self, part: ToolCall) -> None:
        if part.server:
            if not self._room.server_call(part):
                self._losses.add(SERVER_TOOLS)
            return
        self.signed(part.extra)

    def result(self, part: ToolResult) -> None:
        self._losses.add(SERVER_TOOLS)

    def media(self, part: Media) -> None:
        if not self._room.media(part):
            self._losses.add(MEDIA, kind=part.kind)

    def block(self, part: Opaque) -> None:
        if part.dialect != self._dialect:
            self._losses.add(BLOCKS, dialect=part.dialect)

    def late(self, event: PartExtra) -> None:
        if event.citation is not None:
            self.citation(event.citation)

    def logprobs(self, event: Logprobs) -> None:
        if event.content and not self._room.logprobs:
            self._losses.add(LOGPROBS)

    def stop(self, event: ChoiceStop) -> None:
        if event.choice and not self._room.choices:
            return
        if event.stop.kind not in self._room.stops and event.stop.raw not in self._room.words:
            self._losses.add(STOP, word=event.stop.raw or event.stop.kind)
        if event.stop.sequence is not None and not self._room.sequence:
            self._losses.add(SEQUENCE)
        for dialect, values in (event.extra or {}).items():
            if dialect != self._dialect and values:
                self._losses.add(FIELDS, dialect=dialect)


_PARTS: Mapping[type[Any], Callable[[_Look, Any], None]] = {
    Text: _Look.text,
    Thinking: _Look.thinking,
    Refusal: _Look.refusal,
    ToolCall: _Look.call,
    ToolResult: _Look.result,
    Media: _Look.media,
    Opaque: _Look.block,
}
"""Reasoning is not in it: every dialect shows its text, and gives back the rest as its vendor needs it."""

_SEE: Mapping[type[Any], Callable[[_Look, Any], None]] = {
    PartStart: _Look.part,
    PartExtra: _Look.late,
    Logprobs: _Look.logprobs,
    ChoiceStop: _Look.stop,
}


def dropped(losses: Iterable[Loss]) -> str:
    """What got lost, as a header value."""
    return safe_header(", ".join(dict.fromkeys(loss.field for loss in losses)))[:1000]
