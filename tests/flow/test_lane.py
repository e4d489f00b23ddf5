"""The lane: what it takes, what it leaves, and that nobody can tell the difference."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.streams import StreamReader
from yarl import URL

from relay import door, lane
from relay.origins import Origins
from relay.skim import SkimmingMeter
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer, chat_chunk, chat_stream, http, stream
from tests.flow.loops import LANE

pytestmark = pytest.mark.skipif(not LANE, reason="the lane is switched off")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[lane.Passage]:
    """Every call that enters the lane."""
    found: list[lane.Passage] = []
    begin = lane.Passage.begin

    def noted(self: lane.Passage) -> None:
        found.append(self)
        begin(self)

    monkeypatch.setattr(lane.Passage, "begin", noted)
    return found


def request(relay: Running, *, headers: str = "", version: str = "1.1", **body: Any) -> bytes:
    """One chat request as bytes."""
    text = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], **body}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/{version}\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {relay.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n{headers}\r\n"
    )
    return head.encode() + text


@asynccontextmanager
async def connected(relay: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to the relay."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.server.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One answer off a connection: status, headers, body."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if "content-length" in headers:
        return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readexactly(2)
    return int(first.split()[1]), headers, body


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that will be true soon."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came true")


async def whole(relay: Running, streamed: bool) -> tuple[int, bool]:
    """The status of a call, and whether its answer was complete."""
    async with relay.chat(stream=streamed) as response:
        body = await response.read()
        return response.status, body.endswith(b"data: [DONE]\n\n") if streamed else bool(json.loads(body)["choices"])


async def warm(relay: Running) -> None:
    """Make the first call, after which there is a key in memory and a connection to the upstream."""
    async with relay.chat() as response:
        assert response.status == 200
        await response.read()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_plain_call_takes_the_lane_and_leaves_one_row(
    start: Start, upstream: FakeUpstream, taken: list[lane.Passage], streamed: bool
) -> None:
    upstream.scripts = [chat_answer(), chat_stream() if streamed else chat_answer()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    before = len(taken)
    async with relay.chat(stream=streamed) as response:
        assert response.status == 200
        assert b"Hello" in await response.read()
    assert len(taken) == before + 1
    assert taken[-1].over
    assert taken[-1].task is None, "it had to wait for nothing but its upstream"
    rows = await relay.rows()
    assert [row.outcome for row in rows] == ["ok", "ok"]
    assert rows[0].stream is streamed
    assert relay.relay.limiter.running() == 0


@pytest.mark.parametrize(
    ("path", "type_"),
    [
        ("generateContent", "application/json"),
        ("streamGenerateContent?alt=sse", "text/event-stream"),
        ("streamGenerateContent", "application/json"),
    ],
)
async def test_a_call_whose_model_stands_in_the_path_takes_the_lane(
    start: Start, upstream: FakeUpstream, taken: list[lane.Passage], path: str, type_: str
) -> None:
    upstream.answer = lambda seen: chat_stream() if seen.json.get("stream") else chat_answer()
    relay = await start(openai_config(upstream))
    await warm(relay)
    before = len(taken)
    body = {"contents": [{"parts": [{"text": "Hi"}]}]}
    headers = {"x-goog-api-key": relay.key}
    async with relay.client.post(f"{relay.url}/v1beta/models/m:{path}", json=body, headers=headers) as response:
        assert (response.status, response.content_type) == (200, type_)
        assert b"Hello" in await response.read()
    assert len(taken) == before + 1
    assert taken[-1].task is None
    # What is to be decoded first is left to those who know how.
    odd = URL(f"{relay.url}/v1beta/models/%6D:{path}", encoded=True)
    async with relay.client.post(odd, json=body, headers=headers) as response:
        assert response.status == 200
    assert len(taken) == before + 1
    rows = await relay.rows()
    assert [row.outcome for row in rows] == ["ok"] * 3


@pytest.mark.promise("H-17")
async def test_pipelined_requests_are_answered_in_their_order(
    start: Start, upstream: FakeUpstream, taken: list[lane.Passage]
) -> None:
    def echo(seen: Any) -> list[Any]:
        return chat_answer(text=seen.json["messages"][0]["content"])

    upstream.answer = echo
    relay = await start(openai_config(upstream))
    await warm(relay)
    texts = [f"number {number}" for number in range(40)]
    async with connected(relay) as (reader, writer):
        writer.write(b"".join(request(relay, messages=[{"role": "user", "content": text}]) for text in texts))
        got = [json.loads((await answer(reader))[2])["choices"][0]["message"]["content"] for _ in texts]
    assert got == texts
    assert taken


async def test_a_request_for_the_usual_way_between_two_for_the_lane_keeps_its_place(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    health = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with connected(relay) as (reader, writer):
        writer.write(request(relay) + health + request(relay, model="nobody") + request(relay))
        statuses = [(await answer(reader))[0] for _ in range(4)]
    assert statuses == [200, 200, 404, 200]


async def test_a_body_in_a_packet_of_its_own_still_takes_the_lane(
    start: Start, upstream: FakeUpstream, taken: list[lane.Passage]
) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    before = len(taken)
    head, _, body = request(relay).partition(b"\r\n\r\n")
    async with connected(relay) as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.005)
        writer.write(body)
        assert (await answer(reader))[0] == 200
        # So long that the usual way takes over, which has patience.
        writer.write(head + b"\r\n\r\n" + body[:10])
        await asyncio.sleep(door.PATIENCE * 3)
        writer.write(body[10:])
        assert (await answer(reader))[0] == 200
    assert before < len(taken) <= before + 2
    assert len(await relay.rows()) == 3


@pytest.mark.parametrize(("size", "known"), [(200_000, True), (400_000, True), (900_000, True), (2_000_000, False)])
async def test_no_body_waits_because_it_is_long(
    start: Start,
    upstream: FakeUpstream,
    taken: list[lane.Passage],
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    known: bool,
) -> None:
    # Nobody would wait for that long.
    monkeypatch.setattr(door, "PATIENCE", 600.0)
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    before = len(taken)
    async with asyncio.timeout(60), connected(relay) as (reader, writer):
        for letter in "abc":
            text = letter * size
            writer.write(request(relay, messages=[{"role": "user", "content": text}]))
            assert (await answer(reader))[0] == 200
            assert upstream.seen[-1].json["messages"][0]["content"] == text
    # The first one's head was not known, and aiohttp reads it.
    assert len(taken) - before in ((2, 3) if known else (0,))


async def test_more_than_the_body_that_is_held_is_another_request(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    async with connected(relay) as (reader, writer):
        first = request(relay, user="a" * 3000)
        writer.write(first)
        assert (await answer(reader))[0] == 200
        for cut in (1000, 2500, len(first) - 1):
            writer.write(first[:cut])
            await writer.drain()
            await asyncio.sleep(0.005)
            writer.write(first[cut:] + request(relay, user="b"))
            assert [(await answer(reader))[0] for _ in range(2)] == [200, 200]
            assert [seen.json["user"][0] for seen in upstream.seen[-2:]] == ["a", "b"]


async def test_a_client_that_asks_again_at_once_keeps_the_lane(
    start: Start, upstream: FakeUpstream, taken: list[lane.Passage], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its next request is there before the coroutine that answered the first one waits again.
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    before = len(taken)
    finish = web.RequestHandler.finish_response
    coming = [request(relay)]

    async def finished(self: door.Door, *arguments: Any) -> Any:
        got = await finish(self, *arguments)
        if coming:
            asyncio.get_running_loop().call_soon(self.data_received, coming.pop())
        return got

    monkeypatch.setattr(web.RequestHandler, "finish_response", finished)
    async with connected(relay) as (reader, writer):
        writer.write(request(relay, model="nobody"))
        assert [(await answer(reader))[0] for _ in range(2)] == [404, 200]
    assert len(taken) - before == 1


async def test_a_known_head_is_parsed_once(
    start: Start, upstream: FakeUpstream, taken: list[lane.Passage], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[int] = []
    parse = door.Door._parse

    def noted(self: door.Door, data: bytes, **options: Any) -> None:
        if data:
            parsed.append(len(data))
        parse(self, data, **options)

    monkeypatch.setattr(door.Door, "_parse", noted)
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    async with connected(relay) as (reader, writer):
        parsed.clear()
        for number in range(5):
            writer.write(request(relay, user="x" * 10**number))
            assert (await answer(reader))[0] == 200
        assert len(parsed) <= 2
        # Another head, another body behind it, and the first one again.
        writer.write(request(relay, headers="X-Other: 1\r\n"))
        assert (await answer(reader))[0] == 200
        writer.write(request(relay))
        assert (await answer(reader))[0] == 200
    assert len(await relay.rows()) == 8
    assert all(json.loads(seen.body)["messages"] for seen in upstream.seen if seen.body)


async def test_a_known_head_does_not_open_what_is_closed_meanwhile(start: Start, upstream: FakeUpstream) -> None:
    # What was judged once is judged again when the rules have changed.
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    async with connected(relay) as (reader, writer):
        for _ in range(2):
            writer.write(request(relay))
            assert (await answer(reader))[0] == 200
        relay.relay.origins = Origins("127.0.0.1", ["relay.example"], [])
        writer.write(request(relay).replace(b"Host: 127.0.0.1", b"Host: relay.example"))
        assert (await answer(reader))[0] == 200
        relay.relay.origins = Origins("127.0.0.1", [], [])
        writer.write(request(relay).replace(b"Host: 127.0.0.1", b"Host: relay.example"))
        assert (await answer(reader))[0] == 421


@pytest.mark.promise("H-17")
async def test_connection_close_and_old_clients_are_answered_and_let_go(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer(), chat_answer(), chat_answer(), chat_stream()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    for headers, version in (("Connection: close\r\n", "1.1"), ("", "1.0")):
        async with connected(relay) as (reader, writer):
            writer.write(request(relay, headers=headers, version=version))
            status, got, _ = await answer(reader)
            assert (status, got["connection"]) == (200, "close")
            assert await asyncio.wait_for(reader.read(), 5) == b""
    async with connected(relay) as (reader, writer):
        writer.write(request(relay, version="1.0", stream=True))
        everything = await asyncio.wait_for(reader.read(), 5)
        assert b"chunked" not in everything
        assert everything.rstrip().endswith(b"data: [DONE]")


async def test_a_failed_first_target_is_followed_by_the_next(
    start: Start, upstream: FakeUpstream, taken: list[lane.Passage]
) -> None:
    other = FakeUpstream(scripts=[chat_answer(text="from the other")])
    await other.start()
    try:
        upstream.scripts = [chat_answer(), http({"error": {"message": "busy"}}, status=503)]
        config = (
            openai_config(upstream)
            + f"""
    [upstreams.other]
    family = "openai"
    base_url = "{other.url}/v1"
    api_key = "sk-CANARY-other-key"
    """
        )
        relay = await start(config.replace('targets = ["up/m-1"]', 'targets = ["up/m-1", "other/m-2"]'))
        await warm(relay)
        async with relay.chat() as response:
            assert response.status == 200
            assert b"from the other" in await response.read()
        assert taken[-1].task is not None
        rows = await relay.rows()
        assert (rows[0].attempts, rows[0].upstream, rows[0].outcome) == (2, "other", "ok")
        assert relay.relay.limiter.running() == 0
    finally:
        await other.stop()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_takes_its_upstream_along(
    start: Start, upstream: FakeUpstream, taken: list[lane.Passage], streamed: bool
) -> None:
    half: list[Any] = [*chat_stream()[:2], "stall"] if streamed else ["stall"]
    upstream.scripts = [chat_answer(), half, chat_answer()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    async with connected(relay) as (_, writer):
        writer.write(request(relay, stream=streamed))
        await until(lambda: len(upstream.seen) == 2)
    await until(lambda: bool(upstream.peer_left))
    assert taken[-1].over
    rows = await relay.rows()
    assert (rows[0].outcome, rows[0].status) == ("client_abort", 499)
    assert relay.relay.limiter.running() == 0
    async with relay.chat() as response:
        assert response.status == 200


async def test_a_connection_is_not_taken_for_idle_while_its_call_runs(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer(), [0.4, *chat_answer()], chat_answer()]
    relay = await start(openai_config(upstream), keepalive_timeout=0.1)
    await warm(relay)
    async with connected(relay) as (reader, writer):
        writer.write(request(relay))
        assert (await answer(reader))[0] == 200
        # And is, once it is.
        assert await asyncio.wait_for(reader.read(), 5) == b""


@pytest.mark.promise("U-15")
async def test_a_second_answer_in_the_same_packet_reaches_nobody(start: Start, upstream: FakeUpstream) -> None:
    good = chat_answer()
    surplus = b"".join(step for step in chat_answer(text="SMUGGLED") if isinstance(step, bytes))
    upstream.scripts = [good, [b"".join(step for step in good if isinstance(step, bytes)) + surplus], good]
    relay = await start(openai_config(upstream))
    await warm(relay)
    async with connected(relay) as (reader, writer):
        writer.write(request(relay) * 3)
        bodies = [(await answer(reader))[2] for _ in range(3)]
    assert not any(b"SMUGGLED" in body for body in bodies)


async def test_a_rotated_key_is_refused_on_a_connection_that_used_it(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    async with connected(relay) as (reader, writer):
        writer.write(request(relay))
        assert (await answer(reader))[0] == 200
        (key,) = await relay.relay.store.keys.all()
        await relay.relay.store.keys.revoke(key.id)
        await relay.relay.store.ring.refresh()
        writer.write(request(relay))
        assert (await answer(reader))[0] == 401


async def test_a_stop_waits_for_the_call_in_the_lane(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer(), [0.3, *chat_answer()]]
    relay = await start(openai_config(upstream))
    await warm(relay)
    async with connected(relay) as (reader, writer):
        writer.write(request(relay))
        await until(lambda: len(upstream.seen) == 2)
        closing = asyncio.create_task(relay.server.close())
        assert (await answer(reader))[0] == 200
        await closing


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(lambda relay: request(relay, headers="Content-Encoding: gzip\r\n"), id="compressed"),
        pytest.param(lambda relay: request(relay, headers="x-api-key: another-key-of-20-chars\r\n"), id="two keys"),
        pytest.param(lambda relay: request(relay).replace(b"Bearer sk-", b"Bearer xx-"), id="a wrong key"),
        pytest.param(lambda relay: request(relay, messages=7), id="a bad body"),
        pytest.param(lambda relay: request(relay, model="nobody"), id="no such model"),
    ],
)
async def test_what_is_wrong_is_said_the_usual_way(
    start: Start, upstream: FakeUpstream, taken: list[lane.Passage], odd: Callable[[Running], bytes]
) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(openai_config(upstream))
    await warm(relay)
    before = len(taken)
    async with connected(relay) as (reader, writer):
        writer.write(odd(relay))
        status, headers, body = await answer(reader)
    assert 400 <= status < 500
    assert json.loads(body)["error"]["message"]
    assert headers["x-request-id"].startswith("req_")
    assert len(taken) == before
    assert len(upstream.seen) == 1


def test_this_aiohttp_has_what_the_lane_leans_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert door.usable()
    monkeypatch.setitem(door._NEEDED, web.RequestHandler, ("_gone",))
    assert not door.usable()
    monkeypatch.setitem(door._NEEDED, StreamReader, ("_gone",))
    assert not door.usable()


async def test_a_stream_with_tools_is_skimmed_and_its_calls_are_judged_all_the_same(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[bytes] = []
    feed = SkimmingMeter._read

    def noted(self: SkimmingMeter, event: bytes) -> int:
        decoded.append(event)
        return feed(self, event)

    monkeypatch.setattr(SkimmingMeter, "_read", noted)
    call: dict[str, Any] = {
        "index": 0,
        "id": "c1",
        "type": "function",
        "function": {"name": "weather", "arguments": ""},
    }
    pieces: list[dict[str, Any]] = [
        {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        for piece in ('{"ci', 'ty": ', *("7" for _ in range(50)), "}")
    ]
    words: list[dict[str, Any]] = [{"content": f"word {number}"} for number in range(50)]
    upstream.scripts = [
        stream(
            *(chat_chunk(delta) for delta in [*words, {"tool_calls": [call]}, *pieces]),
            chat_chunk(finish="tool_calls"),
            b"data: [DONE]\n\n",
        )
    ]
    relay = await start(openai_config(upstream))
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    async with relay.chat(stream=True, tools=[tool]) as response:
        assert b"[DONE]" in await response.read()
    assert (await relay.row()).tools == "invalid"
    assert len(decoded) < 12, "most of its text and of its arguments was not read"


@pytest.mark.promise("C-01")
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_is_written_is_sent_even_if_its_connection_is_closed_in_the_same_turn(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    # As a relay does that stops. With several calls under way, what is written waits for the end of the turn.
    go, calls = asyncio.Event(), 8
    upstream.answer = lambda seen: [go, *(chat_stream() if streamed else chat_answer())]
    relay = await start(openai_config(upstream))

    async def together() -> list[tuple[int, bool]]:
        before = len(upstream.seen)
        asked = [asyncio.create_task(whole(relay, streamed)) for _ in range(calls)]
        await until(lambda: len(upstream.seen) == before + calls)
        go.set()
        return await asyncio.gather(*asked)

    await together()
    go.clear()
    passed = door.Door.passed

    def closed(self: door.Door, outlet: Any) -> None:
        passed(self, outlet)
        self.force_close()

    monkeypatch.setattr(door.Door, "passed", closed)
    assert await together() == [(200, True)] * calls
    assert {row.outcome for row in await relay.rows()} == {"ok"}
