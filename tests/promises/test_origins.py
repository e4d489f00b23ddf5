"""Who may ask: which names, which web pages, which routes without a key."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from relay.errors import CallerError
from relay.origins import Origins, preflight
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer, chat_stream
from tests.promises.ways import answers, served, ways
from tests.promises.wire import post, wire

ANSWERED = [
    "127.0.0.1",
    "127.0.0.1:8748",
    "127.8.9.10",
    "localhost",
    "LOCALHOST:1",
    "localhost.",
    "chat.localhost",
    "[::1]",
    "[::1]:80",
]
FOREIGN = [
    "evil.example",
    "evil.example:8748",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "0.0.0.0",
    "[::2]",
    "[::ffff:10.0.0.1]",
    "notlocalhost",
]
BROKEN = [
    "",
    "localhost/",
    "localhost:4000/#@evil.example",
    "x/v1/models?",
    "user@localhost",
    "localhost:port",
    "loc alhost",
    "[::1",
    "::1",
    "l" * 300,
    "localhost\\evil",
    "localhost,evil",
]


@pytest.fixture
async def relay(start: Start, upstream: FakeUpstream) -> Running:
    upstream.scripts = [chat_answer()]
    return await start(openai_config(upstream))


@pytest.mark.promise("D-02")
def test_a_relay_on_this_machine_answers_to_this_machines_names_only() -> None:
    for bind in ("127.0.0.1", "::1", "localhost"):
        origins = Origins(bind)
        assert [host for host in ANSWERED if not origins.answers_to(host)] == []
        assert [host for host in FOREIGN + BROKEN if origins.answers_to(host)] == []
        assert {origins.refusal(host).status for host in FOREIGN} == {421}
        assert {origins.refusal(host).status for host in BROKEN} == {400}
        assert origins.answers_to(None), "programs of the last century"


@pytest.mark.promise("D-02")
def test_one_that_others_reach_answers_to_what_was_configured_or_to_any_real_name() -> None:
    free = Origins("0.0.0.0")
    assert [host for host in ANSWERED + FOREIGN if not free.answers_to(host)] == []
    assert [host for host in BROKEN if free.answers_to(host)] == []
    named = Origins("0.0.0.0", ["Relay.example.com", "*.lan"])
    assert named.answers_to("relay.example.com:443")
    assert named.answers_to("a.b.lan")
    assert named.answers_to("localhost"), "its own machine's health checks"
    assert not named.answers_to("lan")
    assert not named.answers_to("evil-relay.example.com")
    assert not named.answers_to("xlan")
    assert Origins("127.0.0.1", ["*"]).answers_to("evil.example")


@pytest.mark.promise("D-02")
def test_names_that_are_made_up_fill_no_memory() -> None:
    origins = Origins("127.0.0.1")
    for number in range(5000):
        assert not origins.answers_to(f"host{number}.example")
    assert len(origins._known) <= 256
    assert origins.answers_to("localhost")
    assert origins.answers_to(None)


@pytest.mark.promise("D-02")
@pytest.mark.promise("A-07")
async def test_a_foreign_host_name_is_refused_everywhere_also_in_the_lane(
    relay: Running, upstream: FakeUpstream
) -> None:
    async with wire(relay) as connection:
        # The first fills every memory that there is.
        connection.send(post(relay.key))
        assert (await connection.answer()).status == 200
        for host in FOREIGN:
            for request in (post(relay.key, host=host), post(relay.key, host=host, stream=True)):
                connection.send(request)
                said = await connection.answer()
                assert (said.status, said.error["code"]) == (421, "misdirected_request")
                assert host.encode() not in said.body
        for host in BROKEN[1:6]:
            connection.send(post(relay.key, host=host))
            assert (await connection.answer()).error["code"] == "invalid_host"
        connection.send(post(relay.key))
        assert (await connection.answer()).status == 200
    assert len(upstream.seen) == 2


@pytest.mark.promise("D-04")
async def test_no_page_may_ask_unless_it_was_allowed(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: chat_stream() if seen.json.get("stream") else chat_answer()
    relay = await start(openai_config(upstream) + '    [server]\n    origins = ["https://chat.example"]\n')
    own = f"http://127.0.0.1:{relay.server.port}"
    async with wire(relay) as connection:
        connection.send(post(relay.key))
        assert (await connection.answer()).status == 200
        for origin in ("https://evil.example", "null", "https://chat.example.evil", "http://chat.example", "x", ""):
            for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
                connection.send(post(relay.key, headers=f"Origin: {origin}\r\n", content_type=kind))
                said = await connection.answer()
                assert (said.status, said.error["code"]) == (403, "origin_not_allowed")
                assert "access-control-allow-origin" not in said.headers
        asked = len(upstream.seen)
        for origin, told in (("https://chat.example", "https://chat.example"), (own, None)):
            host = f"127.0.0.1:{relay.server.port}"
            for streamed in (False, True):
                connection.send(post(relay.key, host=host, headers=f"Origin: {origin}\r\n", stream=streamed))
                said = await connection.answer()
                assert said.status == 200
                assert said.headers.get("access-control-allow-origin") == told
        # A page that is allowed can read why it was refused, too.
        connection.send(post("sk-relay-wrong-key-of-some-length", headers="Origin: https://chat.example\r\n"))
        said = await connection.answer()
        assert (said.status, said.headers["access-control-allow-origin"]) == (401, "https://chat.example")
        assert said.headers["vary"] == "Origin"
    assert (asked, len(upstream.seen)) == (1, 5)


@pytest.mark.promise("D-04")
async def test_a_browser_that_asks_beforehand_is_told(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream) + '    [server]\n    origins = ["https://chat.example"]\n')
    lines = (
        "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nOrigin: {}\r\n"
        "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type\r\n\r\n"
    )
    async with wire(relay) as connection:
        connection.send(lines.format("https://evil.example").encode())
        refused = await connection.answer()
        assert refused.status == 403
        assert not any(name.startswith("access-control") for name in refused.headers)
        connection.send(lines.format("https://chat.example").encode())
        said = await connection.answer()
    assert said.status == 204
    assert said.headers["access-control-allow-origin"] == "https://chat.example"
    assert said.headers["access-control-allow-headers"] == "authorization,content-type"
    assert said.headers["access-control-allow-methods"] == "GET, POST"
    assert "access-control-allow-credentials" not in said.headers


@pytest.mark.promise("D-04")
def test_a_page_of_the_relays_own_may_ask_and_its_neighbours_may_not() -> None:
    origins = Origins("127.0.0.1")
    assert origins.headers("http://localhost:8748", "localhost:8748") == {}
    for origin in ("http://localhost:3000", "http://localhost", "file://localhost:8748", "http://[", "null"):
        with pytest.raises(CallerError):
            origins.headers(origin, "localhost:8748")
    assert "Access-Control-Allow-Headers" not in preflight("x\r\ny")
    assert Origins("127.0.0.1", origins=["*"]).headers("null", None)["Access-Control-Allow-Origin"] == "null"


OPEN = {"/healthz", "/readyz"}
"""All that answers without a key."""


@pytest.mark.promise("A-07")
@pytest.mark.promise("A-11")
@pytest.mark.promise("A-12")
async def test_every_route_but_the_probes_needs_a_key_however_it_is_spelled(
    relay: Running, upstream: FakeUpstream
) -> None:
    seen = len(upstream.seen)
    routes = sorted(set(served(relay.server.app)))
    assert len(routes) > 30
    tricks = "X-Original-URL: /healthz\r\nX-Rewrite-URL: /healthz\r\nX-Forwarded-Prefix: /healthz\r\n"
    for method, plain in routes:
        if plain in OPEN:
            continue
        # Where a name may stand, more of it is a longer name.
        other = {404, 401, 405} if plain.endswith("/m") or "/models/" in plain else {404}
        async with wire(relay) as connection:
            spellings = {
                plain: {401},
                f"{plain}?x=/healthz": {401},
                f"http://localhost{plain}": {401},
                f"{plain}#/healthz": {401},
                f"/healthz/..{plain}": {401, 404},
                f"/healthz/%2e%2e{plain}": {401, 404},
                f"/{plain}": {404},
                f"{plain}/": other,
                f"{plain}%2f": other,
                f"{plain};x": other,
                f"{plain}/../healthz": {200, 401, 404, 405},
                plain.upper(): {404},
                "/" + plain[1:].replace("/", "%2f"): {404} if plain.count("/") > 1 else {401},
                "/" + plain[1:].replace("/", "\\"): {404} if plain.count("/") > 1 else {401},
            }
            for target, expected in spellings.items():
                request = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n{tricks}Content-Length: 2\r\n\r\n{{}}"
                connection.send(request.encode())
                said = await connection.answer(method)
                assert said.status in expected, (method, target, said)
                assert "choices" not in said.body.decode()
                assert '"data"' not in said.body.decode()
    assert len(upstream.seen) == seen


@pytest.mark.promise("A-12")
async def test_the_routes_that_need_no_key_are_those_that_the_page_names(relay: Running) -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    rows = {
        (method, path): "needs no key" in told
        for method, path, told in re.findall(r"(?m)^\| ([A-Z]+) \| `(/\S*)` \| (.*) \|$", page)
    }
    assert {path for (_, path), free in rows.items() if free} == OPEN
    assert len({(method, path) for method, path in served(relay.server.app) if method != "HEAD"}) == len(rows)
    async with wire(relay) as connection:
        for path in OPEN:
            for method, status in (("GET", 200), ("HEAD", 200), ("POST", 405), ("DELETE", 405)):
                connection.send(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert (await connection.answer(method)).status == status, (method, path)


@pytest.mark.promise("A-07")
async def test_a_host_in_the_target_counts(relay: Running) -> None:
    async with wire(relay) as connection:
        for target, status in (
            ("http://localhost/healthz", 200),
            ("http://[::1]/healthz", 200),
            ("http://evil.example/healthz", 421),
        ):
            connection.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert (await connection.answer()).status == status


SAFE = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@pytest.mark.promise("D-03")
async def test_no_answer_is_a_page(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = answers
    relay = await start(openai_config(upstream) + '    [server]\n    origins = ["https://chat.example"]\n')
    key = f"Host: localhost\r\nAuthorization: Bearer {relay.key}\r\n"
    lines = {
        "GET /healthz": (200, f"GET /healthz HTTP/1.1\r\n{key}\r\n"),
        "GET /readyz": (200, f"GET /readyz HTTP/1.1\r\n{key}\r\n"),
        "models": (200, f"GET /v1/models HTTP/1.1\r\n{key}\r\n"),
        "a model": (200, f"GET /v1/models/m HTTP/1.1\r\n{key}\r\n"),
        "no such model": (404, f"GET /v1/models/x HTTP/1.1\r\n{key}\r\n"),
        "nothing there": (404, f"GET /<script> HTTP/1.1\r\n{key}\r\n"),
        "no key": (401, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        "a method": (405, f"GET /v1/chat/completions HTTP/1.1\r\n{key}\r\n"),
        "no HTTP": (400, f"GET /healthz HTTP/1.1\r\n{key}Content-Length: x\r\n\r\n"),
        "a foreign host": (421, "GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        "a foreign page": (403, f"GET /healthz HTTP/1.1\r\n{key}Origin: https://evil.example\r\n\r\n"),
        "a browser that asks": (
            204,
            f"OPTIONS /v1/models HTTP/1.1\r\n{key}Origin: https://chat.example\r\n"
            "Access-Control-Request-Method: GET\r\n\r\n",
        ),
        "an allowed page": (200, f"GET /v1/models HTTP/1.1\r\n{key}Origin: https://chat.example\r\n\r\n"),
        "HEAD": (405, f"HEAD /v1/chat/completions HTTP/1.1\r\n{key}\r\n"),
    }
    for what, (status, request) in lines.items():
        async with wire(relay) as connection:
            connection.send(request.encode())
            said = await connection.answer(request.partition(" ")[0])
        assert said.status == status, (what, said)
        assert {name: said.headers.get(name) for name in SAFE} == SAFE, what
        assert said.headers.get("content-type", "application/json").startswith("application/json"), what
        assert "set-cookie" not in said.headers
    # Twice: through aiohttp's application, and in the lane.
    for way in [*ways(relay.relay.plugins), *ways(relay.relay.plugins)]:
        head = f"POST {way.path} HTTP/1.1\r\n{key}Content-Type: application/json\r\n"
        body = json.dumps(way.body)
        async with wire(relay) as connection:
            connection.send(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
            got = (await connection.rest()).partition(b"\r\n\r\n")[0].decode().split("\r\n")
        assert " 200 " in got[0]
        headers = [line.partition(": ") for line in got[1:]]
        for name, value in SAFE.items():
            assert [one for key_, _, one in headers if key_.lower() == name] == [value], (str(way), name)
