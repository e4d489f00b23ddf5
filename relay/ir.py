"""The hub: what a conversation is, whatever wire format it came in.

Every dialect parses into these values and every family writes its own format from them, so n dialects and m families
need n + m translators and not n x m. The values are pure data: no I/O, no vendor names, no behaviour beyond small
questions about themselves.

Three rules hold everywhere:

* Nothing is dropped silently. A block the hub does not know travels as `Opaque`; a field it does not know travels in
  `extra`, keyed by the dialect that wrote it and read only by that dialect again.
* `None` means "not said" and is never the same as zero, empty or false.
* Tool-call arguments stay the string that was received. They are parsed for checking, never written again from the
  parsed form, because key order, number spelling and even validity belong to the model that wrote them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = [
    "Cache",
    "Capacity",
    "Choice",
    "Citation",
    "EmbeddingRequest",
    "EmbeddingResponse",
    "Extra",
    "Loss",
    "LossKind",
    "Media",
    "Message",
    "Opaque",
    "Output",
    "Part",
    "Purpose",
    "Reasoning",
    "Refusal",
    "Request",
    "Response",
    "Role",
    "Sampling",
    "StopKind",
    "StopReason",
    "Text",
    "Thinking",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolResult",
    "Usage",
    "everything",
]

Extra: TypeAlias = dict[str, dict[str, Any]]
"""Vendor fields by dialect name: `{"openai-chat": {"logit_bias": {...}}}`."""

Role: TypeAlias = Literal["system", "user", "assistant"]
StopKind: TypeAlias = Literal["stop", "length", "tool_calls", "filter", "error", "other"]
Purpose: TypeAlias = Literal[
    "query",
    "document",
    "similarity",
    "classification",
    "clustering",
    "question",
    "fact",
    "code_query",
]
"""What vectors are for. Models that ask for it make other vectors of a query than of the documents it should find."""


@dataclass(slots=True)
class Cache:
    """A marker: everything up to here may be cached upstream. `ttl` is the vendor's word, `"5m"` or `"1h"`."""

    ttl: str | None = None


@dataclass(slots=True)
class Citation:
    """A source that a text rests on.

    `start` and `end` say for which of its words, in characters of the text that has the citation; None: for all of it.
    `extra` has the object that the vendor wrote, which that dialect writes again as it came.
    """

    url: str | None = None
    title: str | None = None
    """The page's, the document's, or the file's name."""
    quote: str | None = None
    """The words of the source."""
    file_id: str | None = None
    """The source where it is a file of the vendor's."""
    start: int | None = None
    end: int | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class Text:
    """Plain text, and what it rests on."""

    text: str
    citations: list[Citation] | None = None
    cache: Cache | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class Thinking:
    """The model's reasoning. `signature` is the opaque proof that must come back unchanged.

    `redacted` carries reasoning the vendor encrypted (then `text` is empty and `signature` holds the data). It may be
    replayed only to `dialect`, the one that produced it: another vendor would refuse it or, worse, believe it.
    """

    text: str
    signature: str | None = None
    redacted: bool = False
    dialect: str | None = None
    cache: Cache | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class Media:
    """An image, a document, sound or video: exactly one of `data` (base64), `url` and `file_id` is set."""

    kind: Literal["image", "document", "audio", "video"]
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    file_id: str | None = None
    name: str | None = None
    detail: str | None = None
    cache: Cache | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class ToolCall:
    """The model asks for a tool. `server` marks a tool that the upstream runs by itself."""

    id: str
    name: str
    arguments: str
    server: bool = False
    cache: Cache | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class ToolResult:
    """What a tool answered, as parts (text and media). It stands in a `user` message."""

    call_id: str
    parts: list[Part]
    is_error: bool = False
    name: str | None = None
    cache: Cache | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class Refusal:
    """The model declines, in words."""

    text: str
    cache: Cache | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class Opaque:
    """A block the hub does not know. Only `dialect` can write it again; everyone else reports a loss."""

    dialect: str
    data: Any
    cache: Cache | None = None
    extra: Extra | None = None


Part: TypeAlias = Text | Thinking | Media | ToolCall | ToolResult | Refusal | Opaque


@dataclass(slots=True)
class Message:
    """One turn. A system message may stand anywhere; those before the first other turn are the system prompt."""

    role: Role
    parts: list[Part]
    name: str | None = None
    extra: Extra | None = None

    @property
    def text(self) -> str:
        """All plain text of this turn, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(slots=True)
class Tool:
    """A function the model may call. `parameters` is a JSON Schema object, or None for "takes nothing"."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    cache: Cache | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class ToolChoice:
    """Whether the model may, must or must not call tools; with mode `tool`, which one."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str | None = None


@dataclass(slots=True)
class Output:
    """The form the answer must have: free text, any JSON, or JSON of one schema."""

    kind: Literal["text", "json", "schema"]
    schema: dict[str, Any] | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


@dataclass(slots=True)
class Sampling:
    """How the answer is drawn. Units and ranges are the vendors' own; the hub passes numbers on unchanged."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: list[str] | None = None
    seed: int | None = None
    choices: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


@dataclass(slots=True)
class Reasoning:
    """How much the model may think: a word (`effort`), a number of tokens (`budget`), or off (`enabled=False`)."""

    effort: str | None = None
    budget: int | None = None
    enabled: bool | None = None
    summary: str | None = None


@dataclass(slots=True)
class Request:
    """One generation request, complete."""

    model: str
    messages: list[Message]
    tools: list[Tool | Opaque] = field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    output: Output | None = None
    sampling: Sampling = field(default_factory=Sampling)
    reasoning: Reasoning | None = None
    stream: bool = False
    user: str | None = None
    extra: Extra | None = None

    def split_system(self) -> tuple[list[Message], list[Message]]:
        """The leading system messages, and everything from the first other turn on."""
        for index, message in enumerate(self.messages):
            if message.role != "system":
                return self.messages[:index], self.messages[index:]
        return self.messages, []

    def own(self, dialect: str) -> dict[str, Any]:
        """The fields that `dialect` itself put into `extra`; empty if there are none."""
        return (self.extra or {}).get(dialect, {})

    def tool_names(self) -> Iterator[str]:
        """Names of the callable functions, in order."""
        return (tool.name for tool in self.tools if isinstance(tool, Tool))


@dataclass(slots=True)
class Usage:
    """Tokens of one call. None: not reported; 0: reported as zero.

    `input` and `output` are totals. `cache_read`, `cache_write_5m`, `cache_write_1h` and `audio_in` are parts of
    `input`; `reasoning` and `audio_out` are parts of `output`. Vendors that report the parts beside the total (and not
    inside it) are added up by their decoder. `raw` is the vendor's own object, where an answer was read and not just
    counted.
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    audio_in: int | None = None
    audio_out: int | None = None
    raw: dict[str, Any] | None = None


@dataclass(slots=True)
class StopReason:
    """Why the model stopped: one of six kinds everyone understands, and the vendor's own word in `raw`."""

    kind: StopKind
    raw: str | None = None
    sequence: str | None = None


@dataclass(slots=True)
class Choice:
    """One answer. `logprobs` is the list of token objects in the OpenAI shape, which all vendors' map to."""

    parts: list[Part]
    stop: StopReason | None = None
    logprobs: list[Any] | None = None
    extra: Extra | None = None

    @property
    def text(self) -> str:
        """All plain text of this answer, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


@dataclass(slots=True)
class Response:
    """A finished generation: one choice, or several where the caller asked for them."""

    id: str
    model: str
    choices: list[Choice]
    usage: Usage | None = None
    created: int | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class EmbeddingRequest:
    """Texts to be made into vectors. Each input is a text, or a list of tokens by their numbers in the model's own
    vocabulary."""

    model: str
    inputs: list[str | list[int]]
    dimensions: int | None = None
    """Length of the vectors that the caller wants; None: as the model makes them."""
    purpose: Purpose | None = None
    title: str | None = None
    """The title of the document that the inputs are."""
    user: str | None = None
    extra: Extra | None = None


@dataclass(slots=True)
class EmbeddingResponse:
    """One vector for each input, in the order of the inputs."""

    vectors: list[list[float]]
    model: str = ""
    """The model's name as the upstream tells it; empty if it does not."""
    usage: Usage | None = None


@dataclass(slots=True, frozen=True)
class LossKind:
    """A loss that a family or a dialect makes knowingly: declared once, documented from here, reported with `at`.

    `field` and `reason` may hold `{names}` for what is known only when it happens.
    """

    id: str
    """Unique among those of its family or dialect."""
    field: str
    """What gets lost, in the words of the request or of the answer."""
    reason: str
    when: str
    """When it happens, for the documentation."""
    hint: bool = False
    """Whether what matters arrives all the same: the model is told the same, and the answer keeps the form that was
    asked for. Strict keys are not refused for it."""

    def at(self, **facts: object) -> Loss:
        """One such loss."""
        if not facts:
            return Loss(self.field, self.reason, self)
        return Loss(self.field.format(**facts), self.reason.format(**facts), self)


@dataclass(slots=True, frozen=True)
class Loss:
    """Something the target, or the caller's dialect, cannot carry: the field in the caller's words, and why."""

    field: str
    reason: str
    kind: LossKind | None = dataclasses.field(default=None, compare=False, repr=False)
    """The declaration. A loss without one is taken to matter."""

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"

    @property
    def hint(self) -> bool:
        """Whether strict keys let it pass."""
        return self.kind is not None and self.kind.hint


def everything(value: object, /) -> bool:
    """Whether there is room for this: there is."""
    return True


@dataclass(slots=True, frozen=True)
class Capacity:
    """What answers of a dialect have room for. What they have not is lost, and the caller is told."""

    choices: bool = True
    """More than one choice."""
    logprobs: bool = True
    thinking: bool = True
    refusal: bool = True
    """A part for a refusal; where there is none, its words arrive as text."""
    stops: frozenset[StopKind] = frozenset(("stop", "length", "tool_calls", "filter", "error", "other"))
    """Reasons to stop that clients can tell from an answer that is complete."""
    words: frozenset[str] = frozenset()
    """The dialect's own words for reasons to stop, which stay as they are."""
    sequence: bool = True
    """Which of the stop sequences was met."""
    media: Callable[[Media], bool] = everything
    citation: Callable[[Citation], bool] = everything
    server_call: Callable[[ToolCall], bool] = everything
    """A call that the upstream's own tools have answered already."""
    signatures: frozenset[str] = frozenset()
    """Dialects whose marks on text and calls have a place, beside the dialect's own."""
