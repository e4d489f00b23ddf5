"""A client of one dialect: how it asks, what it understands, and what it is to understand of a recording."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx2

from tests.replay.recording import Exchange
from tests.replay.said import Counted, Reading, Said


@dataclass
class Tape:
    """An answer of the relay as it came over the wire."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    """Whether the body ended as HTTP says it must."""
    sent: bytes = b""


class TapedStream(httpx2.AsyncByteStream):
    """Copies what passes."""

    def __init__(self, inner: httpx2.AsyncByteStream, tape: Tape) -> None:
        self._inner = inner
        self._tape = tape

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._tape.body += piece
            yield piece
        self._tape.whole = True

    async def aclose(self) -> None:
        await self._inner.aclose()


class Taping(httpx2.AsyncHTTPTransport):
    """The SDK's own transport, with a tape."""

    def __init__(self) -> None:
        super().__init__(retries=0)
        self.tape = Tape()
        self._open: TapedStream | None = None

    async def release(self) -> None:
        """Give up what was not read: an SDK that raises in the middle of a stream may leave it to the collector."""
        if self._open is not None:
            await self._open.aclose()
            self._open = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        tape = self.tape = Tape(sent=request.content)
        response = await super().handle_async_request(request)
        tape.status = response.status_code
        tape.headers = {name.lower(): value for name, value in response.headers.items()}
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = self._open = TapedStream(response.stream, tape)
        return response


@dataclass
class Heard:
    """What a client understood."""

    choices: dict[int, Said] = field(default_factory=dict)
    counted: Counted | None = None
    """None: it was shown no count."""
    failed: str | None = None
    """The error's words, where an answer says that it failed and the SDK raises nothing for that."""
    contradictions: list[str] = field(default_factory=list)
    """What the answer says in two ways."""


@dataclass
class Envelope:
    """An error answer, taken out of its dialect's form."""

    message: str
    type: str
    code: str | None = None
    request_id: str | None = None


class Client(ABC):
    """One dialect's official SDK, connected to the relay. Keeps a tape of the last exchange."""

    dialect: ClassVar[str]
    errors: ClassVar[tuple[type[Exception], ...]]
    unreadable: ClassVar[tuple[type[Exception], ...]] = ()
    """What comes out of the SDK for media that are not base64, and for other things that it cannot read at all."""
    """What the SDK raises. Nothing else may come out of it: a client catches the SDK's errors and no others."""
    error_types: ClassVar[Mapping[int, str]]
    """The error type that each status has. Others have that of 400 or of 502."""
    finish: ClassVar[Mapping[str, str]]
    """The dialect's word for each reason to stop, in the words of `Finish`."""
    several: ClassVar[bool] = False
    """Whether the dialect can hold several choices."""
    exact: ClassVar[bool] = True
    """Whether it says exactly which words rest on a page, and not only which block."""

    def __init__(self, url: str, key: str) -> None:
        self.transport = Taping()
        self.url = url
        self.key = key

    def http(self) -> httpx2.AsyncClient:
        """For the SDK to use."""
        return httpx2.AsyncClient(transport=self.transport, timeout=30)

    @abstractmethod
    async def close(self) -> None: ...

    @abstractmethod
    def question(self, model: str, *, stream: bool) -> dict[str, Any]:
        """A request of this dialect."""

    @abstractmethod
    async def ask(self, body: dict[str, Any], heard: Heard) -> None:
        """Send the request and fill in what was understood, as it comes. Raises what the SDK raises."""

    @abstractmethod
    def envelope(self, body: bytes) -> Envelope | None:
        """The error in an answer of the relay's; None if it is not exactly of the dialect's form."""

    @abstractmethod
    def broken_off(self, body: bytes) -> bytes | None:
        """What stands before the relay's own error event; None if there is none, or more than that behind it."""

    def request(self, exchange: Exchange, model: str) -> dict[str, Any]:
        """The recorded request under another model's name if it is of this dialect, else one of the same form."""
        recorded = exchange["request_body"]
        if exchange["dialect"] == self.dialect and self.usable(recorded):
            return {**recorded, "model": model}
        return self.question(model, stream=exchange["streaming"])

    def usable(self, recorded: Any) -> bool:
        """Whether a recorded request can be sent again."""
        return isinstance(recorded, dict)

    def streams(self, body: dict[str, Any]) -> bool:
        """Whether a request asks for a stream."""
        return bool(body.get("stream"))

    def counts(self, body: dict[str, Any]) -> bool:
        """Whether a request asks for token counts in the dialect's way; most dialects always give them."""
        return True

    def sent(self, tape: Tape, model: str, upstream: str) -> bytes:
        """The request that has to arrive upstream where nothing is translated."""
        return tape.sent.replace(b'"%b"' % model.encode(), b'"%b"' % upstream.encode())

    def wanted(self, reading: Reading, body: dict[str, Any], *, streamed: bool) -> Heard:
        """What a client of this dialect is to understand of what a recording says."""
        choices = reading.choices
        if not self.several:
            choices = {0: choices.get(0) or next(iter(choices.values()), Said())}
        counted = reading.counted
        known = counted.input is not None or counted.output is not None
        return Heard(
            {number: self.adapted(said, streamed=streamed) for number, said in choices.items()},
            counted if known and self.counts(body) else None,
        )

    def adapted(self, said: Said, *, streamed: bool) -> Said:
        """One answer in this dialect's words."""
        finish = None if said.finish is None else self.finish[said.finish]
        return Said(said.text, said.reasoning, said.refusal, list(said.calls), finish, said.beside)

    def error_type(self, status: int) -> str:
        """The type of an error with this status."""
        return self.error_types.get(status) or self.error_types[400 if status < 500 else 502]
