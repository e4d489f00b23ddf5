"""What is nested deeply, in eplace of good bodies, for efamily: refused or sent, and no fault of ours."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping

import pytest

from tests.flow.conftest import Start, openai_config
from tests.flow.fake import FakeUpstream, http
from tests.promises.test_bodies import send
from tests.promises.test_fuzz import GOOD, spots
from tests.promises.ways import Way

PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-responses": "/v1/responses",
    "openai-completions": "/v1/completions",
    "openai-embeddings": "/v1/embeddings",
    "anthropic-messages": "/v1/messages",
    "gemini": "/v1beta/models/m:generateContent",
}
BASES = {"openai": "/v1", "anthropic": "", "gemini": "/v1beta", "bedrock": ""}
NESTED: Mapping[str, str] = {
    "lists": "[" * 900 + "]" * 900,
    "schemas": '{"type":"object","properties":{"a":' * 480 + "{}" + "}}" * 480,
    "parts": '{"type":"text","text":"x","content":[' * 480 + "]}" * 480,
    "just not too deep": '{"type":"array","items":' * 230 + "{}" + "}" * 230,
}
HERE = "canary of the place"


@pytest.mark.promise("H-06")
@pytest.mark.parametrize("family", BASES)
@pytest.mark.parametrize("dialect", PATHS)
async def test_what_is_deep_is_refused_or_sent_wherever_it_stands(
    start: Start, upstream: FakeUpstream, family: str, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.answer = lambda seen: http({"error": {"message": "no"}}, 400)
    config = openai_config(upstream).replace('"openai"', f'"{family}"').replace("/v1", BASES[family])
    relay = await start(config)
    way = Way(dialect, "generate", PATHS[dialect], {})
    for place in range(len(spots(GOOD[dialect]))):
        body = copy.deepcopy(GOOD[dialect])
        holder, name = spots(body)[place]
        if name == "model":
            continue
        holder[name] = HERE
        for kind, value in NESTED.items():
            said = await send(relay, way, json.dumps(body).replace(json.dumps(HERE), value).encode())
            assert said.status in (400, 404), (name, kind, said)
    # One line for each at most, and no traceback.
    assert "Traceback" not in caplog.text
    async with relay.client.post(relay.url + PATHS[dialect], json=GOOD[dialect]) as response:
        assert response.status == 400
    makes_vectors = family in ("openai", "gemini")
    assert upstream.seen or (dialect == "openai-embeddings" and not makes_vectors), "what was good is asked"
