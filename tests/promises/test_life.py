"""From the signal to the last row: readiness, draining, the cap, reloading, and what the service manager is told."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.cli.notify import Notifier
from tests.flow.conftest import openai_config
from tests.flow.fake import FakeUpstream, chat_answer, chat_chunk, stream
from tests.promises.served import Served, served
from tests.promises.wire import Wire, eventually, post, until

WORDS = [chat_chunk({"content": "one "}), chat_chunk({"content": "two "})]
ENDING = [chat_chunk({"content": "three"}), chat_chunk(finish="stop"), b"data: [DONE]\n\n"]
FREE = "[keys]\nrpm = 0\ntpm = 0\n"
PROCESSES = pytest.mark.parametrize("workers", [1, 2])


def config(upstream: FakeUpstream, server: str = "") -> str:
    return textwrap.dedent(openai_config(upstream)) + FREE + f"[server]\n{server}\n"


def several(workers: int) -> tuple[str, ...]:
    return ("--workers", str(workers), "--limits-per-process") if workers > 1 else ()


@asynccontextmanager
async def streaming(relay: Served, count: int = 1) -> AsyncIterator[list[Wire]]:
    """Connections on each of which a stream has begun."""
    opened = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        opened.append(Wire(reader, writer))
        opened[-1].send(relay.chat(stream=True))
    for connection in opened:
        await asyncio.wait_for(connection.reader.readuntil(b"two "), 5)
    try:
        yield opened
    finally:
        for connection in opened:
            connection.writer.close()


async def serves(relay: Served, model: str) -> bool:
    """Whether it has a model of that name."""
    return (await relay.ask(relay.chat(model=model))).status == 200


async def each_serves(relay: Served, model: str) -> bool:
    """Whether whoever is asked has a model of that name: so many connections meet every worker."""
    return all([await serves(relay, model) for _ in range(20)])


async def each_lacks(relay: Served, model: str) -> bool:
    return all([(await relay.ask(relay.chat(model=model))).status == 404 for _ in range(20)])


async def up(relay: Served) -> bool:
    """Whether anybody answers."""
    try:
        return (await relay.ready())[0] == 200
    except (OSError, asyncio.IncompleteReadError):
        return False


async def refused(relay: Served) -> bool:
    """Whether nobody listens any more."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
    except OSError:
        return True
    writer.close()
    return False


@pytest.mark.promise("C-01")
@PROCESSES
async def test_open_streams_end_as_if_nothing_had_happened(
    tmp_path: Path, upstream: FakeUpstream, workers: int
) -> None:
    upstream.scripts = [stream(*WORDS, 1.5, *ENDING)]
    async with served(tmp_path, config(upstream, "drain_seconds = 15\n"), *several(workers)) as relay:
        async with streaming(relay, 20) as connections:
            relay.signal(signal.SIGTERM)
            rests = await asyncio.gather(*(connection.rest() for connection in connections))
        for rest in rests:
            assert b"three" in rest
            assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
            assert b'"error"' not in rest
        status, log = await relay.end()
        assert status == 0
        assert "Traceback" not in log
        rows = await relay.rows()
    assert [row["outcome"] for row in rows] == ["ok"] * 20


@pytest.mark.promise("C-01")
async def test_readiness_goes_first_and_nobody_is_let_in_after_the_pause(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    upstream.scripts = [chat_answer()]
    async with served(tmp_path, config(upstream, "pre_stop_seconds = 1.0\n")) as relay:
        status, told = await relay.ready()
        assert (status, told["status"]) == (200, "ready")
        relay.signal(signal.SIGTERM)
        deadline = time.monotonic() + 0.8
        while (await relay.ready())[0] == 200:
            assert time.monotonic() < deadline, "it should say so at once"
        assert (await relay.ready())[1]["status"] == "stopping"
        alive = await relay.ask(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert alive.status == 200, "it lives"
        assert (await relay.ask(relay.chat())).status == 200, "and serves whoever has not heard of it"
        assert (await relay.end())[0] == 0
        assert await refused(relay)


@pytest.mark.promise("C-02")
@PROCESSES
async def test_at_the_cap_each_stream_is_told_in_its_own_dialect(
    tmp_path: Path, upstream: FakeUpstream, workers: int
) -> None:
    upstream.scripts = [stream(*WORDS, "stall", end=False)]
    async with served(tmp_path, config(upstream, "drain_seconds = 0.3\n"), *several(workers)) as relay:
        async with streaming(relay, 10) as connections, relay.wire() as silent:
            # One that has no answer yet gets a true status.
            upstream.scripts = [["stall"]]
            silent.send(relay.chat())
            other = [stream(chat_chunk({"content": "one "}), chat_chunk({"content": "two "}), "stall", end=False)]
            await until(lambda: len(upstream.seen) == 11)
            upstream.scripts = [*other]
            messages: dict[str, Any] = {"max_tokens": 9, "stream": True}
            async with relay.wire() as third:
                third.send(post(relay.key, path="/v1/messages", **messages))
                await asyncio.wait_for(third.reader.readuntil(b"two "), 5)
                began = time.monotonic()
                relay.signal(signal.SIGTERM)
                rests = await asyncio.gather(*(connection.rest() for connection in connections))
                said = await silent.answer()
                last = await third.rest()
            for rest in rests:
                assert rest.count(b'"code":"server_shutdown"') == 1
                assert b"[DONE]" not in rest
                assert not rest.endswith(b"\r\n0\r\n\r\n"), "it must not look finished"
            assert b"event: error" in last
            assert b"message_stop" not in last
            assert (said.status, said.error["code"]) == (503, "server_shutdown")
            assert said.headers["retry-after"] == "1"
        assert (await relay.end())[0] == 0
        assert time.monotonic() - began < 0.3 + 2 + 1, "two seconds behind the cap, and one for the processes' ends"
        rows = await relay.rows()
    assert len(rows) == 12
    assert {row["outcome"] for row in rows} == {"shutdown"}
    assert {row["error_code"] for row in rows} == {"server_shutdown"}
    assert sorted(row["usage_source"] for row in rows) == ["estimate"] * 11 + ["none"]


@pytest.mark.promise("C-03")
async def test_the_cap_holds_with_clients_that_do_not_read(tmp_path: Path, upstream: FakeUpstream) -> None:
    large = chat_chunk({"content": "x" * 60_000})
    upstream.scripts = [stream(*WORDS, *[large] * 400, "stall", end=False)]
    async with served(tmp_path, config(upstream, "drain_seconds = 0.3\n")) as relay:
        async with streaming(relay, 3), relay.wire() as half:
            half.send(relay.chat()[:-10])
            await asyncio.sleep(0.3)
            began = time.monotonic()
            relay.signal(signal.SIGTERM)
            assert (await relay.end())[0] == 0
        assert time.monotonic() - began < 0.3 + 2 + 1
        rows = await relay.rows()
    assert sorted(row["outcome"] for row in rows) == ["shutdown"] * 4


@pytest.mark.promise("C-04")
@PROCESSES
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_hurries_and_loses_nothing(
    tmp_path: Path, upstream: FakeUpstream, workers: int, number: signal.Signals
) -> None:
    upstream.scripts = [stream(*WORDS, "stall", end=False)]
    async with served(tmp_path, config(upstream, "drain_seconds = 300\n"), *several(workers)) as relay:
        async with streaming(relay, 3) as connections:
            relay.signal(number)
            await eventually(lambda: refused(relay))
            relay.signal(number)
            rests = await asyncio.gather(*(connection.rest() for connection in connections))
            assert all(b"server_shutdown" in rest for rest in rests)
        assert (await relay.end())[0] == 0
        assert [row["outcome"] for row in await relay.rows()] == ["shutdown"] * 3


@pytest.mark.promise("C-04")
@pytest.mark.promise("F-18")
@PROCESSES
async def test_a_reload_changes_what_is_served_and_touches_no_stream(
    tmp_path: Path, upstream: FakeUpstream, workers: int
) -> None:
    upstream.answer = lambda seen: stream(*WORDS, 1.0, *ENDING) if seen.json.get("stream") else chat_answer()
    async with served(tmp_path, config(upstream), *several(workers)) as relay:
        text = relay.file.read_text()
        async with streaming(relay, 4) as connections:
            relay.file.write_text(text.replace("[models.m]", "[models.renamed]"))
            relay.signal(signal.SIGHUP)
            # Whichever worker answers: each has heard of it before long.
            await eventually(lambda: each_serves(relay, "renamed"))
            await eventually(lambda: each_lacks(relay, "m"))
            rests = await asyncio.gather(*(connection.rest_of_stream() for connection in connections))
            assert all(b"three" in rest and b"[DONE]" in rest for rest in rests)
        relay.signal(signal.SIGTERM)
        status, log = await relay.end()
        assert status == 0
        assert log.count("the configuration was reloaded") == workers


BAD = {
    "invalid": lambda text: text.replace("rpm = 0", 'rpm = "none"'),
    "half-written": lambda text: text[: text.index("price")] + "price = {inp",
    "a target that is not there": lambda text: text.replace('"up/m-1"', '"elsewhere/m-1"'),
    "deleted": None,
}


@pytest.mark.promise("F-18")
async def test_what_cannot_be_used_is_said_and_the_last_good_one_stays(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    async with served(tmp_path, config(upstream)) as relay:
        text = relay.file.read_text()
        assert "refused_at" not in (await relay.ready())[1]["config"]
        for number, (name, change) in enumerate(BAD.items()):
            if change is None:
                relay.file.unlink()
            else:
                relay.file.write_text(change(text))
            relay.signal(signal.SIGHUP)
            deadline = time.monotonic() + 5
            while "refused_at" not in (await relay.ready())[1]["config"]:
                assert time.monotonic() < deadline, name
            assert (await relay.ready())[0] == 200
            assert (await relay.ask(relay.chat())).status == 200
            relay.file.write_text(text.replace("[models.m]", f"[models.m]\ncontext_length = {number + 1}"))
            relay.signal(signal.SIGHUP)
            while "refused_at" in (await relay.ready())[1]["config"]:
                assert time.monotonic() < deadline, name
        relay.file.write_text(text.replace("[server]\n", "[server]\nport = 1\nmax_body_mb = 7\n"))
        relay.signal(signal.SIGHUP)
        await asyncio.sleep(0.5)
        relay.signal(signal.SIGTERM)
        _, log = await relay.end()
    assert log.count("the one before stays in force") == len(BAD)
    assert "server.max_body_mb has changed as well: that takes a restart" in log
    assert "Traceback" not in log


@pytest.mark.promise("C-04")
async def test_a_worker_that_comes_later_serves_with_what_the_others_have_reloaded(
    tmp_path: Path, upstream: FakeUpstream
) -> None:
    upstream.scripts = [chat_answer()]
    async with served(tmp_path, config(upstream), *several(2)) as relay:
        relay.file.write_text(relay.file.read_text().replace("[models.m]", "[models.renamed]"))
        relay.signal(signal.SIGHUP)
        await eventually(lambda: serves(relay, "renamed"))
        for child in relay.children():
            os.kill(child, signal.SIGKILL)
        statuses: list[int] = []
        deadline = time.monotonic() + 15
        while statuses[-10:] != [200] * 10:
            assert time.monotonic() < deadline
            try:
                statuses.append((await relay.ask(relay.chat(model="renamed"))).status)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.05)
        assert 404 not in statuses, "none of them ever served with the old one"


@pytest.mark.promise("C-04")
async def test_a_worker_that_is_told_to_reload_while_it_starts_does_so(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.scripts = [chat_answer()]
    log = tmp_path / "log"
    with log.open("wb") as writing:
        async with served(tmp_path, config(upstream), *several(2), stderr=writing.fileno()) as relay:
            before = set(relay.children())
            relay.file.write_text(relay.file.read_text().replace("[models.m]", "[models.renamed]"))
            for child in before:
                os.kill(child, signal.SIGKILL)
            new: set[int] = set()
            while len(new) < 2:
                for child in set(relay.children()) - before - new:
                    # It has hardly begun.
                    os.kill(child, signal.SIGHUP)
                    new.add(child)
                await asyncio.sleep(0.001)
            await eventually(lambda: up(relay), 15)
            await eventually(lambda: each_serves(relay, "renamed"))
            # Where one of them is ready before the other, all connections may have met that one.
            await until(lambda: log.read_text().count("the configuration was reloaded") == 2, 15)
            assert set(relay.children()) == new
            relay.signal(signal.SIGTERM)
            assert await asyncio.wait_for(relay.process.wait(), 15) == 0


class Manager:
    """A service manager's end of the notification socket."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        self._socket.setblocking(False)
        self.heard: list[str] = []

    async def until(self, line: str, times: int = 1) -> None:
        """Listen until a line was said that often."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            while sum(line in heard.split("\n") for heard in self.heard) < times:
                self.heard.append((await loop.sock_recv(self._socket, 4096)).decode())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    found = Manager(tmp_path)
    yield found
    found.close()


@pytest.mark.promise("C-01")
@PROCESSES
async def test_the_service_manager_is_told_of_each_step(
    tmp_path: Path, upstream: FakeUpstream, manager: Manager, workers: int
) -> None:
    upstream.scripts = [chat_answer()]
    told = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "200000"}
    environ = {**os.environ, **told}
    async with served(tmp_path, config(upstream), *several(workers), env=environ) as relay:
        await manager.until("READY=1")
        assert f"MAINPID={relay.process.pid}" in "\n".join(manager.heard)
        await manager.until("WATCHDOG=1", 4)
        relay.signal(signal.SIGHUP)
        await manager.until("RELOADING=1")
        await manager.until("READY=1", 2)
        relay.signal(signal.SIGTERM)
        await manager.until("STOPPING=1")
        assert (await relay.end())[0] == 0


def test_nobody_is_told_where_nobody_listens(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}, {"NOTIFY_SOCKET": f"{tmp_path}/gone"}):
        notifier = Notifier({**environ, "WATCHDOG_USEC": "1000000"})
        notifier.ready()
        notifier.close()
    assert Notifier({"WATCHDOG_USEC": "1000000"}).beat is None
    other = Notifier({"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"})
    assert other.beat is None, "it is another process that is watched"
    other.close()
