"""Upstreams that break, clients that leave, requests that are wrong: what each sees, and what is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import time
from typing import Any

import pytest

from tests.flow.conftest import Start, openai_config, read_stream
from tests.flow.fake import DONE, FakeUpstream, Step, chat_answer, chat_chunk, chat_stream, http, stream

WORDS = [chat_chunk({"content": word}) for word in ("one ", "two ", "three ")]
ERROR = b'data: {"error":{"message":"it broke","type":"server_error","code":null}}\n\n'


def last_error(got: bytes) -> dict[str, Any]:
    line = [line for line in got.split(b"\n") if line.startswith(b"data: ")][-1]
    error: dict[str, Any] = json.loads(line[6:])["error"]
    return error


CUTS: dict[str, list[Step]] = {
    "chunked, FIN": stream(*WORDS, "fin", end=False),
    "chunked, FIN inside an event": stream(*WORDS, b'data: {"id":"chatcmp', "fin", end=False),
    "chunked, ended properly but not finished": stream(*WORDS),
    "RST": stream(*WORDS, 0.05, "rst", end=False),
    "until close": [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", *WORDS, "fin"],
    "HTTP/1.0": [b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", *WORDS, "fin"],
    "length": [b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n", *WORDS, "fin"],
    "[DONE] without a finish": stream(*WORDS, 0.05, DONE),
}


@pytest.mark.promise("U-01")
@pytest.mark.promise("U-02")
@pytest.mark.parametrize("cut", CUTS)
async def test_a_cut_stream_ends_with_an_error_and_never_looks_finished(
    start: Start, upstream: FakeUpstream, cut: str
) -> None:
    upstream.scripts = [CUTS[cut]]
    relay = await start(openai_config(upstream))
    status, got, proper = await read_stream(relay)
    assert status == 200
    assert b"".join(WORDS) in got
    assert b"[DONE]" not in got
    assert last_error(got)["type"] == "api_error"
    assert got.count(b'"error"') == 1
    assert not proper
    row = await relay.row()
    assert row.outcome == "upstream_cut"
    assert row.usage_source == "estimate"
    assert row.usage is not None
    assert (row.usage.output or 0) > 0
    assert (row.cost or 0) > 0


@pytest.mark.promise("U-02")
async def test_a_stall_ends_with_an_error(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [stream(*WORDS, "stall", end=False)]
    relay = await start(openai_config(upstream).replace("[models.m]", "idle_timeout = 0.3\n    [models.m]"))
    _, got, proper = await read_stream(relay)
    assert last_error(got)["code"] == "upstream_timeout"
    assert not proper
    assert (await relay.row()).outcome == "timeout"


@pytest.mark.promise("U-02")
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_upstream_that_never_answers_is_a_504(start: Start, upstream: FakeUpstream, streamed: bool) -> None:
    upstream.scripts = [["stall"]]
    relay = await start(openai_config(upstream).replace("[models.m]", "first_byte_timeout = 0.3\n    [models.m]"))
    async with relay.chat(stream=streamed) as response:
        assert response.status == 504
        assert (await response.json())["error"]["code"] == "upstream_timeout"
    row = await relay.row()
    assert (row.outcome, row.status, row.cost) == ("timeout", 504, 0)


@pytest.mark.promise("U-03")
async def test_an_error_before_the_first_output_is_a_real_status_and_falls_over(
    start: Start, upstream: FakeUpstream
) -> None:
    opening = chat_chunk({"role": "assistant", "content": ""})
    upstream.answer = lambda seen: stream(opening, ERROR) if seen.json["model"] == "m-1" else chat_stream()
    relay = await start(openai_config(upstream))
    async with relay.chat(stream=True) as response:
        assert response.status == 502
        assert (await response.json())["error"]["message"] == "it broke"
    two = await start(openai_config(upstream).replace('["up/m-1"]', '["up/m-1", "up/m-2"]'))
    status, got, proper = await read_stream(two)
    assert (status, proper) == (200, True)
    assert b"Hello" in got
    assert b"it broke" not in got


@pytest.mark.promise("U-03")
async def test_an_error_after_output_passes_through_once_and_ends_the_stream(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.scripts = [stream(*WORDS, 0.05, ERROR, DONE)]
    relay = await start(openai_config(upstream))
    _, got, proper = await read_stream(relay)
    assert got.count(b"it broke") == 1
    assert not proper
    assert (await relay.row()).outcome == "upstream_error"


@pytest.mark.promise("U-04")
async def test_an_upstream_that_does_not_close_after_the_end_does_not_hold_the_client(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.scripts = [stream(*WORDS, chat_chunk(finish="stop"), DONE, "stall", end=False)]
    relay = await start(openai_config(upstream))
    began = time.monotonic()
    _, got, proper = await read_stream(relay)
    assert proper
    assert got.endswith(DONE)
    assert time.monotonic() - began < 3


@pytest.mark.promise("U-04")
async def test_a_stream_without_done_but_with_a_finish_is_complete(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [stream(*WORDS, chat_chunk(finish="stop"))]
    relay = await start(openai_config(upstream))
    _, _, proper = await read_stream(relay)
    assert proper
    assert (await relay.row()).outcome == "ok"


UNUSABLE: dict[str, tuple[list[Step], int, str]] = {
    "HTML": (http(b"<html>nope</html>", content_type="text/html"), 502, "upstream_protocol_error"),
    "no JSON": (http(b"{"), 502, "upstream_protocol_error"),
    "an array": (http(b"[]"), 502, "upstream_protocol_error"),
    "redirect": (http(b"", 307, location="http://127.0.0.1:9/"), 502, "upstream_protocol_error"),
    "401": (http({"error": {"message": "bad key sk-CANARY-upstream-key"}}, 401), 502, "upstream_credentials"),
    "403": (http({"error": {"message": "no"}}, 403), 502, "upstream_credentials"),
    "402": (http({"error": {"message": "pay"}}, 402), 502, "upstream_credit"),
    "404": (http({"error": {"message": "no such model", "code": "model_not_found"}}, 404), 404, "model_not_found"),
    "413": (http({"error": {"message": "too long"}}, 413), 413, "upstream_refused"),
    "500": (http(b"Internal Server Error", 500, content_type="text/plain"), 502, "upstream_error"),
    "503": (http({"error": {"message": "later"}}, 503, retry_after="7"), 503, "upstream_overloaded"),
    "529": (http({"error": {"message": "overloaded"}}, 529), 503, "upstream_overloaded"),
    "a closed connection": (["fin"], 502, "upstream_hung_up"),
    "a reset": (["rst"], 502, "upstream_hung_up"),
    "no HTTP": ([b"SSH-2.0-OpenSSH_9\r\n\r\n", "fin"], 502, "upstream_protocol_error"),
    "a cut body": (
        [b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{", "fin"],
        502,
        "upstream_protocol_error",
    ),
}


@pytest.mark.promise("U-10")
@pytest.mark.promise("U-16")
@pytest.mark.parametrize("case", UNUSABLE)
async def test_each_broken_answer_is_a_clear_error(start: Start, upstream: FakeUpstream, case: str) -> None:
    script, status, code = UNUSABLE[case]
    upstream.scripts = [script]
    relay = await start(openai_config(upstream))
    async with relay.chat() as response:
        raw = await response.read()
        assert response.status == status, raw
        error = json.loads(raw)["error"]
        assert set(error) == {"type", "code", "message", "param"}
        assert error["code"] == code
        assert "CANARY" not in error["message"]
        assert "<html>" not in error["message"]
        if case == "503":
            assert response.headers["Retry-After"] == "7"
    row = await relay.row()
    assert row.status == status
    assert row.outcome in ("upstream_error", "upstream_cut")
    assert relay.relay.limiter.running() == 0


@pytest.mark.promise("U-18")
async def test_an_upstream_that_is_not_there_is_a_502(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream))
    await upstream.stop()
    async with relay.chat() as response:
        assert response.status == 502
        assert (await response.json())["error"]["code"] == "upstream_unreachable"


BAD: dict[str, tuple[bytes, str | None]] = {
    "empty": (b"", None),
    "cut": (b'{"model":"m"', None),
    "array": (b"[]", None),
    "null": (b"null", None),
    "NaN": (b'{"model":"m","messages":[{"role":"user","content":"x"}],"top_p":NaN}', None),
    "not UTF-8": (b'{"model":"\xff"}', None),
    "no model": (b'{"messages":[{"role":"user","content":"x"}]}', "model"),
    "model a number": (b'{"model":3,"messages":[{"role":"user","content":"x"}]}', "model"),
    "two models": (b'{"model":"m","messages":[{"role":"user","content":"x"}],"model":"m"}', "model"),
    "no messages": (b'{"model":"m"}', "messages"),
    "messages empty": (b'{"model":"m","messages":[]}', "messages"),
    "messages text": (b'{"model":"m","messages":"hi"}', "messages"),
    "stream text": (b'{"model":"m","messages":[{"role":"user","content":"x"}],"stream":"yes"}', "stream"),
    "max_tokens 0": (b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":0}', "max_tokens"),
    "max_tokens huge": (b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":9e30}', "max_tokens"),
    "n negative": (b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":-1}', "n"),
    "n huge": (b'{"model":"m","messages":[{"role":"user","content":"x"}],"n":1000000000}', "n"),
    "deep": (b'{"model":"m","messages":' + b"[" * 3000 + b"]" * 3000 + b"}", None),
}


@pytest.mark.promise("H-06")
@pytest.mark.parametrize("case", BAD)
async def test_each_bad_request_is_a_400_that_names_the_parameter(
    start: Start, upstream: FakeUpstream, case: str
) -> None:
    raw, param = BAD[case]
    relay = await start(openai_config(upstream))
    async with relay.client.post(f"{relay.url}/v1/chat/completions", data=raw) as response:
        assert response.status == 400
        error = (await response.json())["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    if param is not None:
        assert error["param"] == param
    assert not upstream.seen
    assert (await relay.row()).outcome == "rejected"


async def test_an_unknown_model_is_a_404(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream))
    async with relay.chat(model="nothing") as response:
        assert response.status == 404
        assert (await response.json())["error"]["code"] == "model_not_found"
    row = await relay.row()
    assert (row.outcome, row.model) == ("rejected", None)


@pytest.mark.promise("H-08")
async def test_a_body_over_the_limit_is_a_413(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream) + "    [server]\n    max_body_mb = 1\n")
    async with relay.client.post(f"{relay.url}/v1/chat/completions", data=io.BytesIO(b"x" * 1_500_000)) as response:
        assert response.status == 413
        assert (await response.json())["error"]["code"] == "request_too_large"
    assert (await relay.row()).status == 413


@pytest.mark.promise("H-05")
async def test_a_compressed_body_is_refused(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream))
    async with relay.client.post(
        f"{relay.url}/v1/chat/completions", data=b"x", headers={"Content-Encoding": "gzip"}, skip_auto_headers=()
    ) as response:
        assert response.status == 415


@pytest.mark.promise("H-04")
async def test_a_body_that_never_comes_times_out(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream) + "    [server]\n    body_timeout = 0.3\n")
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.server.port)
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {relay.key}",
        "Content-Length: 100",
    ]
    writer.write("\r\n".join([*lines, "", "{"]).encode())
    answer = await asyncio.wait_for(reader.readuntil(b"}}"), 5)
    assert b" 408 " in answer
    writer.close()


@pytest.mark.promise("H-08")
async def test_wrong_paths_and_methods_are_enveloped(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(openai_config(upstream))
    for method, path, status in (
        ("GET", "/nope", 404),
        ("POST", "/v1/nope", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
    ):
        async with relay.client.request(method, relay.url + path) as response:
            assert response.status == status
            assert set((await response.json())["error"]) == {"type", "code", "message", "param"}
            assert response.headers["x-request-id"]


async def left(upstream: FakeUpstream, since: float) -> float:
    """Seconds until the upstream saw its peer go."""
    for _ in range(200):
        if upstream.peer_left:
            return upstream.peer_left[0] - since
        await asyncio.sleep(0.01)
    raise AssertionError("the upstream never saw its peer leave")


@pytest.mark.promise("F-01")
@pytest.mark.parametrize(
    ("streamed", "script", "seen"),
    [
        (True, [5.0, *chat_stream()], "none"),
        (False, [5.0, *chat_answer()], "none"),
        (True, stream(*WORDS, 5.0, *[chat_chunk(finish="stop"), DONE]), "estimate"),
    ],
)
async def test_a_client_that_leaves_ends_the_upstreams_work(
    start: Start, upstream: FakeUpstream, streamed: bool, script: list[Step], seen: str
) -> None:
    upstream.scripts = [script]
    relay = await start(openai_config(upstream))

    async def ask() -> None:
        async with relay.chat(stream=streamed) as response:
            await response.read()

    task = asyncio.create_task(ask())
    for _ in range(2000):
        if upstream.seen:
            break
        await asyncio.sleep(0.01)
    # What it answers at once has come by then.
    await asyncio.sleep(0.4)
    gone = time.monotonic()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert await left(upstream, gone) < 2
    await asyncio.sleep(0.05)
    row = await relay.row()
    assert (row.outcome, row.usage_source, row.status) == ("client_abort", seen, 499)
    assert relay.relay.limiter.running() == 0
    if seen == "estimate":
        assert (row.cost or 0) > 0


@pytest.mark.promise("P-04")
async def test_a_broken_decoder_costs_numbers_and_not_the_stream(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def feed(self, data: bytes) -> list[Any]:
            raise RuntimeError("decoder bug")

        def close(self) -> list[Any]:
            raise RuntimeError("decoder bug")

    upstream.scripts = [chat_stream()]
    relay = await start(openai_config(upstream))
    family = relay.relay.plugins.families["openai"]
    monkeypatch.setattr(type(family), "meter_stream", lambda self, *_: None)
    monkeypatch.setattr(type(family), "translate_stream", lambda self, *_: Broken())
    status, got, proper = await read_stream(relay)
    assert (status, proper) == (200, True)
    assert got.endswith(DONE)
    assert (await relay.row()).usage_source == "estimate"


@pytest.mark.promise("P-04")
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_broken_meter_costs_numbers_and_not_the_answer(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    import relay_openai.skim

    def broken(*_: object) -> Any:
        raise RuntimeError("meter bug")

    upstream.scripts = [chat_stream() if streamed else chat_answer()]
    relay = await start(openai_config(upstream))
    family = relay.relay.plugins.families["openai"]
    if streamed:
        monkeypatch.setattr(relay_openai.skim.SkimmingMeter, "feed", broken)
    else:
        monkeypatch.setitem(family._calls, "meter_response", broken)
    async with relay.chat(stream=streamed) as response:
        assert response.status == 200
        assert b"Hello" in await response.read()
    row = await relay.row()
    assert (row.outcome, row.usage_source) == ("ok", "estimate" if streamed else "provider")


@pytest.mark.promise("U-12")
async def test_silence_is_filled_with_keep_alives_between_events(start: Start, upstream: FakeUpstream) -> None:
    half = WORDS[1][:20]
    upstream.scripts = [
        stream(WORDS[0], 0.35, half, 0.35, WORDS[1][20:], chat_chunk(finish="stop"), DONE),
    ]
    relay = await start(openai_config(upstream) + "    [server]\n    keep_alive_seconds = 0.1\n")
    _, got, proper = await read_stream(relay)
    assert proper
    assert got.count(b": keep-alive\n\n") >= 2
    assert WORDS[1] in got
