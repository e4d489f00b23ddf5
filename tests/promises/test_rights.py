"""What a key opens and what it does not, what becomes of open calls, and what of it reaches an upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from relay.store import Store
from tests.flow.conftest import Start, openai_config
from tests.flow.fake import DONE, FakeUpstream, chat_chunk, http, stream
from tests.promises.ways import go, refusal, ways
from tests.promises.wire import post, until, wire

CALLERS = {
    "Cookie": "session=CANARY-cookie",
    "X-Api-Key": "{key}",
    "Api-Key": "{key}",
    "X-Goog-Api-Key": "{key}",
    "Proxy-Authorization": "Basic CANARY-proxy",
    "X-Forwarded-For": "CANARY-for",
    "X-Forwarded-Host": "CANARY-host",
    "X-Forwarded-Proto": "CANARY-proto",
    "Forwarded": "for=CANARY",
    "Via": "1.1 CANARY",
    "X-Real-IP": "CANARY-ip",
    "X-Secret": "CANARY-secret",
    "Connection": "keep-alive, X-Secret",
    "Keep-Alive": "CANARY",
    "TE": "CANARY",
    "Upgrade": "CANARY",
    "Referer": "http://CANARY.example/",
    "User-Agent": "CANARY-agent",
    "Accept": "CANARY/accept",
    "Accept-Language": "CANARY",
    "Accept-Encoding": "CANARY",
    "X-Request-Id": "CANARY-id",
    "Traceparent": "CANARY-trace",
    "OpenAI-Organization": "CANARY-organization",
    "OpenAI-Project": "CANARY-project",
    "X-Stainless-Lang": "CANARY",
    "Anthropic-Dangerous-Direct-Browser-Access": "CANARY",
    "X-Amz-Security-Token": "CANARY",
    "X-Goog-User-Project": "CANARY",
}
ALLOWED = {"Anthropic-Beta": "canary-of-theirs-2025-01-01", "Anthropic-Version": "2023-06-01"}
"""What a caller may say to an upstream of the API whose headers these are, and to no other."""
FAMILIES: Mapping[str, tuple[str, str, str]] = {
    "openai": ("/v1", "authorization", "Bearer sk-CANARY-upstream-key"),
    "anthropic": ("", "x-api-key", "sk-CANARY-upstream-key"),
    "gemini": ("/v1beta", "x-goog-api-key", "sk-CANARY-upstream-key"),
    "bedrock": ("", "authorization", "Bearer sk-CANARY-upstream-key"),
}
"""Where each one's addresses begin, and how it shows its key."""
ALWAYS = {"accept", "accept-encoding", "content-length", "content-type", "host", "user-agent"}


@pytest.mark.promise("A-18")
@pytest.mark.parametrize("transport", ["relay", "aiohttp"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_of_a_callers_headers_none_reaches_an_upstream(
    start: Start, upstream: FakeUpstream, family: str, transport: str
) -> None:
    # Nothing that is told of an answer matters here.
    upstream.answer = lambda seen: http({"error": {"message": "no"}}, 400)
    base, name, credential = FAMILIES[family]
    config = openai_config(upstream).replace('"openai"', f'"{family}"').replace("/v1", base)
    relay = await start(f'{config}    [server]\n    transport = "{transport}"\n')
    upstream.seen.clear()
    # Twice, through aiohttp's application and in the lane.
    every = [*ways(relay.relay.plugins), *ways(relay.relay.plugins)]
    for number, way in enumerate(every):
        given = {**CALLERS, **ALLOWED, "Idempotency-Key": f"CANARY-name-{number}"} if number % 3 else CALLERS
        said = await go(relay, way, headers={one: value.format(key=relay.key) for one, value in given.items()})
        assert said.status in (400, 200), (str(way), said)
        if said.status == 200:
            assert way.operation == "count_tokens", "which is estimated where the upstream cannot say"
    assert len(upstream.seen) >= len(every) / 2
    for seen in upstream.seen:
        own = {*ALWAYS, name} | ({"anthropic-version", "anthropic-beta"} if family == "anthropic" else set())
        assert set(seen.headers) <= own, seen.headers.keys() - own
        assert seen.headers[name] == credential
        assert seen.headers["host"] == f"127.0.0.1:{upstream.port}"
        assert seen.headers["accept-encoding"] == "identity"
        assert seen.headers["user-agent"].startswith("i8relay/")
        whole = seen.path.encode() + repr(seen.headers).replace(credential, "").encode() + seen.body
        assert relay.key.encode() not in whole
        assert b"CANARY" not in whole


CHANGES: Mapping[str, tuple[dict[str, Any], int, str]] = {
    "revoked": ({}, 401, "unknown, expired or revoked"),
    "expired": ({"expires_at": 1}, 401, "unknown, expired or revoked"),
    "another model": ({"models": ["another"]}, 403, "may not use the model"),
    "a lower limit": ({"rpm": 1}, 429, "1 requests a minute"),
    "no budget": ({"budget": {"total": 1}}, 402, "does not suffice"),
}


@pytest.mark.promise("A-14")
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("what", CHANGES)
async def test_what_was_let_in_goes_on_and_what_waits_is_judged_again(
    start: Start, upstream: FakeUpstream, what: str, path: str
) -> None:
    gate = asyncio.Event()
    last = [chat_chunk(finish="stop"), DONE]
    upstream.answer = lambda seen: stream(chat_chunk({"content": "Hel"}), gate, *last)
    relay = await start(openai_config(upstream) + "\n    concurrency = 1\n    queue = 1\n", key={"rpm": 60})
    changed, status, told = CHANGES[what]
    request = post(relay.key, path=path, max_tokens=9, stream=True, headers="Connection: close\r\n")
    async with wire(relay) as open_, wire(relay) as waiting, wire(relay) as next_:
        open_.send(request)
        begun = await open_.reader.readuntil(b"Hel")
        assert b" 200 " in begun.partition(b"\r\n")[0]
        waiting.send(request)
        await until(lambda: len(relay.relay.lines) == 1)
        # Another process does it.
        async with await Store.open(relay.relay.store.database.path) as other:
            if what == "revoked":
                await other.keys.revoke("test")
            else:
                await other.keys.update("test", **changed)
        await relay.relay.store.ring.refresh()
        next_.send(request)
        said = await next_.answer()
        assert said.status == status
        assert told in refusal(said)
        gate.set()
        rest = await open_.rest()
        assert (b"[DONE]" if path.endswith("completions") else b"message_stop") in rest
        assert b'error"' not in rest
        said = await waiting.answer()
        assert said.status == status
        assert told in refusal(said)
    assert len(upstream.seen) == 1
