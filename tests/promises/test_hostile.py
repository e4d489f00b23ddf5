"""Callers who would like to say where the relay connects, and a server that is not fit to be seen by them."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.flow.conftest import Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer, http
from tests.promises.served import environment
from tests.promises.ways import go, ways

WISHES = ("api_base", "base_url", "api_key", "proxy", "url", "endpoint", "custom_llm_provider", "hostname")
PATHS = {
    "openai": {"/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions"},
    "anthropic": {"/v1/messages", "/v1/messages/count_tokens"},
}
HEADERS = (
    *(
        "X-Api-Base",
        "X-Base-Url",
        "X-Upstream",
        "X-Forwarded-Host",
        "X-Portkey-Custom-Host",
        "Proxy",
        "Helicone-Target-Url",
    ),
    *("X-Original-URL", "X-Rewrite-URL", "Api-Base", "OpenAI-Base-URL", "Destination", "Forwarded", "Refresh"),
)
QUERY = "api_base={0}&base_url={0}&url={0}&api_key=CANARY&custom_llm_provider=x&proxy={0}"


@pytest.mark.promise("H-10")
@pytest.mark.promise("H-11")
@pytest.mark.parametrize("family", ["openai", "anthropic"])
async def test_no_caller_says_where_the_relay_connects_or_with_which_key(
    start: Start, upstream: FakeUpstream, family: str
) -> None:
    decoy = FakeUpstream(scripts=[chat_answer()])
    await decoy.start()
    try:
        upstream.answer = lambda seen: http({"error": {"message": "no"}}, 400)
        config, credential = openai_config(upstream), "authorization"
        if family == "anthropic":
            config, credential = config.replace('"openai"', '"anthropic"').replace("/v1", ""), "x-api-key"
        relay = await start(config)
        upstream.seen.clear()
        wished: dict[str, Any] = dict.fromkeys(WISHES, decoy.url)
        wished["extra_headers"] = wished["headers"] = {"Authorization": "Bearer CANARY", "Host": "decoy"}
        nested = {"metadata": {"inner": decoy.url}, "litellm_params": wished, "config": wished, "extra_body": wished}
        headers = dict.fromkeys(HEADERS, decoy.url)
        asked = 0
        for way in ways(relay.relay.plugins):
            mark = "&" if "?" in way.path else "?"
            for path in (way.path, f"{way.path}{mark}{QUERY.format(decoy.url)}"):
                for body in (wished, nested, {**wished, **nested}):
                    before = len(upstream.seen)
                    said = await go(relay, replace(way, path=path, body={**way.body, **body}), headers=headers)
                    # What the upstream says to all of them, or a dialect that refuses what it does not know.
                    assert said.status in (200, 400), (path, said)
                    assert said.status == 400 or way.operation == "count_tokens"
                    asked += len(upstream.seen) > before
        assert asked > 60, "it goes where it always does"
        places = {f"127.0.0.1:{upstream.port}"}
        for seen in upstream.seen:
            assert seen.headers["host"] in places
            assert "CANARY-upstream-key" in seen.headers[credential]
            assert seen.path in PATHS[family]
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
