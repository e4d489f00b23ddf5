"""Answers for `openai-completions` clients: whole, and as the frames of a stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay.errors import RelayError
from relay.events import (
    ChoiceStop,
    Event,
    Failure,
    Logprobs,
    MessageStart,
    MessageStop,
    PartStart,
    PartStop,
    TextDelta,
    UsageSeen,
)
from relay.ir import Choice, Response, Usage
from relay.kit import dumps
from relay_openai.completions.wire import FINISHES, TEXTS, Scores
from relay_openai.encoder import error_body
from relay_openai.usage import encode_usage

__all__ = ["CompletionsEncoder", "encode_response"]

_DONE = b"data: [DONE]\n\n"


def encode_response(response: Response, *, model: str, created: int, new_id: str) -> bytes:
    """`response` as a `text_completion`. `model`, `created` and `new_id` stand in where the upstream gave none."""
    body: dict[str, Any] = {
        "id": response.id or new_id,
        "object": "text_completion",
        "created": response.created if response.created is not None else created,
        "model": response.model or model,
        "choices": [_choice(number, choice) for number, choice in enumerate(response.choices)],
    }
    usage = encode_usage(response.usage) if response.usage else None
    if usage:
        body["usage"] = usage
    return dumps(body)


def _choice(number: int, choice: Choice) -> dict[str, Any]:
    return {
        "text": "".join(part.text for part in choice.parts if isinstance(part, TEXTS)),
        "index": number,
        "logprobs": Scores().encode(choice.logprobs) if choice.logprobs else None,
        "finish_reason": FINISHES[choice.stop.kind] if choice.stop else None,
    }


class CompletionsEncoder:
    """A `StreamEncoder` for server-sent `text_completion` events.

    `model`, `created` and `new_id` stand in where the upstream gave none; with `usage` the stream ends with the chunk
    that counts tokens, as callers ask for by `stream_options.include_usage`.
    """

    __slots__ = (
        "_created",
        "_end",
        "_heads",
        "_model",
        "_new_id",
        "_out",
        "_over",
        "_prefix",
        "_scores",
        "_seen",
        "_wants_usage",
    )

    def __init__(self, *, model: str, created: int, new_id: str, usage: bool) -> None:
        self._model = model
        self._created = created
        self._new_id = new_id
        self._wants_usage = usage
        self._end = b',"usage":null}\n\n' if usage else b"}\n\n"
        self._prefix = b""
        self._heads: dict[int, tuple[bytes, bytes]] = {}
        """What a text's frames have before and behind it, by part."""
        self._scores: dict[int, Scores] = {}
        self._seen: Usage | None = None
        self._over = False
        self._out: list[bytes] = []

    def encode(self, events: list[Event], /) -> bytes:
        """The frames for these events. Nothing follows a failure or the end."""
        out = self._out = []
        for event in events:
            write = _WRITE.get(type(event))
            if write is not None and not self._over:
                write(self, event)
        return b"".join(out)

    def failure(self, error: RelayError, /) -> bytes:
        """The error as clients raise it, once. There is no `[DONE]` after it: that would make the answer complete."""
        if self._over:
            return b""
        self._over = True
        return b"data: " + dumps(error_body(error)) + b"\n\n"

    def _start(self, event: MessageStart) -> None:
        if self._prefix:
            return
        fields = {
            "id": event.id or self._new_id,
            "object": "text_completion",
            "created": event.created if event.created is not None else self._created,
            "model": event.model or self._model,
        }
        self._prefix = b"data: " + dumps(fields)[:-1] + b',"choices":['

    def _frame(self, choice: int, text: str = "", logprobs: Any = None, finish: str | None = None) -> None:
        self._start(MessageStart("", ""))
        body = dumps({"text": text, "index": choice, "logprobs": logprobs, "finish_reason": finish})
        self._out.append(self._prefix + body + b"]" + self._end)

    def _part_start(self, event: PartStart) -> None:
        if not isinstance(event.part, TEXTS):
            return
        self._start(MessageStart("", ""))
        tail = b',"index":%d,"logprobs":null,"finish_reason":null}]' % event.choice
        self._heads[event.index] = (self._prefix + b'{"text":', tail + self._end)
        if event.part.text:
            self._frame(event.choice, event.part.text)

    def _text(self, event: TextDelta) -> None:
        around = self._heads.get(event.index)
        if around is not None:
            self._out.append(around[0] + dumps(event.text) + around[1])

    def _part_stop(self, event: PartStop) -> None:
        self._heads.pop(event.index, None)

    def _logprobs(self, event: Logprobs) -> None:
        scores = self._scores.setdefault(event.choice, Scores())
        self._frame(event.choice, logprobs=scores.encode(event.content))

    def _usage(self, event: UsageSeen) -> None:
        self._seen = event.usage

    def _choice_stop(self, event: ChoiceStop) -> None:
        self._frame(event.choice, finish=FINISHES[event.stop.kind])

    def _message_stop(self, event: MessageStop) -> None:
        self._over = True
        usage = encode_usage(self._seen) if self._wants_usage and self._seen else None
        if usage:
            self._start(MessageStart("", ""))
            self._out.append(self._prefix + b'],"usage":' + dumps(usage) + b"}\n\n")
        self._out.append(_DONE)

    def _failure(self, event: Failure) -> None:
        self._out.append(self.failure(event.error))


_WRITE: dict[type[Any], Callable[[CompletionsEncoder, Any], None]] = {
    MessageStart: CompletionsEncoder._start,
    PartStart: CompletionsEncoder._part_start,
    TextDelta: CompletionsEncoder._text,
    PartStop: CompletionsEncoder._part_stop,
    Logprobs: CompletionsEncoder._logprobs,
    UsageSeen: CompletionsEncoder._usage,
    ChoiceStop: CompletionsEncoder._choice_stop,
    MessageStop: CompletionsEncoder._message_stop,
    Failure: CompletionsEncoder._failure,
}
