"""What it takes to count an answer or a chunk of one: its text, why it stopped, and what was used.

Nearly all answers and chunks of all hosts fit the shapes below: what does not count is passed over then without being
made into objects. Any other does not fit, and is read as a whole.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder

from relay.ir import Usage
from relay.kit import MAX_TOKENS

__all__ = ["Counted", "counted", "counted_answer"]

Nothing = None | Literal[""] | Annotated[list[Any], Meta(max_length=0)] | Annotated[dict[str, Any], Meta(max_length=0)]
"""A field that has nothing to say."""
Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]


class Inside(Struct, gc=False):
    """Parts of the prompt."""

    cached_tokens: Count | None = None
    audio_tokens: Count | None = None
    cache_write_tokens: Count | None = None


class Outside(Struct, gc=False):
    """Parts of the completion."""

    reasoning_tokens: Count | None = None
    audio_tokens: Count | None = None


class Used(Struct, gc=False):
    """Token counts in their usual places. The others, where some hosts have them, are empty."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: Inside | None = None
    completion_tokens_details: Outside | None = None
    cached_tokens: None = None
    reasoning_tokens: None = None
    prompt_cache_hit_tokens: None = None
    cache_read_input_tokens: None = None
    cache_creation_input_tokens: None = None
    cache_creation: None = None

    def usage(self) -> Usage | None:
        """The hub's usage, without the host's own object; None if it does not add up, for which there are reasons."""
        if self.total_tokens != self.prompt_tokens + self.completion_tokens:
            return None
        usage = Usage(self.prompt_tokens, self.completion_tokens)
        inside, outside = self.prompt_tokens_details, self.completion_tokens_details
        if inside is not None:
            usage.cache_read = inside.cached_tokens
            usage.audio_in = inside.audio_tokens
            usage.cache_write_5m = inside.cache_write_tokens
        if outside is not None:
            usage.reasoning = outside.reasoning_tokens
            usage.audio_out = outside.audio_tokens
        return usage


class CountedDelta(Struct, gc=False):
    """A delta with text, or with nothing."""

    content: str | None = None
    refusal: Nothing = None
    tool_calls: Nothing = None
    function_call: Nothing = None
    reasoning_content: Nothing = None
    reasoning: Nothing = None
    reasoning_details: Nothing = None
    annotations: Nothing = None
    images: Nothing = None
    audio: Nothing = None


class CountedChoice(Struct, gc=False):
    """A choice of such a chunk."""

    index: int
    delta: CountedDelta | None = None
    finish_reason: str | None = None
    logprobs: Nothing = None


class Counted(Struct, gc=False):
    """A chunk of at most one choice. Of some hosts the last three fields hold counts and faults."""

    choices: Annotated[list[CountedChoice], Meta(max_length=1)]
    usage: Used | None = None
    x_groq: None = None
    error: None = None
    base_resp: None = None


class Anything(Struct, gc=False):
    """An object of any kind."""


class CountedAnswer(Struct, gc=False):
    """A complete answer."""

    choices: Annotated[list[Anything], Meta(min_length=1)]
    usage: Used
    error: None = None


_chunk = Decoder(Counted).decode
_answer = Decoder(CountedAnswer).decode
_UNFIT = (DecodeError, ValueError, RecursionError)


def counted(payload: bytes) -> Counted | None:
    """The chunk, if there is nothing in it but what is counted; None for any other."""
    try:
        return _chunk(payload)
    except _UNFIT:
        return None


def counted_answer(body: bytes) -> Usage | None:
    """What a complete answer used; None for one that is to be read."""
    try:
        return _answer(body).usage.usage()
    except _UNFIT:
        return None
