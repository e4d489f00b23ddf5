"""What real clients were seen to expect of streams and of errors, one by one, of a whole relay."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from tests.clients.scripted import WRITERS, Model
from tests.flow.conftest import Start
from tests.flow.fake import FakeUpstream, Seen, Step, chat_chunk, stream
from tests.promises.asking import FOUR, KINDS, Asker, asking
from tests.promises.test_clients import asker

__all__ = ["asker"]


# Streams.


@pytest.mark.promise("K-20")
@pytest.mark.parametrize("kind", KINDS)
async def test_a_long_silence_is_filled_as_each_kind_of_client_takes_it(
    start: Start, upstream: FakeUpstream, kind: str
) -> None:
    [head, first, *rest] = WRITERS["/chat/completions"]("Good day", None, True)
    upstream.answer = lambda seen: [head, first, *rest[:1], 0.25, *rest[1:]]
    config = "[server]\nkeep_alive_seconds = 0.1\n" + FOUR.replace("{url}", upstream.url)
    asker = Asker(await start(config), upstream)
    got = await asker.ask(kind, "chat", stream=True)
    filled = {"chat": b": keep-alive\n\n", "responses": b"event: keepalive\n", "messages": b"event: ping\n"}
    if kind == "gemini":
        assert all(line.startswith(b"data: ") for line in got.splitlines() if line)
    else:
        assert filled[kind] in got


@pytest.mark.promise("K-21")
@pytest.mark.parametrize("kind", KINDS)
async def test_any_line_end_and_any_cut_reads_the_same(asker: Asker, kind: str) -> None:
    plain = await asker.ask("responses", kind, stream=True)

    def cut(seen: Seen) -> list[Step]:
        head, *pieces = Model().answer(seen)
        body = b"".join(piece.split(b"\r\n", 1)[1][:-2] for piece in pieces if isinstance(piece, bytes))
        body = body.replace(b"\n", b"\r\n")
        small = [body[place : place + 40] for place in range(0, len(body), 40)]
        return [head, *stream(*small)[1:]]

    asker.upstream.answer = cut
    again = await asker.ask("responses", kind, stream=True)
    assert said(again) == said(plain) == "A title"


def said(data: bytes) -> str:
    """The text of a stream of Responses."""
    values = [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: {")]
    return "".join(value["delta"] for value in values if value["type"] == "response.output_text.delta").strip()


@pytest.mark.promise("K-22")
async def test_streams_are_counted_whether_clients_ask_or_not(asker: Asker) -> None:
    got = await asker.ask("chat", "chat", stream=True)
    assert asker.last.json["stream_options"] == {"include_usage": True}
    assert b'"usage"' not in got
    got = await asker.ask("chat", "chat", stream=True, stream_options={"include_usage": True})
    assert b'"usage"' in got
    rows = await asker.relay.rows()
    assert [row.usage_source for row in rows] == ["provider", "provider"]


RAISED: Mapping[str, bytes] = {
    "chat": b'data: {"error":',
    "responses": b"event: response.failed\n",
    "messages": b"event: error\n",
    "gemini": b'data: {"error":{"code":',
}
ENDS = (b"[DONE]", b"message_stop", b"response.completed", b"finishReason")


@pytest.mark.promise("K-23")
@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_in_a_stream_is_what_this_kind_of_client_raises(asker: Asker, kind: str) -> None:
    fault = b'data: {"error": {"message": "CUDA is out of memory", "type": "server_error", "code": 500}}\n\n'
    asker.upstream.answer = lambda seen: stream(chat_chunk({"content": "Go"}), 0.05, fault)
    got = await asker.ask(kind, "chat", stream=True)
    assert got.count(RAISED[kind]) == 1
    assert b"CUDA is out of memory" in got
    assert not any(end in got for end in ENDS)
    if kind == "responses":
        values = [json.loads(line[6:]) for line in got.splitlines() if line.startswith(b"data: ")]
        ids = {value["response"]["id"] for value in values if "response" in value}
        assert len(ids) == 1
        assert values[-1]["response"]["error"]["code"] == "server_error"


@pytest.mark.promise("K-24")
@pytest.mark.parametrize("end", ["fin", "rst"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_breaks_is_an_error_and_no_cut(asker: Asker, kind: str, end: str) -> None:
    asker.upstream.answer = lambda seen: stream(chat_chunk({"content": "Go"}), 0.05, end, end=False)
    got = await asker.ask(kind, "chat", stream=True)
    assert got.count(RAISED[kind]) == 1
    assert not any(finish in got for finish in ENDS)


# Errors, and how often they are tried again.


@pytest.mark.promise("K-25")
@pytest.mark.parametrize("kind", KINDS)
async def test_every_error_is_in_the_form_of_its_dialect(asker: Asker, kind: str) -> None:
    path, body = asking(kind, "nobody's")
    status, headers, data = await asker.send(path, body)
    error = json.loads(data)["error"]
    assert (status, headers["Content-Type"]) == (404, "application/json")
    assert "nobody's" in error["message"]
    wanted = {
        "chat": {"message", "type", "param", "code"},
        "responses": {"message", "type", "param", "code"},
        "messages": {"message", "type", "details"},
        "gemini": {"message", "code", "status", "details"},
    }
    assert set(error) == wanted[kind]


@pytest.mark.promise("K-26")
@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_refused_costs_nobody_anything(start: Start, upstream: FakeUpstream, kind: str) -> None:
    upstream.answer = Model().answer
    config = FOUR.replace("{url}", upstream.url)
    relay = await start(config, key={"rpm": 1})
    asker = Asker(relay, upstream)
    path, body = asking(kind, "chat")
    await asker.ask(kind, "chat")
    for _ in range(27):
        assert (await asker.send(path, body))[0] == 429
    for _ in range(9):
        status, _, _ = await asker.send(path, "this is not even an object", Authorization="Bearer sk-relay-wrong-key")
        assert status == 401
    assert len(upstream.seen) == 1


@pytest.mark.promise("K-27")
async def test_whoever_has_to_wait_is_told_how_long(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = Model().answer
    relay = await start(FOUR.replace("{url}", upstream.url), key={"rpm": 60})
    asker = Asker(relay, upstream)
    path, body = asking("chat", "chat")
    while (answer := await asker.send(path, body))[0] == 200:
        pass
    status, headers, _ = answer
    assert status == 429
    assert int(headers["Retry-After"]) == 1
    assert 0 < int(headers["retry-after-ms"]) <= 1000
    # Waiting helps.
    assert headers.get("x-should-retry") != "false"


@pytest.mark.promise("K-28")
@pytest.mark.parametrize("kind", KINDS)
async def test_where_trying_again_cannot_help_clients_are_told_so(
    start: Start, upstream: FakeUpstream, kind: str
) -> None:
    upstream.answer = Model().answer
    config = FOUR.replace("{url}", upstream.url).replace("[models.chat]\n", "[models.chat]\nprice = {output = 1.0}\n")
    relay = await start(config, key={"budget": {"day": 1}, "models": ["chat"]})
    asker = Asker(relay, upstream)
    found = {}
    for model, headers in (("chat", {"Authorization": "Bearer sk-relay-wrong-key"}), ("messages", {}), ("chat", {})):
        status, told, _ = await asker.send(*asking(kind, model), **headers)
        found[status] = told.get("x-should-retry")
    assert found == {401: "false", 403: "false", 402: "false"}


@pytest.mark.promise("K-29")
async def test_calls_in_the_background_count_like_any_other(start: Start, upstream: FakeUpstream) -> None:
    upstream.answer = Model().answer
    relay = await start(FOUR.replace("{url}", upstream.url), key={"rpm": 2})
    asker = Asker(relay, upstream)
    await asker.ask("chat", "chat", tools=[{"type": "function", "function": {"name": "f"}}])
    await asker.ask("chat", "chat", messages=[{"role": "user", "content": "Make a title of this."}])
    assert (await asker.send(*asking("chat", "chat")))[0] == 429
    assert [row.status for row in await relay.rows()] == [429, 200, 200]
    assert len({row.key_id for row in await relay.rows()}) == 1
