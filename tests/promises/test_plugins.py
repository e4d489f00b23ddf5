"""Plugins that do what they should not: each is named, costs its own models at most, and nobody else's call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from relay import Family, UpstreamRequest, hookimpl
from relay.events import ChoiceStop, MessageStart, MessageStop, PartStart, PartStop, TextDelta, UsageSeen
from relay.ir import Choice, Response, StopReason, Text, Usage
from relay.manager import Plugins
from relay.stalls import Stalls
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer, chat_chunk, chat_stream, stream
from tests.promises.wire import until

GOOD = [MessageStart("x", "x"), PartStart(0, Text(""))]
END = [PartStop(0), ChoiceStop(StopReason("stop")), UsageSeen(Usage(3, 2)), MessageStop()]


class Decoder:
    """Tells a word for each piece, and does one thing wrong."""

    def __init__(self, feed: Callable[[int, bytes], Any], close: Callable[[], Any] = list) -> None:
        self._feed = feed
        self._close = close
        self._count = 0

    def feed(self, data: bytes, /) -> Any:
        self._count += 1
        return self._feed(self._count, data)

    def close(self) -> Any:
        return self._close()


def words(count: int, data: bytes) -> list[Any]:
    """What a good decoder says."""
    text = [TextDelta(0, f"word{count} ")]
    return [*GOOD, *text] if count == 1 else text


def raises(*_: Any) -> Any:
    raise RuntimeError("sk-CANARY-in-a-plugin")


def at(number: int, bad: Callable[..., Any]) -> Callable[[int, bytes], Any]:
    """A decoder that is good until its piece of that number."""
    return lambda count, data: bad(count, data) if count == number else words(count, data)


class Plugin(SimpleNamespace):
    """Hooks in an object."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def family(**hooks: Any) -> Plugin:
    """A plugin with the family `odd`, whose hooks are good but for these."""

    def relay_families() -> Any:
        return [Family("odd", options=frozenset({"x"}))]

    def translate_request(request: Any, target: Any) -> bytes:
        return json.dumps({"model": target.model, "stream": request.stream}).encode()

    def endpoint(target: Any, body: bytes) -> Any:
        return UpstreamRequest(target.upstream.base_url + "/odd", {"content-type": "application/json"}, body)

    def translate_response(target: Any, body: bytes) -> Any:
        return Response("x", "x", [Choice([Text("Hello")], StopReason("stop"))], Usage(3, 2))

    def translate_stream() -> Any:
        return Decoder(words, lambda: END)

    known = {"relay_families": relay_families, "translate_request": translate_request, "endpoint": endpoint}
    known |= {"translate_response": translate_response, "translate_stream": translate_stream, **hooks}
    return Plugin(**{name: hookimpl(hook) for name, hook in known.items()})


def config(upstream: FakeUpstream, more: str = "") -> str:
    """The models `m`, which is good, and `odd`, whose plugin is not."""
    odd = f"""
    [upstreams.odd]
    family = "odd"
    base_url = "{upstream.url}"
    api_key = "sk-CANARY-of-the-odd"
    idle_timeout = 2.0
    {more}
    [models.odd]
    targets = ["odd/x"]
    price = {{input = 1.0, output = 2.0}}
    [routing]
    max_attempts = 1
    max_cool_down_seconds = 0
    """
    return openai_config(upstream) + odd


async def serve(start: Start, upstream: FakeUpstream, more: str = "", **hooks: Any) -> Running:
    upstream.answer = upstream.answer or (
        lambda seen: chat_stream("one two three") if seen.json.get("stream") else chat_answer()
    )
    return await start(config(upstream, more), plugins=Plugins.load(given={"odd": family(**hooks)}))


PLANES: Mapping[str, tuple[str, bool]] = {
    "stream": ("/v1/chat/completions", True),
    "whole": ("/v1/chat/completions", False),
    "messages": ("/v1/messages", False),
    "messages, streamed": ("/v1/messages", True),
}


async def ask(relay: Running, plane: str, model: str = "odd") -> tuple[int, bytes, bool]:
    """Status, what came, and whether the body ended properly."""
    path, streamed = PLANES[plane]
    body = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], "stream": streamed}
    async with relay.client.post(relay.url + path, json=body) as response:
        got = b""
        try:
            async for piece in response.content.iter_any():
                got += piece
        except aiohttp.ClientPayloadError:
            return response.status, got, False
        return response.status, got, True


async def others_are_served(relay: Running) -> None:
    for plane in PLANES:
        status, got, proper = await ask(relay, plane, "m")
        assert (status, proper) == (200, True)
        assert b"one" in got or b"Hello" in got


# P-03


def mutates(request: Any, target: Any) -> bytes:
    target.upstream.headers["x-evil"] = "1"
    return b"{}"


def mutates_options(request: Any, target: Any) -> bytes:
    target.upstream.options["x"] = "evil"
    return b"{}"


def sends(**headers: str) -> Callable[[Any, bytes], Any]:
    def endpoint(target: Any, body: bytes) -> Any:
        return UpstreamRequest(
            target.upstream.base_url, {name.replace("_", "-"): value for name, value in headers.items()}, body
        )

    return endpoint


def asks(url: str) -> Callable[[Any, bytes], Any]:
    def endpoint(target: Any, body: bytes) -> Any:
        return UpstreamRequest(url.format(base=target.upstream.base_url), {}, body)

    return endpoint


BAD: Mapping[str, tuple[dict[str, Any], str]] = {
    "a request that raises": ({"translate_request": raises}, "plugin_error"),
    "a request of no bytes": ({"translate_request": lambda request: None}, "plugin_error"),
    "a request of text": ({"translate_request": lambda request: "text"}, "plugin_error"),
    "an endpoint that raises": ({"endpoint": raises}, "plugin_error"),
    "an endpoint that is none": ({"endpoint": lambda body: "http://127.0.0.1"}, "plugin_error"),
    "headers of the configuration": ({"translate_request": mutates}, "plugin_error"),
    "options of the configuration": ({"translate_request": mutates_options}, "plugin_error"),
    "a header of two lines": ({"endpoint": sends(x_a="1\r\nx-evil: 2")}, "upstream_unreachable"),
    "a header's name of two lines": ({"endpoint": sends(**{"x\r\nevil": "1"})}, "upstream_unreachable"),
    "an address of two lines": ({"endpoint": asks("{base}/a\r\nx-evil: 1")}, "upstream_unreachable"),
    "an address that is none": ({"endpoint": asks("gopher://127.0.0.1/")}, "upstream_unreachable"),
    "an address of a cloud's secrets": ({"endpoint": asks("http://169.254.169.254.nip.test/")}, "upstream_unreachable"),
}
"""What a plugin does, and the code of the error that comes of it."""


@pytest.mark.promise("P-03")
@pytest.mark.parametrize("what", BAD)
async def test_what_a_plugin_does_wrong_is_an_error_of_its_own_models_only(
    start: Start, upstream: FakeUpstream, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    hooks, code = BAD[what]
    relay = await serve(start, upstream, **hooks)
    before = [(dict(one.headers), dict(one.options)) for one in relay.relay.catalog.upstreams]
    for plane in PLANES:
        status, got, _ = await ask(relay, plane)
        assert status in (500, 502), got
        assert code.encode() in got or "messages" in plane, got
        assert b"CANARY" not in got
        if code == "plugin_error":
            assert b"plugin 'odd'" in got, "it is named"
    assert upstream.seen == [], "nothing was sent"
    assert [(dict(one.headers), dict(one.options)) for one in relay.relay.catalog.upstreams] == before
    await others_are_served(relay)
    assert relay.relay.limiter.running() == 0
    rows = [row for row in await relay.rows() if row.model == "odd"]
    assert [row.outcome for row in rows] == ["upstream_error"] * len(PLANES)
    assert {row.cost for row in rows} == {0}


@pytest.mark.promise("P-03")
@pytest.mark.parametrize("what", ["raises", "nothing", "text"])
async def test_what_a_plugin_makes_of_an_answer_is_its_own_models_fault_only(
    start: Start, upstream: FakeUpstream, what: str
) -> None:
    bad: Mapping[str, Any] = {"raises": raises, "nothing": lambda body: None, "text": lambda body: "Hello"}
    relay = await serve(start, upstream, translate_response=bad[what], translate_stream=lambda: bad[what]({}))
    for plane in ("whole", "messages"):
        status, got, _ = await ask(relay, plane)
        assert (status, b"plugin 'odd'" in got) == (500, True), got
    for plane in ("stream", "messages, streamed"):
        status, got, _ = await ask(relay, plane)
        assert b"[DONE]" not in got
        assert (status, b"plugin 'odd'" in got) == (500, True), got
    await others_are_served(relay)


# P-04

ODD_FEEDS: Mapping[str, Callable[..., Any]] = {
    "raises": raises,
    "gives nothing": lambda count, data: None,
    "gives text": lambda count, data: "text",
    "gives what is no event": lambda count, data: [object()],
    "gives text that is none": lambda count, data: [TextDelta(0, None)],  # type: ignore[arg-type]
    "gives a count that is none": lambda count, data: [UsageSeen(None)],  # type: ignore[arg-type]
    "gives a hundred thousand events and one": lambda count, data: [TextDelta(0, "x")] * 100_001,
}
QUIET = {"gives what is no event", "gives a count that is none"}
"""What is not noticed, because nothing comes of it."""


@pytest.mark.promise("P-04")
@pytest.mark.parametrize("plane", ["stream", "messages, streamed"])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("what", ODD_FEEDS)
async def test_a_decoder_that_breaks_at_any_event_ends_its_stream_with_an_error(
    start: Start, upstream: FakeUpstream, what: str, number: int, plane: str
) -> None:
    if what == "gives a count that is none" and number == 1:
        pytest.skip("a count says nothing before there is an answer")
    pieces = [chat_chunk({"content": word}) for word in "abcde"]
    steps = [step for piece in pieces for step in (piece, 0.01)]
    upstream.answer = lambda seen: stream(*steps) if seen.path == "/odd" else chat_answer()
    relay = await serve(start, upstream, translate_stream=lambda: Decoder(at(number, ODD_FEEDS[what]), lambda: END))
    status, got, proper = await ask(relay, plane)
    row = await relay.latest()
    if what in QUIET:
        assert status == 200
    else:
        assert b"[DONE]" not in got
        assert b"message_stop" not in got
        assert b"plugin 'odd'" in got, got
        assert b"CANARY" not in got
        assert status == 500 if number == 1 else (status, proper) == (200, False)
        assert (row.outcome, row.error_code) == ("upstream_error", "plugin_error")
        assert (b"word1" in got) is (number == 3)
    assert relay.relay.limiter.running() == 0
    async with relay.chat() as response:
        assert response.status == 200


@pytest.mark.promise("P-04")
@pytest.mark.parametrize("plane", ["stream", "messages, streamed"])
async def test_a_decoder_that_never_ends_is_a_cut(start: Start, upstream: FakeUpstream, plane: str) -> None:
    relay = await serve(start, upstream, translate_stream=lambda: Decoder(words))
    status, got, proper = await ask(relay, plane)
    assert (status, proper) == (200, False)
    assert b"word1" in got
    assert b"[DONE]" not in got
    assert b"ended before its answer was complete" in got
    assert (await relay.latest()).outcome == "upstream_cut"


@pytest.mark.turns(0.5)
@pytest.mark.promise("P-04")
@pytest.mark.parametrize("plane", ["stream", "messages, streamed"])
async def test_many_events_and_huge_ones_arrive(start: Start, upstream: FakeUpstream, plane: str) -> None:
    many = [*GOOD, *[TextDelta(0, "y")] * 50_000]
    huge = [TextDelta(0, "z" * 8_000_000)]
    made = {1: many, 2: huge}
    relay = await serve(
        start, upstream, translate_stream=lambda: Decoder(lambda count, data: made.get(count, []), lambda: END)
    )
    upstream.answer = lambda seen: stream(b"one", 0.05, b"two")
    status, got, proper = await ask(relay, plane)
    assert (status, proper) == (200, True)
    assert (got.count(b'"y"'), b"z" * 8_000_000 in got) == (50_000, True)
    assert (await relay.latest()).outcome == "ok"


@pytest.mark.promise("P-04")
async def test_a_plugin_that_does_not_let_itself_be_cancelled_holds_nobody_up(
    start: Start, upstream: FakeUpstream
) -> None:
    let_go = asyncio.Event()
    cancelled = 0

    async def endpoint(target: Any, body: bytes) -> Any:
        nonlocal cancelled
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                cancelled += 1
        return UpstreamRequest(target.upstream.base_url, {}, body)

    relay = await serve(start, upstream, "first_byte_timeout = 0.05", endpoint=endpoint)
    for plane in PLANES:
        began = time.monotonic()
        status, got, _ = await ask(relay, plane)
        assert (status, b"not ready within" in got) == (504, True)
        assert time.monotonic() - began < 3
    # Nor does it keep one whose client leaves.
    call = asyncio.create_task(ask(relay, "stream"))
    await until(lambda: relay.relay.limiter.running() == 1)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await until(lambda: relay.relay.limiter.running() == 0)
    await until(lambda: cancelled >= len(PLANES))
    await others_are_served(relay)
    let_go.set()
    await asyncio.sleep(0.01)


@pytest.mark.turns(5)
@pytest.mark.promise("P-04")
async def test_a_plugin_that_holds_up_everybody_is_counted_and_named(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(count: int, data: bytes) -> Any:
        until = time.monotonic() + 0.8
        while time.monotonic() < until:
            pass
        return words(count, data)

    relay = await serve(start, upstream, translate_stream=lambda: Decoder(at(2, slow), lambda: END))
    owners = relay.relay.plugins.modules()
    assert owners["relay_openai"] == "openai"
    assert owners["tests"] == "odd"
    stalls = Stalls(lambda: owners)
    relay.relay.life.stalls = stalls.tell
    upstream.answer = lambda seen: stream(b"one", 0.05, b"two", 0.05, b"three")
    stalls.start()
    try:
        with caplog.at_level(logging.WARNING, "relay.stalls"):
            assert (await ask(relay, "stream"))[0] == 200
            await until(lambda: stalls.count >= 1)
    finally:
        stalls.stop()
    line = next(record.getMessage() for record in caplog.records if record.name == "relay.stalls")
    assert line.startswith("the event loop was held up for ")
    assert ".slow, line " in line
    async with relay.client.get(f"{relay.url}/readyz") as response:
        assert (await response.json())["loop"]["stalls"] >= 1


@pytest.mark.promise("P-04")
async def test_a_call_that_is_given_up_before_its_first_step_leaks_nothing(
    start: Start, upstream: FakeUpstream
) -> None:
    """A coroutine that nobody waits for would be told of, and this suite takes that for a failure."""
    made = 0

    async def endpoint(target: Any, body: bytes) -> Any:
        nonlocal made
        made += 1
        await asyncio.sleep(0.2)
        return UpstreamRequest(target.upstream.base_url, {}, body)

    relay = await serve(start, upstream, endpoint=endpoint)
    for plane in PLANES:
        for wait in (0.0, 0.01, 0.05):
            call = asyncio.create_task(ask(relay, plane))
            await asyncio.sleep(wait)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
    await until(lambda: relay.relay.limiter.running() == 0)
    assert made


# P-07

COUNTS: tuple[Any, ...] = (-5, -(10**12), 10**12, 2**63, 2**200, float("nan"), float("inf"), 1.5, "7", True, [], {})


@pytest.mark.promise("P-07")
@pytest.mark.promise("U-09")
@pytest.mark.parametrize("count", COUNTS, ids=str)
async def test_what_a_plugin_counts_credits_nobody(start: Start, upstream: FakeUpstream, count: Any) -> None:
    usage = Usage(input=count, output=count, cache_read=count, reasoning=count)

    def whole(body: bytes) -> Any:
        return Response("x", "x", [Choice([Text("Hello")], StopReason("stop"))], usage)

    def streamed() -> Any:
        return Decoder(words, lambda: [*END[:2], UsageSeen(usage), END[-1]])

    upstream.answer = lambda seen: chat_stream("one two three") if seen.json.get("stream") else chat_answer()
    relay = await start(
        config(upstream),
        plugins=Plugins.load(given={"odd": family(translate_response=whole, translate_stream=streamed)}),
        key={"budget": {"total": 10**9}},
    )
    spent = 0
    for plane in PLANES:
        with contextlib.suppress(AssertionError):
            await ask(relay, plane)
        row = await relay.latest()
        assert row.usage is not None
        for name in ("input", "output"):
            assert 0 <= getattr(row.usage, name) <= 10**7
        for name in ("cache_read", "reasoning"):
            assert 0 <= (getattr(row.usage, name) or 0) <= 10**7
        assert row.cost is not None
        assert row.cost > 0, "what was seen is charged"
        (account,) = relay.relay.ledger.accounts.values()
        assert account.of("total", 0) == spent + row.cost
        spent += row.cost
        assert account.held == 0


# P-01


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution with a plugin whose import leaves a mark."""
    (tmp_path / "relay_marked.py").write_text(
        "import pathlib\n"
        "pathlib.Path(__file__).with_name('imported').write_text('yes')\n"
        "import relay\n\n@relay.hookimpl\ndef relay_families():\n    return [relay.Family('marked')]\n"
    )
    info = tmp_path / "relay_marked-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: relay-marked\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[i8relay]\nmarked = relay_marked\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "imported"
    import sys

    sys.modules.pop("relay_marked", None)


@pytest.mark.promise("P-01")
def test_what_is_installed_and_not_listed_is_not_even_imported(installed: Path) -> None:
    for plugins in (Plugins.load(only=["openai", "demo"]), Plugins.load(disabled=["marked"])):
        assert not installed.exists()
        (record,) = [record for record in plugins.records if record.name == "marked"]
        assert (record.disabled, record.error, record.source) == (True, None, "package relay-marked 1.0")
    assert sorted(Plugins.load(only=["openai", "demo"]).families) == ["demo", "openai"]
    assert "marked" in Plugins.load(only=["marked"]).families
    assert installed.read_text() == "yes"


@pytest.mark.promise("P-01")
def test_a_file_that_lies_about_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "imported"
    (tmp_path / "lying.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    Plugins.load()
    assert not mark.exists()
    Plugins.load(folder=tmp_path)
    assert mark.exists()
