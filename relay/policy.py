"""Policies for whole calls: who may answer one before any upstream is asked, or refuse it.

A policy comes after everything that a call has to pass (its key, its rights, its limits) and before the first target.
It sees the question, and may have it asked, give an answer that it has, or raise a `RelayError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from relay.dialect import Head
    from relay.family import Target
    from relay.ir import StopKind
    from relay.pricing import Price

__all__ = ["Asking", "CallPolicy", "Given", "Question", "Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where an answer comes from, or would come from now."""

    target: Target
    plugin: str
    """Whose code makes the request and reads the answer, with its version or its file."""
    price: Price | None
    """What it costs there; None: nobody knows."""


@dataclass(frozen=True, slots=True)
class Question:
    """A call that may be made, and of which nobody has been asked anything yet."""

    key: int
    """The key's number, which no other key ever has."""
    key_name: str
    strict: bool
    """Whether the key is refused what a target cannot carry."""
    model: str
    """The model, as it was resolved and allowed."""
    dialect: str
    head: Head
    plugin: str
    """Whose code reads and writes the dialect, with its version or its file."""
    repeatable: bool
    """Whether the answer depends on nothing but what the request says, and nobody can refer to it later."""
    wishes: str
    """What the client's `Cache-Control` says."""
    sources: Sequence[Source]
    """The targets one of which would be asked first now."""


@dataclass(frozen=True, slots=True)
class Given:
    """A complete answer, as its client got it."""

    headers: Mapping[str, str]
    """What is said of the answer itself, and not of one call."""
    content_type: str
    stream: bool
    body: bytes
    source: Source
    stops: Sequence[StopKind]
    """Why each choice ended; empty for vectors."""
    tools: Literal["valid", "invalid"] | None = None
    """The verdict on the arguments of its tool calls, if they were checked."""


class Asking(Protocol):
    """How a policy has the question asked."""

    awaited: bool
    """Whether somebody waits for the answer beside the client. Then it is read to its end even if the client goes."""

    asked: bool
    """Whether it was."""
    ended: BaseException | None
    """What the asking has ended with, if not well."""

    async def ask(self, headers: Mapping[str, str]) -> Given | None:
        """Bring the answer to the client, with these headers as well. Once at most.

        Gives the answer if it is complete and there was room to record it. Raises what ends the call otherwise.
        """
        ...


class CallPolicy(Protocol):
    """What the hook `on_call` gives. `wants` is asked for every call, so it looks something up and does no more."""

    room: int
    """Bytes that may be recorded at a time, of all answers that are under way."""
    largest: int
    """Bytes of one answer beyond which it is not recorded."""

    def wants(self, key_name: str, model: str) -> bool:
        """Whether calls of this key for this model are any of its business. The others cost nothing."""
        ...

    async def on_call(self, question: Question, asking: Asking) -> Given | None:
        """An answer that is given instead of asking. None: it has asked, or has nothing to say.

        Raises a RelayError to refuse the call.
        """
        ...
