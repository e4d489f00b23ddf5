"""A small client of a relay (or of anything that speaks openai-chat), for the command line: stream, retry, give up.

Retries follow the i8Relay API's rules: only what is worth repeating (no connection, 408, 409, 429, 5xx), never after
the first byte of an answer, never when the server says `x-should-retry: false`; waiting as long as the server
asks, else twice as long each time with full jitter, so that clients that failed together do not come back together.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from relay.kit import SseDecoder, dumps, loads, retry_after

__all__ = ["Client", "ClientError", "Retries"]

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 300.0
WORTH_REPEATING = frozenset({408, 409, 429})


class ClientError(Exception):
    """The request failed for good. `status` is 0 if there was no answer."""

    def __init__(self, message: str, status: int = 0, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and how long: `attempts` in all, waits from `first` seconds doubling up to `longest`."""

    attempts: int = 5
    first: float = 0.5
    longest: float = 30.0

    def wait(self, failed: int, asked: float | None, spread: Callable[[], float] = random.random) -> float:
        """Seconds to wait after the `failed`-th failure (from 1). What the server asked for is the least."""
        ceiling = min(self.longest, self.first * 2.0 ** (failed - 1))
        jittered: float = ceiling * spread()
        return jittered if asked is None else asked + jittered * 0.25


class Client:
    """Calls `POST /v1/chat/completions` and `GET /v1/models` of one relay."""

    def __init__(self, url: str, key: str, *, retries: Retries | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._retries = retries or Retries()
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS),
        )
        self.notice: Callable[[str], None] = lambda text: None
        """Told, in a sentence, about each failure that is going to be retried."""

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def models(self) -> list[str]:
        """The names of the models. Raises ClientError."""
        async with await self._send("GET", "/v1/models", b"") as response:
            value = loads(await response.read())
            return [model["id"] for model in value["data"]]

    async def chat(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a streamed answer. Raises ClientError, also for an answer that breaks off."""
        async with await self._send("POST", "/v1/chat/completions", dumps({**body, "stream": True})) as response:
            decoder = SseDecoder()
            try:
                async for piece in response.content.iter_any():
                    for _, data in decoder.feed(piece):
                        if data == b"[DONE]":
                            return
                        chunk = loads(data)
                        if "error" in chunk:
                            raise _told(200, chunk)
                        yield chunk
            except (aiohttp.ClientError, OSError) as error:
                raise ClientError(f"the answer broke off ({type(error).__name__})") from error
            raise ClientError("the answer broke off before its end")

    async def _send(self, method: str, path: str, body: bytes) -> aiohttp.ClientResponse:
        """The head of a good answer, after as many attempts as it takes."""
        failed = 0
        while True:
            error, asked, again = await self._once(method, path, body)
            if isinstance(error, aiohttp.ClientResponse):
                return error
            failed += 1
            if not again or failed >= self._retries.attempts:
                raise error
            wait = self._retries.wait(failed, asked)
            self.notice(f"{error}; trying again in {wait:.1f} s ({failed + 1} of {self._retries.attempts})")
            await asyncio.sleep(wait)

    async def _once(
        self, method: str, path: str, body: bytes
    ) -> tuple[aiohttp.ClientResponse | ClientError, float | None, bool]:
        """The answer, or the error with the wait that was asked for and whether it is worth another attempt."""
        try:
            response = await self._session.request(
                method, self.url + path, data=body or None, headers=self._headers, allow_redirects=False
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return ClientError(f"{self.url} cannot be reached ({type(error).__name__})"), None, True
        except (aiohttp.ClientError, OSError) as error:
            # It may have been carried out: repeating it could cost twice.
            return ClientError(f"no answer from {self.url} ({type(error).__name__})"), None, False
        if response.status == 200:
            return response, None, False
        async with response:
            raw = await response.read()
        try:
            value = loads(raw)
        except ValueError:
            value = None
        headers = {name.lower(): text for name, text in response.headers.items()}
        worth = response.status in WORTH_REPEATING or response.status >= 500
        again = worth and headers.get("x-should-retry") != "false"
        return _told(response.status, value), retry_after(headers), again


def _told(status: int, value: Any) -> ClientError:
    """The server's error in its own words."""
    error = value.get("error") if isinstance(value, dict) else None
    if isinstance(error, dict) and error.get("message"):
        code = error.get("code")
        return ClientError(str(error["message"]), status, None if code is None else str(code))
    return ClientError(f"the server answered with status {status}", status)
