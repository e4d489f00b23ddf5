"""Names without end, and odd ones: no table of the relay grows with them, and no line of its log is theirs."""

from __future__ import annotations

import gc
import json
import logging
import re
from collections import deque
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import pytest

from relay.attempt import Attempt
from relay.call import Call
from relay.errors import NoSuchModel, UpstreamError
from relay.outlet import Outlet
from relay.store import Key
from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream
from tests.promises.ways import answers, ways
from tests.promises.wire import wire

MANY = 5000
MOST = 4200
"""More than any table keeps of names, but those that are made smaller here, and more than there is of anything else."""
OURS = ("relay", "relay_latency", "relay_cache", "builtins", "collections")
ATOMS = (type, ModuleType, FunctionType, MethodType, str, bytes, int, float)


def tables(root: object) -> Iterator[tuple[int, str]]:
    """The size of each table that can be reached from an object, and what is in it."""
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, ATOMS):
            continue
        seen.add(id(one))
        if isinstance(one, dict | list | set | deque):
            yield len(one), f"{next(iter(one), None)!r:.100}"
        if type(one).__module__.partition(".")[0] in OURS:
            waiting.extend(gc.get_referents(one))


async def called(relay: Running, key: Key, name: str, *, fails: bool) -> None:
    """All of a call of the model, but what is sent and what comes back."""
    app = relay.relay
    call = Call(f"req_{name}", key, "generate", app.clock(), int(app.wall() * 1000))
    call.dialect = app.plugins.dialects["openai-chat"]
    body = {"model": name, "messages": [{"role": "user", "content": "Hi"}]}
    call.head = call.dialect.peek(json.dumps(body).encode(), "generate", {}, {})

    class Done(Attempt):
        async def run(self) -> None:
            if fails:
                raise UpstreamError("not so fast", status=429, upstream_status=429, retry_after=60.0)

    try:
        model = app.pipeline.admit(call)
        app.pipeline.reserve(call, model)
        course = app.dispatch.course(model, False, app.clock())
        nowhere: Any = Outlet.__new__(Outlet)
        await app.pipeline.tries(call, nowhere, course, kinds={"generate": Done})
    except (NoSuchModel, UpstreamError):
        pass
    app.finish(call)


@pytest.mark.promise("L-14")
@pytest.mark.promise("H-15")
async def test_no_table_grows_with_the_names_that_are_made_up(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.pipeline.CLAIMS_KEPT", 2000)
    monkeypatch.setattr("relay.store.usage.REMEMBERED", 2000)
    relay = await start(openai_config(upstream) + "    [routing]\n    max_attempts = 1\n    failures = 1\n")
    (key,) = await relay.relay.store.keys.all()
    for number in range(MANY):
        await called(relay, key, f"made-up-{number}", fails=False)
        # What stands behind an upstream's name is for the upstream to know.
        await called(relay, key, f"up/made-up-{number}", fails=number % 5 > 0)
        if number % 500 == 0:
            await relay.relay.store.usage.flush()
    await relay.relay.store.usage.flush()
    assert len(relay.relay.dispatch.health.circuits) > 3000, "they were put into it"
    found = sorted(tables(relay.relay), reverse=True)
    assert found[0][0] < MOST, found[:3]
    assert len(found) > 100
    assert relay.relay.limiter.running() == 0


ODD = {
    "X-Request-Id": "CANARY-id",
    "User-Agent": "CANARY-agent",
    "X-Correlation-Id": "CANARY",
    "Referer": "CANARY",
    "Traceparent": "CANARY",
}
PASSED = ("", "\x85", "\xe2\x80\xa8", "%0d%0aX: y", "${jndi:ldap://x}", "\t", "x" * 6000)
REFUSED = ("\x1b[2J", "\x1b]0;x\x07", "\r\n ", "\n ", "\r", "\0")
"""How they may end, and how the values of headers may not."""


@pytest.mark.promise("H-15")
async def test_what_a_caller_calls_itself_or_its_request_is_in_no_line_and_no_answer(
    start: Start, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="relay")
    upstream.answer = answers
    relay = await start(openai_config(upstream))
    for way in ways(relay.relay.plugins):
        body = json.dumps(way.body)
        for end in (*PASSED, *REFUSED):
            lines = "".join(f"{name}: {value}{end}z\r\n" for name, value in ODD.items())
            head = f"POST {way.path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {relay.key}\r\n{lines}"
            async with wire(relay) as connection:
                connection.send(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode("latin-1"))
                said = await connection.answer()
            assert said.status == (400 if end in REFUSED else 200), (str(way), end, said)
            assert re.fullmatch(r"req_[0-9a-f]+", said.headers["x-request-id"])
            assert "CANARY" not in str(said)
    for name in (f"CANARY{end}" for end in (*PASSED, *REFUSED)):
        async with relay.chat(model=name) as response:
            assert response.status in (400, 404)
    assert "CANARY" not in caplog.text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028]", caplog.text)
    assert "CANARY" not in str(await relay.rows())
