"""Where upstream connections may lead, and where not, whatever the name says."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from relay import guard
from relay.guard import Permit, verdict
from tests.flow.conftest import Running, Start
from tests.flow.fake import FakeUpstream, chat_answer, http
from tests.flow.loops import LOOP

NAMED = Permit("api.example.com")
PRIVATE = Permit("api.example.com", private=True)

NOWHERE = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "fd20:ce::254",
    "100.100.100.200",
    "192.0.0.192",
    "0.0.0.0",
    "0.1.2.3",
    "::",
    "224.0.0.1",
    "239.255.255.250",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "2002:a9fe:a9fe::",
    "2002:a9fe:a9fe::1",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "2606:4700::5efe:a9fe:a9fe",
    "2606:4700::200:5efe:a9fe:a9fe",
    "::ffff:100.100.100.200",
    "64:ff9b::6464:64c8",
    "169.254.255.254",
    "ff0e::1",
    "100::1",
    "2001:0:4136:e378:8000:63bf:5601:5601",
]
"""Forbidden for every name, also for those that may be private. The last one is Teredo's spelling of the first."""
WITHIN = [
    "127.0.0.1",
    "127.1.2.3",
    "::1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.254",
    "198.18.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "198.51.100.7",
    "203.0.113.9",
    "fc00::1",
    "fd12:3456::1",
    "fec0::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:c0a8:101::1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "::ffff:0:7f00:1",
    "2606:4700::5efe:10.0.0.1",
    "0:0:0:0:0:0:0:1",
    "64:ff9b::c0a8:101",
    "192.88.99.1",
    "192.0.0.170",
    "198.19.255.255",
    "3fff::1",
    "5f00::1",
    "2001:10::1",
    "2001:20::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
]
"""Only for those that say so."""
OUTSIDE = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "169.253.0.1",
    "192.167.1.1",
    "223.255.255.255",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "::ffff:0:8.8.8.8",
    "2606:4700::5efe:808:808",
    "2001:4860:4860::8888",
    "3ffe::1",
    "4000::1",
]


@pytest.mark.promise("H-12")
@pytest.mark.promise("U-13")
def test_every_spelling_of_an_address_is_judged_by_where_it_leads() -> None:
    assert [text for text in NOWHERE if verdict(text, NAMED) is None] == []
    assert [text for text in NOWHERE if verdict(text, PRIVATE) is None] == []
    assert [text for text in WITHIN if verdict(text, NAMED) is None] == []
    assert [text for text in WITHIN if verdict(text, PRIVATE) is not None] == []
    assert [text for text in OUTSIDE if verdict(text, NAMED) is not None] == []
    assert len({*NOWHERE, *WITHIN}) > 70
    for text in ("", "127.1", "0x7f.1", "2130706433", "localhost", "\uff11\uff12\uff17.0.0.1"):
        assert verdict(text, PRIVATE) is not None, "a resolver gives none of these"


@pytest.mark.promise("H-12")
def test_what_was_configured_outright_is_what_was_meant() -> None:
    for text in NOWHERE + WITHIN:
        assert verdict(text, Permit(text)) is None
    assert verdict("169.254.169.254", Permit("169.254.169.253")) is not None
    for name in ("localhost", "ollama", "vllm.localhost", "gpu.lan", "gpu.local", "llm.svc", "box.home.arpa."):
        assert verdict("192.168.1.5", Permit(name)) is None
        assert verdict("169.254.169.254", Permit(name)) is not None
    for name in ("api.example.com", "localhost.example.com", "metadata.google.com", "127.0.0.1.nip.io"):
        assert verdict("127.0.0.1", Permit(name)) is not None


def resolving(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Callable[[], list[str]]]) -> None:
    """Let names lead to addresses."""
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in answers:
            return real(host, port, *arguments, **options)
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port, 0, 0) if ":" in address else (address, port),
            )
            for address in answers[host]()
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def config(upstream: FakeUpstream, host: str, transport: str, more: str = "") -> str:
    return f"""
    [server]
    transport = "{transport}"
    [upstreams.up]
    family = "openai"
    base_url = "http://{host}:{upstream.port}/v1"
    api_key = "sk-CANARY-upstream-key"
    connect_timeout = 3.0
    {more}
    [models.m]
    targets = ["up/m-1"]
    """


TRANSPORTS = pytest.mark.parametrize("transport", ["relay", "aiohttp"])
RESOLVED = pytest.mark.skipif(LOOP == "uvloop", reason="uvloop's resolver cannot be replaced")


@RESOLVED
@TRANSPORTS
@pytest.mark.promise("H-12")
async def test_a_name_that_leads_into_the_network_is_refused_unless_it_may(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    upstream.scripts = [chat_answer()]
    resolving(monkeypatch, {"api.example.com": lambda: ["127.0.0.1"]})
    relay = await start(config(upstream, "api.example.com", transport))
    for stream in (False, True):
        async with relay.chat(stream=stream) as response:
            assert response.status == 502
            error = (await response.json())["error"]
        assert error["code"] == "upstream_address_refused"
        assert "127.0.0.1" not in error["message"]
    assert upstream.seen == []
    assert {row.outcome for row in await relay.rows()} == {"upstream_error"}
    allowed = await start(config(upstream, "api.example.com", transport, "allow_private = true"))
    async with allowed.chat() as response:
        assert response.status == 200


@RESOLVED
@TRANSPORTS
@pytest.mark.promise("H-12")
async def test_a_name_that_changes_its_mind_is_judged_each_time(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    answers = [["127.0.0.77"], ["169.254.169.254"], ["::ffff:169.254.169.254"], ["0.0.0.0"]]
    asked: list[list[str]] = []

    def flip() -> list[str]:
        asked.append(answers[min(len(asked), len(answers) - 1)])
        return asked[-1]

    resolving(monkeypatch, {"gpu.lan": flip})
    relay = await start(
        config(upstream, "gpu.lan", transport).replace("connect_timeout = 3.0", "connect_timeout = 0.2")
    )
    codes = []
    for _ in range(5):
        async with relay.chat() as response:
            codes.append((await response.json())["error"]["code"])
    # aiohttp's connector keeps the first answer for ten seconds.
    assert ("upstream_address_refused" in codes) is (transport == "relay")
    assert upstream.seen == []


@RESOLVED
@TRANSPORTS
@pytest.mark.promise("U-18")
async def test_of_several_addresses_one_that_answers_is_enough(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    upstream.scripts = [chat_answer()]
    # The first refuses, the second is forbidden, the third is it.
    resolving(monkeypatch, {"gpu.lan": lambda: ["127.0.0.77", "169.254.169.254", "127.0.0.1"]})
    relay = await start(config(upstream, "gpu.lan", transport))
    began = time.monotonic()
    async with relay.chat() as response:
        assert response.status == 200
    assert time.monotonic() - began < 2


@RESOLVED
@TRANSPORTS
@pytest.mark.promise("U-18")
async def test_names_that_lead_nowhere_are_a_502(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    def unknown() -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    resolving(monkeypatch, {"gone.example.com": unknown})
    relay = await start(config(upstream, "gone.example.com", transport))
    async with relay.chat() as response:
        assert response.status == 502
        assert (await response.json())["error"]["code"] == "upstream_unreachable"


@TRANSPORTS
@pytest.mark.promise("U-13")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(start: Start, upstream: FakeUpstream, transport: str, status: int) -> None:
    decoy = FakeUpstream(scripts=[chat_answer()])
    await decoy.start()
    try:
        upstream.scripts = [http(b"", status=status, Location=f"{decoy.url}/v1/chat/completions")]
        relay = await start(config(upstream, "127.0.0.1", transport))
        async with relay.chat() as response:
            assert response.status == 502
        await asyncio.sleep(0.05)
        assert decoy.seen == []
    finally:
        await decoy.stop()


@TRANSPORTS
@pytest.mark.promise("F-16")
async def test_no_upstream_is_blamed_for_descriptors_that_ran_out_here(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    upstream.scripts = [chat_answer()]
    relay = await start(config(upstream, "127.0.0.1", transport))

    def none_left(permit: Permit) -> Callable[[Any], socket.socket]:
        def made(info: Any) -> socket.socket:
            raise OSError(errno.EMFILE, "Too many open files")

        return made

    with monkeypatch.context() as short:
        short.setattr(guard, "judged_socket", none_left)
        # The connection over which the models were listed is still there; two at once need another.
        upstream.scripts = [[0.2, *chat_answer()]]
        answers = await asyncio.gather(*(asked(relay) for _ in range(3)))
        assert (503, "overloaded") in answers
    assert await asked(relay) == (200, None), "nothing cools down"


async def asked(relay: Running) -> tuple[int, str | None]:
    async with relay.chat() as response:
        body = await response.json()
        return response.status, body["error"]["code"] if "error" in body else None
