"""One caller's answer has nothing in it for another one: no cookies are kept, nor what came behind an answer."""

from __future__ import annotations

import aiohttp
import pytest

from tests.flow.conftest import Running, Start
from tests.flow.fake import FakeUpstream, http
from tests.promises.families import WAYS, Way, ask, both_transports, config

COOKIE = "session=CANARY; Path=/"


async def another(relay: Running) -> Running:
    """The same relay for a caller with another key."""
    _, secret = await relay.relay.store.keys.create("other")
    client = aiohttp.ClientSession(headers={"Authorization": f"Bearer {secret}"})
    return Running(relay.relay, relay.server, secret, client)


@pytest.mark.promise("U-14")
@both_transports
async def test_a_cookie_reaches_neither_the_caller_nor_the_next_one(
    start: Start, upstream: FakeUpstream, transport: str
) -> None:
    # By its name, because cookies are not kept for addresses.
    relay = await start(config(upstream, transport, host="localhost"))
    other = await another(relay)
    try:
        for way in WAYS:
            body = b"".join(step for step in way.found.good(way.streamed) if isinstance(step, bytes))
            head, _, rest = body.partition(b"\r\n")
            lines = (
                f"Set-Cookie: {COOKIE}\r\nSet-Cookie: second=CANARY; Domain=localhost\r\nSet-Cookie2: third=CANARY\r\n"
            )
            upstream.scripts = [[head + b"\r\n" + lines.encode() + rest]]
            for caller in (relay, other, relay):
                got = await ask(caller, way)
                assert got.finished, way
                assert not [name for name in got.headers if "cookie" in name.lower()], way
                assert not [name for name in upstream.seen[-1].headers if "cookie" in name.lower()], way
            # Nor does an error bring one.
            upstream.scripts = [http({"error": {"message": "no"}}, 400, Set_Cookie=COOKIE)]
            assert "CANARY" not in str((await ask(relay, way)).headers)
    finally:
        await other.client.close()


@pytest.mark.promise("U-15")
@both_transports
async def test_what_comes_behind_an_answer_reaches_nobody(start: Start, upstream: FakeUpstream, transport: str) -> None:
    relay = await start(config(upstream, transport))

    def whole(way: Way) -> bytes:
        return b"".join(step for step in way.found.good(way.streamed) if isinstance(step, bytes))

    evil = http(b'{"error":{"message":"CANARY"}}', 403)[0]
    for way in WAYS:
        for behind in (evil, b"CANARY", b"\r\nCANARY\r\n\r\n", b"0\r\n\r\n" + bytes(evil)):
            # Whoever asks on that connection once more waits for ever.
            upstream.scripts = [[whole(way) + bytes(behind), "stall"]]
            for _ in range(2):
                got = await ask(relay, way)
                # One of the two takes the answer for invalid, together with what follows it.
                assert got.finished or (transport == "aiohttp" and got.error), (way, behind, got)
                assert b"CANARY" not in got.body, (way, behind)
                assert "CANARY" not in str(got.headers), (way, behind)
