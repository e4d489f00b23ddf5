"""Answers of hosts that speak `openai-completions`, read for their counts and their end: all of them pass through."""

from __future__ import annotations

from typing import Any

from relay import Secret
from relay.events import Event
from relay.ir import Response
from relay.mould import Mould
from relay.skim import SkimmingMeter
from relay_openai.mould import chunk_mould, places
from relay_openai.reader import Reader
from relay_openai.response import decode_response
from relay_openai.stream import ChatDecoder

__all__ = ["TextReader", "completions_meter", "decode_text"]

_TEXT = places("text")


class TextReader(Reader):
    """Turns `text_completion` objects into events: they are chat's, with a text where that has a delta or a message."""

    __slots__ = ()

    def _choice(self, choice: dict[str, Any], position: int, out: list[Event]) -> None:
        place = "message" if self._whole else "delta"
        super()._choice({**choice, place: {"content": choice.get("text")}}, position, out)


def decode_text(body: dict[str, Any], raw: bytes, secret: Secret | None = None) -> Response:
    """The answer that `body` (parsed from `raw`) holds; errors as `decode_response`."""
    return decode_response(body, raw, secret, TextReader(whole=True))


def completions_meter(decoder: ChatDecoder) -> SkimmingMeter:
    """A meter that decodes what is no plain text."""
    return SkimmingMeter(decoder, _mould)


def _mould(event: bytes) -> Mould | None:
    return chunk_mould(event, _TEXT)
