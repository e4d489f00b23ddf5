"""The contract of families as tests: whoever inherits them, and says what its upstream says, has to pass them all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import pytest

from relay.bound import BoundFamily
from relay.testing.serving import Serving, serving
from relay.testing.translation import TranslationSuite
from relay.testing.upstream import FakeUpstream, Step, http, stream

__all__ = ["FamilySuite"]

SECONDS = 5.0


class FamilySuite(TranslationSuite):
    """Tests of one family. A subclass, named `Test...`, says which, and what its upstream says:

        class TestParrot(FamilySuite):
            plugin = Path(__file__).parent / "parrot.py"
            family = "parrot"
            vectors = Vectors(stream=b"...", answer=b"...", text="Hello", input_tokens=1, output_tokens=1)

    No test of it needs a network beyond this machine.
    """

    def playing(self, base_url: str) -> str:
        """The configuration of a relay with the model `m` at an upstream of this family."""
        vectors = self.vectors
        speaks = f'dialects = ["{vectors.dialect}"]\n' if vectors.dialect else ""
        options = "".join(f"{name} = {json.dumps(value)}\n" for name, value in vectors.options.items())
        return (
            f'[routing]\nmax_attempts = 1\nmax_cool_down_seconds = 0\n[upstreams.suite]\nfamily = "{self.family}"\n'
            f'base_url = "{base_url}"\napi_key = "{vectors.secret or "none-needed"}"\nidle_timeout = 5.0\n{speaks}'
            f'[upstreams.suite.options]\n{options}[models.m]\ntargets = ["suite/{vectors.model}"]\n'
            f"price = {{ input = 1.0, output = 2.0 }}\n{self.config}"
        )

    def test_the_relay_serves_it(self, bound: BoundFamily) -> None:
        """Streamed and whole, cut off, refused and left: with the right end, and one right row for each."""
        if self.own_way:
            pytest.skip(self.own_way)
        asyncio.run(self._served())

    async def _served(self) -> None:
        vectors = self.vectors
        path = urlsplit(vectors.base_url).path
        async with (
            FakeUpstream() as upstream,
            serving(self.playing(upstream.url + path), plugins=self.loaded()) as relay,
        ):
            await self._whole(relay, upstream)
            await self._streamed(relay, upstream)
            await self._cut(relay, upstream)
            await self._refused(relay, upstream)
            await self._left(relay, upstream)
            assert relay.relay.limiter.running() == 0
            assert not [record.error for record in relay.relay.plugins.records if record.error]
        for seen in upstream.seen:
            assert relay.key not in str(seen.headers), "a client's key is no upstream's business"
            assert relay.key.encode() not in seen.body

    def answering(self) -> Sequence[Step]:
        """The complete answer, as the upstream sends it."""
        return http(self.vectors.answer, content_type=self.vectors.answer_type)

    async def _whole(self, relay: Serving, upstream: FakeUpstream) -> None:
        upstream.answer = lambda seen: self.answering()
        status, body, _ = await relay.chat()
        assert status == 200, body
        assert json.loads(body)["choices"][0]["message"]["content"] == self.vectors.text
        await self._row(relay, "ok")

    async def _streamed(self, relay: Serving, upstream: FakeUpstream) -> None:
        vectors = self.vectors
        pieces = [vectors.stream[at : at + 40] for at in range(0, len(vectors.stream), 40)]
        upstream.answer = lambda seen: stream(*pieces, content_type=vectors.stream_type)
        status, body, ended = await relay.chat(stream=True)
        assert (status, ended) == (200, True), body
        assert _said(body) == vectors.text
        assert b"[DONE]" in body
        await self._row(relay, "ok")

    async def _row(self, relay: Serving, outcome: str) -> None:
        vectors = self.vectors
        row = (await relay.rows())[0]
        assert (row.outcome, row.family) == (outcome, self.family)
        if outcome == "ok" and vectors.input_tokens is not None and vectors.output_tokens is not None:
            assert row.usage is not None
            assert (row.usage.input, row.usage.output) == (vectors.input_tokens, vectors.output_tokens)
            assert row.usage_source == "provider"
            assert row.cost == vectors.input_tokens * 1000 + vectors.output_tokens * 2000

    async def _cut(self, relay: Serving, upstream: FakeUpstream) -> None:
        vectors = self.vectors
        half = vectors.stream[: len(vectors.stream) // 2]
        upstream.answer = lambda seen: [*stream(half, end=False, content_type=vectors.stream_type), 0.05, "fin"]
        status, body, ended = await relay.chat(stream=True)
        assert b"[DONE]" not in body, "half an answer looks finished"
        assert status >= 400 or (b'"error"' in body and not ended)
        assert (await relay.rows())[0].outcome in ("upstream_cut", "upstream_error")

    async def _refused(self, relay: Serving, upstream: FakeUpstream) -> None:
        for refusal in self.vectors.refusals:
            upstream.answer = lambda seen: http(refusal.body, refusal.status)  # noqa: B023
            for streamed in (False, True):
                status, body, _ = await relay.chat(stream=streamed)
                assert status == refusal.shown, body
                assert refusal.says in json.loads(body)["error"]["message"]
                assert (await relay.rows())[0].outcome == "upstream_error"

    async def _left(self, relay: Serving, upstream: FakeUpstream) -> None:
        vectors = self.vectors
        half = vectors.stream[: len(vectors.stream) // 2]
        upstream.answer = lambda seen: [*stream(half, end=False, content_type=vectors.stream_type), "stall"]
        asked, left = len(upstream.seen), len(upstream.peer_left)
        call = asyncio.create_task(relay.chat(stream=True))
        await _until(lambda: len(upstream.seen) > asked)
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        await _until(lambda: len(upstream.peer_left) > left)
        assert (await relay.rows())[0].outcome == "client_abort"

    # Faults that only a look at both sides shows.

    def test_a_secret_in_an_error_reaches_nobody(self, bound: BoundFamily) -> None:
        """Some upstreams repeat the key that they refuse."""
        if self.own_way or not self.vectors.secret or not self.vectors.refusals:
            pytest.skip(self.own_way or "nothing is refused, or there is no secret")
        asyncio.run(self._echoed())

    async def _echoed(self) -> None:
        secret, refusal = self.vectors.secret, self.vectors.refusals[0]
        body = refusal.body.replace(refusal.says.encode(), f"{refusal.says} {secret}".encode())
        assert secret.encode() in body, "the refusal's words stand in its body as they are"
        path = urlsplit(self.vectors.base_url).path
        async with (
            FakeUpstream(scripts=[http(body, refusal.status)]) as upstream,
            serving(self.playing(upstream.url + path), plugins=self.loaded()) as relay,
        ):
            for streamed in (False, True):
                status, said, _ = await relay.chat(stream=streamed)
                assert status >= 400
                assert secret.encode() not in said


async def _until(true: Callable[[], bool]) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + SECONDS
    while not true():
        assert loop.time() < deadline, "it never happened"
        await asyncio.sleep(0.01)


def _said(body: bytes) -> str:
    """The text of a stream in the dialect of Chat Completions."""
    found = []
    for line in body.split(b"\n"):
        if line.startswith(b"data: {"):
            found += [choice["delta"].get("content") or "" for choice in json.loads(line[6:])["choices"]]
    return "".join(found)
