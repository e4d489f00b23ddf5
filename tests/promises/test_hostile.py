"""Callers who would like to say where the relay connects, and a server that is not fit to be seen by them."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from tests.flow.conftest import Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer, chat_stream
from tests.promises.served import environment
from tests.promises.wire import post, wire

WISHES = ("api_base", "base_url", "api_key", "proxy", "url", "endpoint", "custom_llm_provider", "hostname")
ROUTES = ("/v1/chat/completions", "/chat/completions", "/v1/messages", "/v1/responses", "/responses")


@pytest.mark.promise("H-10")
@pytest.mark.promise("H-11")
@pytest.mark.parametrize("path", ROUTES)
async def test_no_caller_says_where_the_relay_connects_or_with_which_key(
    start: Start, upstream: FakeUpstream, path: str
) -> None:
    decoy = FakeUpstream(scripts=[chat_answer()])
    await decoy.start()
    try:
        upstream.answer = lambda seen: chat_stream() if seen.json.get("stream") else chat_answer()
        relay = await start(openai_config(upstream))
        wished: dict[str, Any] = dict.fromkeys(WISHES, decoy.url)
        wished["extra_headers"] = {"Authorization": "Bearer CANARY", "Host": "decoy"}
        nested = {**wished, "metadata": {"inner": decoy.url}, "litellm_params": wished, "config": wished}
        lines = "".join(
            f"{name}: {decoy.url}\r\n"
            for name in ("X-Api-Base", "X-Base-Url", "X-Upstream", "X-Forwarded-Host", "X-Portkey-Custom-Host", "Proxy")
        )
        for streamed in (False, True):
            for body in (wished, nested):
                async with wire(relay) as connection:
                    # `input` is what the Responses API calls its messages; the others do not mind.
                    more = {**body, "input": "Hi", "max_tokens": 9}
                    connection.send(post(relay.key, path=path, headers=lines, stream=streamed, **more))
                    said = await connection.answer()
                    assert said.status in (200, 400), said
        assert upstream.seen, "it goes where it always does"
        for seen in upstream.seen:
            assert seen.path == "/v1/chat/completions" or seen.path == "/v1/responses"
            assert seen.headers["authorization"] == "Bearer sk-CANARY-upstream-key"
            assert seen.headers["host"] == f"127.0.0.1:{upstream.port}"
            assert decoy.url not in json.dumps(seen.headers)
        await asyncio.sleep(0.05)
        assert decoy.seen == []
    finally:
        await decoy.stop()


@pytest.mark.promise("H-03")
async def test_it_does_not_serve_with_the_parser_that_is_not_fit_for_it(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "serve", "--port", "0", "--db", str(tmp_path / "relay.db")),
        env=environment(tmp_path, AIOHTTP_NO_EXTENSIONS="1"),
        stdout=PIPE,
        stderr=PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert output == b""
    assert errors.startswith(b"aiohttp is here without its compiled parser")
    assert len(errors.splitlines()) == 1
