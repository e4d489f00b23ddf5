"""Decoders of streamed `openai-chat` answers.

Tolerated, because hosts do it: no `[DONE]` (the answer is complete once every choice said why it stopped), two of them,
anything after it, comments, chunks without choices, usage at any place and any number of times, and a `[DONE]` before
every choice has its finish reason if the tokens were counted, which only happens when the answer is complete. Not
tolerated: an end with neither, because nothing else tells a finished answer from a broken connection. A host that
sends neither has the option `finish_reason = false`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay import Secret
from relay.errors import UpstreamError, UpstreamProtocol
from relay.events import Event, Failure, MessageStop, StreamDecoder
from relay.fold import unfold
from relay.ir import Response
from relay.kit import MAX_EVENT, SseDecoder, loads, upstream_json
from relay.meter import Meter
from relay.mould import EVENT_END, Mould
from relay_openai.fault import is_fault, upstream_error
from relay_openai.mould import chunk_mould, lone
from relay_openai.reader import Reader
from relay_openai.response import decode_response

__all__ = ["ChatDecoder", "WholeDecoder"]


_DONE = b"[DONE]"
FRAME = len(b"data: ") + len(EVENT_END)


class ChatDecoder:
    """A `StreamDecoder` for server-sent `chat.completion.chunk` events."""

    __slots__ = ("_frames", "_over", "_reader", "_secret", "_silent")

    def __init__(
        self, *, finish_reason: bool = True, secret: Secret | None = None, reader: Reader | None = None
    ) -> None:
        self._frames = SseDecoder()
        self._reader = reader or Reader()
        self._over = False
        self._silent = not finish_reason
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

    def count(self, data: bytes, meter: Meter, /) -> tuple[int, int, str | None]:
        """Tell a meter what the events of `feed` would: most of them need not be made for that.

        Goes on to the end of the first event with text, or of the first one if those are not plain. Gives where that
        event begins and ends, and its text if that is all there is to it.
        """
        payloads = [] if self._over else self._frames.plain(data)
        if payloads is None:
            end = data.find(EVENT_END) + len(EVENT_END)
            end = end if end >= len(EVENT_END) else len(data)
            meter.add(self.feed(data[:end]))
            return 0, end, None
        reader, place = self._reader, 0
        for payload in payloads:
            begin, place = place, place + len(payload) + FRAME
            text = None if payload == _DONE else reader.count(payload, meter)
            if text:
                return begin, place, text
            if text is None:
                if payload == _DONE and reader.count_end(meter):
                    self._over = True
                    break
                out: list[Event] = []
                before, going_on = meter.seen, self._event("", payload, out)
                meter.add(out)
                if not going_on:
                    break
                if meter.seen > before:
                    return begin, place, None
        return 0, len(data), None

    def mould(self, event: bytes, /) -> Mould | None:
        """As `relay.events.TellsMould`, of chunks that are one text and nothing else: others leave something behind."""
        return chunk_mould(event) if not self._over and lone(event) else None

    def close(self) -> list[Event]:
        """The end of the bytes: complete if every choice had its finish reason, else a failure."""
        out: list[Event] = []
        if self._over:
            return out
        going_on = True
        for name, payload in self._frames.flush():
            going_on = self._event(name, payload, out, last=True)
        if going_on:
            if self._reader.all_finished:
                self._finish(out)
            else:
                self._fail(UpstreamProtocol("the upstream's stream ended before the answer was complete"), out)
        return out

    def _event(self, name: str, payload: bytes, out: list[Event], *, last: bool = False) -> bool:
        """Read one event; whether the stream goes on after it."""
        if payload == _DONE:
            return self._odd(payload, out, last=last)
        try:
            chunk = loads(payload)
        except ValueError:
            return self._odd(payload, out, last=last)
        if type(chunk) is dict:
            usual = "choices" in chunk and "error" not in chunk and "base_resp" not in chunk and not name
            if usual or not (name == "error" or is_fault(chunk)):
                self._reader.read(chunk, out)
                return True
        elif name != "error" and not (isinstance(chunk, list) and chunk and isinstance(chunk[0], dict)):
            # `[]`, numbers and strings are not chunks; nothing is known to hide in them.
            return True
        return self._fail(upstream_error(chunk, payload, None, {}, self._secret), out)

    def _odd(self, payload: bytes, out: list[Event], *, last: bool) -> bool:
        """An event that is not JSON: the end marker, nothing, or a fault."""
        text = payload.strip()
        if text == _DONE:
            reader = self._reader
            if reader.all_finished or (reader.spoke and (reader.counted or self._silent)):
                return self._finish(out)
            return self._fail(UpstreamProtocol("the upstream ended its stream without a finish reason"), out)
        if text and not last:
            return self._fail(UpstreamProtocol("an event of the upstream's stream is not JSON"), out)
        # The last event of a broken connection is often half of one: that is a cut, told as such by `close`.
        return True

    def _finish(self, out: list[Event]) -> bool:
        self._over = True
        self._reader.finish(out)
        out.append(MessageStop())
        return False

    def _fail(self, error: UpstreamError, out: list[Event]) -> bool:
        self._over = True
        out.append(Failure(error))
        return False


class WholeDecoder:
    """A `StreamDecoder` for a host that was asked for a stream and says that it answers with one complete object.

    Some say so and stream all the same: what begins with anything but a brace is handed to `stream`. `read` makes the
    hub's answer of the parsed object, its bytes, and the secret that must not be told.
    """

    __slots__ = ("_body", "_read", "_secret", "_stream", "_streaming")

    def __init__(
        self,
        secret: Secret | None = None,
        stream: StreamDecoder | None = None,
        read: Callable[[dict[str, Any], bytes, Secret | None], Response] = decode_response,
    ) -> None:
        self._body: bytearray | None = bytearray()
        self._read = read
        self._secret = secret
        self._stream = stream or ChatDecoder(secret=secret)
        self._streaming = False

    def feed(self, data: bytes, /) -> list[Event]:
        """Nothing yet, if the answer is an object: it is read when it is complete."""
        if self._streaming:
            return self._stream.feed(data)
        if self._body is None:
            return []
        if not self._body:
            data = data.lstrip()
        if data and not self._body and data[:1] != b"{":
            self._streaming = True
            return self._stream.feed(data)
        self._body += data
        if len(self._body) > MAX_EVENT:
            self._body = None
            return [Failure(UpstreamProtocol(f"the upstream's answer is longer than {MAX_EVENT} bytes"))]
        return []

    def close(self) -> list[Event]:
        """The whole answer as events."""
        if self._streaming:
            return self._stream.close()
        if self._body is None:
            return []
        body, self._body = bytes(self._body), None
        try:
            return unfold(self._read(upstream_json(body), body, self._secret))
        except UpstreamError as error:
            return [Failure(error)]
