"""Decoders of streamed `openai-responses` answers.

Complete is what has its `response.completed` or `response.incomplete`; nothing else tells a finished answer from a
broken connection. Tolerated, because hosts do it: no `event` lines, `[DONE]` or anything else after the end, events of
kinds that nobody knows. An `error` event is believed only when the stream ends or fails, because `response.failed`
usually follows and says the same better.
"""

from __future__ import annotations

from relay import Secret
from relay.errors import UpstreamError, UpstreamProtocol
from relay.events import Event, Failure, MessageStop
from relay.kit import SseDecoder, loads
from relay_openai.responses.fault import failed
from relay_openai.responses.reader import Reader

__all__ = ["ResponsesDecoder"]

_OPENING = frozenset(("response.created", "response.queued", "response.in_progress"))
_CLOSING = frozenset(("response.completed", "response.incomplete", "response.done"))


class ResponsesDecoder:
    """A `StreamDecoder` for server-sent events of an answer. `fill` as for `Reader`."""

    __slots__ = ("_error", "_frames", "_over", "_reader", "_secret")

    def __init__(self, *, secret: Secret | None = None, fill: bool = True) -> None:
        self._frames = SseDecoder()
        self._reader = Reader(fill=fill)
        self._over = False
        self._error: UpstreamError | None = None
        self._secret = secret

    def feed(self, data: bytes, /) -> list[Event]:
        """Events that `data` completes."""
        if self._over:
            return []
        out: list[Event] = []
        try:
            frames = self._frames.feed(data)
        except UpstreamProtocol as error:
            self._fail(error, out)
            return out
        for name, payload in frames:
            if not self._event(name, payload, out):
                break
        return out

    def close(self) -> list[Event]:
        """The end of the bytes: a failure, unless the last event completes the answer."""
        out: list[Event] = []
        if self._over:
            return out
        for name, payload in self._frames.flush():
            self._event(name, payload, out, last=True)
        if not self._over:
            cut = UpstreamProtocol("the upstream's stream ended before the answer was complete")
            self._fail(self._error or cut, out)
        return out

    def _event(self, name: str, payload: bytes, out: list[Event], *, last: bool = False) -> bool:
        """Read one event; whether the stream goes on after it."""
        try:
            event = loads(payload)
        except ValueError:
            text = payload.strip()
            if not text or text == b"[DONE]" or last:
                # The last event of a broken connection is often half of one: that is a cut, told as such by `close`.
                return True
            return self._fail(UpstreamProtocol("an event of the upstream's stream is not JSON"), out)
        if type(event) is not dict:
            return True
        kind = event.get("type")
        if type(kind) is not str:
            kind = name
        if kind in _OPENING:
            self._reader.start(event.get("response"), out)
        elif kind in _CLOSING:
            return self._finish(event.get("response"), out)
        elif kind == "response.failed":
            response = event.get("response")
            if isinstance(response, dict):
                self._reader.count(response, out)
            return self._fail(self._failed(event, payload), out)
        elif kind == "error" or (event.get("error") and not kind.startswith("response.")):
            self._error = failed(event, payload, self._secret)
        else:
            self._reader.read(kind, event, out)
        return True

    def _failed(self, event: dict[str, object], payload: bytes) -> UpstreamError:
        response = event.get("response")
        silent = not (isinstance(response, dict) and response.get("error"))
        return self._error if self._error is not None and silent else failed(event, payload, self._secret)

    def _finish(self, response: object, out: list[Event]) -> bool:
        if not isinstance(response, dict):
            return self._fail(UpstreamProtocol("the upstream's stream ended with an event that has no response"), out)
        self._over = True
        self._reader.finish(response, out)
        out.append(MessageStop())
        return False

    def _fail(self, error: UpstreamError, out: list[Event]) -> bool:
        self._over = True
        out.append(Failure(error))
        return False
