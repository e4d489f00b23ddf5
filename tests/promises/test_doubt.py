"""What could be read in two ways: the relay's own reading, by which it lets a call pass, is the one that arrives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pytest

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, Seen, Step, http
from tests.flow.gemini import answer as gemini_answer
from tests.promises.ways import Way, answers, ways
from tests.promises.wire import Said, until, wire

BUDGET: Mapping[str, Any] = {"budget": {"total": 10**9}}


async def send(relay: Running, path: str, raw: bytes) -> Said:
    """A body as it is."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {relay.key}\r\n"
    async with wire(relay) as connection:
        connection.send(f"{head}Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode("latin-1") + raw)
        return await connection.answer()


def with_first(way: Way, key: str, value: Any) -> bytes:
    """The body with a key in front of all others, whether it is there already or not."""
    return b'{"%b":%b,' % (key.encode(), json.dumps(value).encode()) + json.dumps(way.body).encode()[1:]


def with_last(way: Way, key: str, value: Any) -> bytes:
    return json.dumps(way.body).encode()[:-1] + b',"%b":%b}' % (key.encode(), json.dumps(value).encode())


def longer(raw: bytes) -> bytes:
    """The same with a prompt that is left out when the body is read."""
    return raw.replace(b'"Hi"', b'"%b"' % (b"Hi " * 4000)).replace(b"hello", b"hello " * 2000)


MODELS = ("model", "Model", "MODEL", "mOdEl", "\\u006dodel", "\\u004dodel", "mode\\u006c")
"""The key as some upstreams read it too."""


@pytest.mark.promise("A-08")
@pytest.mark.promise("H-16")
async def test_no_second_model_in_any_spelling_gets_past_the_one_that_is_allowed(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.answer = answers
    relay = await start(openai_config(upstream), key={"models": ["m"]})
    for way in ways(relay.relay.plugins):
        for key in MODELS:
            for raw in (with_first(way, key, "dear"), with_last(way, key, "dear")):
                long = raw.replace(b"{", b'{"x": "%b",' % (b"x" * 5000), 1)
                for body in (raw, raw.replace(b'"dear"', b' "dear" '), long, longer(raw)):
                    said = await send(relay, way.path, body)
                    assert said.status in (400, 403), (str(way), body[:120], said)
    assert upstream.seen == []
    # And in the header and the query nobody looks for one.
    path = "/v1/chat/completions?model=dear"
    async with relay.client.post(relay.url + path, json=BODY, headers={"X-Model": "dear", "model": "dear"}) as response:
        assert response.status == 200
    assert [seen.json["model"] for seen in upstream.seen] == ["m-1"]


BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9}


def others(way: Way, bounds: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """What bounds the call, once more: as it is there, and in spellings that are not the relay's."""
    values = {"generationConfig": {"maxOutputTokens": 99_000}, "stream": not way.body.get("stream")}
    for name in sorted(bounds or {"generationConfig"}):
        spellings = {name.title(), name.upper(), name.replace("k", "\u212a"), name.replace("s", "\u017f")} - {name}
        twins = {name, f"\\u{ord(name[0]):04x}{name[1:]}"} if name in way.body else set()
        yield from ((one, values.get(name, 99_000)) for one in (*twins, *(spellings if bounds else ())))


@pytest.mark.promise("H-16")
async def test_nothing_that_bounds_a_budget_can_be_said_twice(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = answers
    relay = await start(openai_config(upstream), key=BUDGET)
    tried = 0
    for way in ways(relay.relay.plugins, "generate"):
        for name, other in others(way, relay.relay.plugins.dialects[way.dialect].bounds):
            tried += 1
            raw = with_first(way, name, other)
            for body in (raw, longer(raw)):
                said = await send(relay, way.path, body)
                assert said.status == 400, (str(way), name, said)
    assert tried > 50
    assert upstream.seen == []
    assert relay.relay.ledger.held() == 0
    nested = b'{"model":"m","messages":[{"role":"user","role":"user","content":"Hi"}]}'
    # Long enough to be known when they come again.
    tool = b'{"type":"function","function":{"name":"f","description":"%b"%b}}'
    tools = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"tools":[%b]}'
    twin = tools % (tool % (b"Does. " * 100, b',"name":"f"'))
    for body in (nested, longer(nested), twin, longer(twin), longer(twin)):
        assert (await send(relay, "/v1/chat/completions", body)).status == 400
    good = longer(tools % (tool % (b"Does. " * 100, b"")))
    for body in (good, good, good.replace(b":", b" : "), good.replace(b":", b" : ")):
        assert (await send(relay, "/v1/chat/completions", body)).status == 200
    assert len(upstream.seen) == 4
    deep = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"x":' + b"[" * 5000 + b"]" * 5000 + b"}"
    assert (await send(relay, "/v1/chat/completions", deep)).status == 400


@pytest.mark.promise("H-16")
@pytest.mark.parametrize("max_tokens", [(5, 900), (900, 5)])
async def test_of_two_bounds_the_larger_is_set_aside(
    start: Start, upstream: FakeUpstream, max_tokens: tuple[int, int]
) -> None:
    go = asyncio.Event()
    upstream.answer = lambda seen: [go, *answers(seen)]
    relay = await start(openai_config(upstream), key=BUDGET)
    old, new = max_tokens
    both = json.dumps({**BODY, "max_tokens": old, "max_completion_tokens": new}).encode()
    call = asyncio.create_task(send(relay, "/v1/chat/completions", both))
    await until(lambda: bool(upstream.seen))
    assert 900 * 2000 <= relay.relay.ledger.held() <= 950 * 2000
    go.set()
    assert (await call).status == 200


@pytest.mark.promise("H-16")
async def test_what_no_parser_agrees_about_is_refused(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = answers
    relay = await start(openai_config(upstream))
    for way in ways(relay.relay.plugins, "generate", "embeddings"):
        good = json.dumps(way.body).encode()
        for body in (
            good.replace(b"{", b'{"x":"\xff\xfe",', 1),
            good.replace(b"{", b'{"x":"\xed\xa0\x80",', 1),
            good.replace(b"{", b'{"x":"\\ud800",', 1),
            good.replace(b"{", b'{"x":NaN,', 1),
            good.replace(b"{", b'{"x":1e400,', 1),
            good.replace(b"{", b'{"x":01,', 1),
            good.replace(b"{", b"{'x':1,", 1),
            good.replace(b"{", b'{/* */"x":1,', 1),
            good[:-1] + b",}",
            b"\xef\xbb\xbf" + good,
            good + b"{}",
            good + b"\0",
            good.decode().encode("utf-16"),
            b"[" + good + b"]",
        ):
            said = await send(relay, way.path, body)
            assert said.status == 400, (str(way), body[:60], said)
    assert upstream.seen == []


@pytest.mark.promise("H-16")
async def test_a_number_in_quotes_bounds_nothing(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = answers
    relay = await start(openai_config(upstream))
    for way in ways(relay.relay.plugins, "generate"):
        bounds = relay.relay.plugins.dialects[way.dialect].bounds
        for name in sorted(bounds & {"max_tokens", "max_output_tokens", "n", "max_completion_tokens"}):
            said = await send(relay, way.path, json.dumps(way.more(**{name: "5"})).encode())
            assert (said.status, name in said.body.decode()) == (400, True), (str(way), said)
        if "stream" in bounds:
            assert (await send(relay, way.path, json.dumps(way.more(stream="false")).encode())).status == 400
    assert upstream.seen == []


# Names that become part of an address.

NAMES = (
    "..",
    ".",
    "../..",
    "../../admin",
    "a/../../b",
    "..\\..\\b",
    "%2e%2e",
    "%2e%2e/%2e%2e/admin",
    "%252e%252e",
    "..%2f..%2fadmin",
    "..;/admin",
    "//evil.example/x",
    "/evil.example",
    "@evil.example",
    "user:pass@evil.example",
    "m?key=x",
    "m#x",
    "m:predict",
    "m&x=y",
    "a b",
    "\u00e9\u2215x",
    "x/.",
    "m%ff",
)


def deployments(upstream: FakeUpstream) -> str:
    return f"""
    [upstreams.goo]
    family = "gemini"
    base_url = "{upstream.url}/below/this/v1beta"
    api_key = "goo-key"
    [upstreams.old]
    family = "openai"
    base_url = "{upstream.url}/below/this/{{model}}/it"
    api_key = "old-key"
    models = ["gpt-*"]
    """


def told(seen: Seen) -> list[Step]:
    if "goo-key" in seen.headers.values():
        return http(gemini_answer({"text": "Hello"}))
    return answers(seen)


@pytest.mark.promise("H-14")
@pytest.mark.parametrize("name", NAMES)
async def test_a_models_name_is_one_part_of_the_upstreams_path_or_refused(
    start: Start, upstream: FakeUpstream, name: str
) -> None:
    upstream.answer = told
    relay = await start(deployments(upstream))
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    contents = json.dumps({"contents": [{"parts": [{"text": "Hi"}]}]}).encode()
    asked: list[tuple[str, bytes]] = [
        ("/v1/chat/completions", json.dumps({"model": f"{upstream_name}/{name}", **chat}).encode())
        for upstream_name in ("goo", "old")
    ]
    asked.append(("/v1/chat/completions", json.dumps({"model": f"gpt-/{name}", **chat}).encode()))
    for spelled in {name if name.isascii() and " " not in name else quote(name, safe=""), quote(name, safe="")}:
        asked += [
            (f"/v1beta/models/goo/{spelled}:generateContent?alt=x&key=&x=/../y", contents),
            (f"/v1beta/models/goo%2F{spelled}:generateContent", contents),
            (f"/v1/tunedModels/goo/{spelled}:generateContent", contents),
        ]
    for path, body in asked:
        before = len(upstream.seen)
        said = await send(relay, path, body)
        if len(upstream.seen) == before:
            assert said.status in (400, 401, 404, 405), (path, said)
            continue
        went = upstream.seen[-1].path
        beginning, _, rest = went.partition("/below/this/")
        assert beginning == "", went
        for collection in ("v1beta/models/", "v1beta/tunedModels/"):
            rest = rest.removeprefix(collection)
        part, _, end = rest.partition(":" if "v1beta" in went else "/")
        assert end in ("generateContent", "it/chat/completions"), went
        assert part
        assert not set(part) & set("/\\?#@;& "), went
        assert part.lower() not in (".", "..", "%2e", "%2e%2e", ".%2e", "%2e."), went


@pytest.mark.promise("H-14")
@pytest.mark.parametrize("inside", ["%0d%0aX-Evil:%20yes", "%0a", "%00", "%7f", "%c2%85", "%e2%80%a8"])
async def test_no_name_breaks_a_line_of_the_upstreams_request(
    start: Start, upstream: FakeUpstream, inside: str
) -> None:
    upstream.answer = told
    relay = await start(deployments(upstream))
    body = json.dumps({"contents": [{"parts": [{"text": "Hi"}]}]}).encode()
    for path in (f"/v1beta/models/goo/m{inside}:generateContent", f"/v1beta/models/{inside}goo/m:generateContent"):
        said = await send(relay, path, body)
        assert said.status in (400, 404), (path, said)
    for text in ("\r\nX-Evil: yes", "\n", "\0", "\x7f", "\x85", "\u2028", "\ud800"):
        raw = json.dumps({"model": f"old/m{text}", "messages": BODY["messages"]}).encode()
        assert (await send(relay, "/v1/chat/completions", raw)).status in (400, 404)
    assert upstream.seen == []
