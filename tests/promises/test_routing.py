"""Which target is asked: what is allowed is what is called, shares, keys and policies."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from typing import Any

import pytest

from relay import lane
from relay.config import read_text
from relay.reload import reload
from tests.flow.conftest import ALONE, Start
from tests.flow.fake import (
    FakeUpstream,
    Seen,
    Step,
    chat_answer,
    http,
)
from tests.flow.loops import LANE
from tests.promises.courses import (
    Clock,
    answered,
    ask,
    asked,
    by_model,
    config,
    good,
    plane_of,
    refused,
)


@pytest.mark.promise("A-08")
@plane_of
async def test_the_model_that_is_allowed_is_the_model_that_is_called(
    start: Start, upstream: FakeUpstream, plane: str
) -> None:
    upstream.answer = lambda seen: good(plane)
    text = config(upstream, "cheap-1") + '[models.dear]\ntargets = ["up/dear-1"]\n'
    relay = await start(text, key={"models": ["m"]})
    path = "/v1/messages" if plane == "messages" else "/v1/chat/completions"
    body: dict[str, Any] = {"max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}]}
    body["stream"] = plane == "stream"
    tail = json.dumps(body)[1:].encode()
    for raw, query, headers, status in (
        (b'{"model": "m", ' + tail, "?model=dear", {"x-model": "dear", "openai-model": "dear"}, 200),
        (b'{"model": "dear", ' + tail, "?model=m", {"x-model": "m"}, 403),
        (b'{"model": "m", "model": "dear", ' + tail, "", {}, 400),
        (b'{"model": "dear", "model": "m", ' + tail, "", {}, 400),
        (b'{"model": "m", "mod\\u0065l": "dear", ' + tail, "", {}, 400),
        (b'{"model": "m", "extra_body": {"model": "dear"}, ' + tail, "", {}, 200),
        (b'{"model": ["m"], ' + tail, "", {}, 400),
        (b"{" + tail, "?model=m", {}, 400),
    ):
        async with relay.client.post(relay.url + path + query, data=raw, headers=headers) as response:
            assert response.status == status, (raw, await response.text())
    assert set(asked(upstream)) == {"cheap-1"}


SPELLINGS = [
    "acmez/m",
    "ACME/m",
    " acme/m",
    "acme/m ",
    "acme/m\u200b",
    "\uff41cme/m",
    "acm\u0435/m",
    "acme/../dear",
    "acme/../up/dear",
    "acme%2fm",
    "acme//m",
    "up/dear",
    "dear",
    "alias",
    "",
]


@pytest.mark.promise("A-09")
@plane_of
@pytest.mark.parametrize("allowed", ["acme/*", "acme/m"])
async def test_only_exact_names_of_what_is_allowed_pass(
    start: Start, upstream: FakeUpstream, plane: str, allowed: str
) -> None:
    upstream.answer = lambda seen: good(plane)
    text = config(upstream, "x") + (
        '[models."acme/m"]\ntargets = ["up/fine"]\n'
        '[models."acmez/m"]\ntargets = ["up/dear"]\n'
        '[models.dear]\ntargets = ["up/dear"]\n'
        '[models.alias]\ntargets = ["up/fine"]\n'
    )
    relay = await start(text, key={"models": [allowed]})
    assert answered(await ask(relay, plane, model="acme/m"))
    for name in SPELLINGS:
        got = await ask(relay, plane, model=name)
        assert got.status in (400, 403, 404), name
    assert asked(upstream) == ["fine"]
    rows = await relay.rows()
    assert {(row.outcome, row.attempts) for row in rows[:-1]} == {("rejected", 0)}


@pytest.mark.promise("A-09")
@plane_of
async def test_fall_backs_stay_within_the_model_and_its_limits_are_taken_once(
    start: Start, upstream: FakeUpstream, plane: str
) -> None:
    upstream.answer = lambda seen: refused(500)
    text = config(upstream, "a", "b", max_attempts=1) + 'rpm = 2\n[models.dear]\ntargets = ["up/dear"]\n'
    relay = await start(text, key={"models": ["m"]})
    for _ in range(2):
        assert (await ask(relay, plane)).status == 502
    assert (await ask(relay, plane)).status == 429
    assert asked(upstream) == ["a", "b", "a", "b"]


@pytest.mark.promise("A-11")
async def test_no_route_serves_a_key_that_may_not_use_the_model(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: chat_answer()
    relay = await start(config(upstream), key={"models": ["another"]})
    tried = 0
    for dialect in relay.relay.plugins.dialects.values():
        for route in dialect.routes:
            if route.method != "POST":
                continue
            tried += 1
            # Of a parameter with a pattern, the first word that fits.
            path = re.sub(r"\{model[^}]*\}", "m", route.path)
            path = re.sub(r"\{\w+:(\w+)[^}]*\}", r"\1", path)
            body = {
                "model": "m",
                "max_tokens": 5,
                "input": "Hi",
                "prompt": "Hi",
                "messages": [{"role": "user", "content": "Hi"}],
            }
            parts = {"parts": [{"text": "Hi"}]}
            own = {
                "batchEmbedContents": {"requests": [{"model": "models/m", "content": parts}]},
                "embedContent": {"content": parts},
            }
            if ":" in path:
                body = own.get(path.partition(":")[2], {"contents": [parts]})
            async with relay.client.post(relay.url + path, json=body) as response:
                assert response.status == 403, (path, await response.text())
    assert tried > 10
    assert not upstream.seen


# Shares, keys, policies.


@plane_of
async def test_calls_are_shared_by_weight(start: Start, upstream: FakeUpstream, plane: str) -> None:
    upstream.answer = lambda seen: good(plane)
    text = config(upstream).replace('"up/a"', '{to = "up/a", weight = 3}, {to = "up/b", weight = 1}, "up/c"')
    relay = await start(text)
    for _ in range(16):
        assert answered(await ask(relay, plane))
    assert Counter(asked(upstream)) == {"a": 12, "b": 4}


@plane_of
async def test_the_keys_of_an_upstream_take_turns(start: Start, upstream: FakeUpstream, plane: str) -> None:
    upstream.answer = lambda seen: good(plane)
    relay = await start(config(upstream, more='api_keys = ["sk-1", "sk-2"]'))
    for _ in range(6):
        assert answered(await ask(relay, plane))
    used = [seen.headers["authorization"] for seen in upstream.seen]
    assert used == ["Bearer sk-CANARY-upstream-key", "Bearer sk-1", "Bearer sk-2"] * 2


async def test_a_key_that_may_not_list_models_does_not_hide_them(start: Start, upstream: FakeUpstream) -> None:
    listed: list[str] = []

    def list_(seen: Any) -> list[Step]:
        listed.append(seen.headers["authorization"])
        return refused(401) if len(listed) == 1 else http({"object": "list", "data": [{"id": "found"}]})

    upstream.lists = list_
    relay = await start(config(upstream, more='api_keys = ["sk-1"]'))
    assert [model.id for model in relay.relay.router.models()] == ["m", "found"]
    assert listed == ["Bearer sk-CANARY-upstream-key", "Bearer sk-1"]


@plane_of
async def test_with_the_policy_the_quickest_is_asked(start: Start, upstream: FakeUpstream, plane: str) -> None:
    clock = Clock()

    def answer(seen: Seen) -> list[Step]:
        clock.now += 5.0 if seen.json["model"] == "a" else 0.1
        return good(plane)

    upstream.answer = answer
    relay = await start(config(upstream, "a", "b") + '[plugins.options.latency]\nmodels = ["m"]\n', clock=clock)
    for _ in range(24):
        assert answered(await ask(relay, plane))
    # Nothing is known of `b` until it gets the twentieth call.
    assert asked(upstream) == ["a"] * 19 + ["b"] * 5


async def test_vectors_go_to_the_next_target_too(start: Start, upstream: FakeUpstream) -> None:
    vectors = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}], "model": "b"}
    upstream.answer = by_model(a=refused(429, retry_after="30"), b=http({**vectors, "usage": {"prompt_tokens": 1}}))
    relay = await start(config(upstream, "a", "b"))
    for attempts in ("2", None):
        async with relay.client.post(f"{relay.url}/v1/embeddings", json={"model": "m", "input": "Hi"}) as response:
            assert response.status == 200
            assert response.headers.get("x-relay-attempts") == attempts
    assert asked(upstream) == ["a", "b", "b"]


async def test_tokens_are_estimated_while_nobody_may_be_asked(start: Start, upstream: FakeUpstream) -> None:
    refusal = {"type": "error", "error": {"type": "rate_limit_error", "message": "not now"}}
    upstream.scripts = [http(refusal, 429, retry_after="30")]
    text = config(upstream).replace('family = "openai"', 'family = "anthropic"').replace("/v1", "")
    relay = await start(text)
    assert (await ask(relay, "messages")).status == 429
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    async with relay.client.post(f"{relay.url}/v1/messages/count_tokens", json=body) as response:
        assert (response.status, response.headers["x-relay-token-count"]) == (200, "estimate")
    assert len(upstream.seen) == 1


async def test_a_new_configuration_routes_by_its_own_rules(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [refused(429, retry_after="30"), good("whole"), refused(500)]
    relay = await start(config(upstream))
    assert (await ask(relay)).status == 429
    await reload(relay.relay, read_text(ALONE + config(upstream, max_attempts=1), "again.toml", {}))
    assert answered(await ask(relay))
    assert (await ask(relay)).status == 502
    assert len(upstream.seen) == 3


@pytest.mark.skipif(not LANE, reason="the lane is switched off")
async def test_a_client_that_leaves_before_its_call_goes_on_is_recorded_all_the_same(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = lane.Passage.begin

    def left(self: lane.Passage) -> None:
        begin(self)
        # No connection is open yet, so there is a task, and it has not had its first turn.
        assert self.task is not None
        self.left()

    upstream.answer = lambda seen: chat_answer()
    relay = await start(config(upstream))
    assert answered(await ask(relay))
    monkeypatch.setattr(lane.Passage, "begin", left)
    relay.relay.transport._idle.clear()  # type: ignore[attr-defined]
    with pytest.raises((asyncio.TimeoutError, ConnectionError)):
        async with asyncio.timeout(0.5):
            await ask(relay)
    assert [row.outcome for row in await relay.rows()] == ["client_abort", "ok"]
    assert relay.relay.limiter.running() == 0
    assert relay.relay.dispatch.open == 0
