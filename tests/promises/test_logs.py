"""A log that nobody takes and descriptors that have run out: requests go on, or do so again at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import textwrap
import time
from asyncio.subprocess import PIPE
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.cli.logs import Complaints, Logs, logging_to
from tests.flow.conftest import openai_config
from tests.flow.fake import FakeUpstream, chat_answer, http
from tests.promises.served import Served, served
from tests.promises.wire import eventually

LOOPS = pytest.mark.parametrize("uvloop", [True, False], ids=["uvloop", "asyncio"])


def config(upstream: FakeUpstream) -> str:
    return textwrap.dedent(openai_config(upstream))


@pytest.mark.promise("F-17")
@LOOPS
async def test_requests_go_on_while_nobody_reads_the_log(tmp_path: Path, upstream: FakeUpstream, uvloop: bool) -> None:
    upstream.answer = lambda seen: (
        chat_answer() if seen.json["model"] == "m-1" else http({"error": {"message": "no"}}, status=400)
    )
    reading, writing = os.pipe()
    try:
        relay_log = ("--log-level", "debug")
        text = config(upstream) + f'[models.bad]\ntargets = ["up/{"x" * 250}"]\n'
        async with served(tmp_path, text, *relay_log, uvloop=uvloop, stderr=writing) as relay:
            async with relay.wire() as connection:
                # Each of these leaves a line of a good length, until there is no room for any more.
                for number in range(9000):
                    connection.send(relay.chat(model="bad"))
                    assert (await connection.answer()).status == 400
                    if number % 500 == 0 and await lost(relay):
                        break
                assert await lost(relay)
                connection.send(relay.chat())
                assert (await connection.answer()).status == 200
            relay.process.terminate()
            began = time.monotonic()
            assert await asyncio.wait_for(relay.process.wait(), 10) == 0
            assert time.monotonic() - began < 4, "nor does the end wait for the log"
    finally:
        os.close(reading)
        os.close(writing)


async def lost(relay: Served) -> bool:
    return (await relay.ready())[1]["log_lines_lost"] > 0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def record(text: str) -> logging.LogRecord:
    return logging.LogRecord("relay", logging.INFO, __file__, 1, text, None, None)


@pytest.mark.promise("F-17")
async def test_what_does_not_fit_is_lost_and_counted_and_the_rest_arrives_in_order(pipe: tuple[int, int]) -> None:
    logs = Logs(pipe[1])
    logs.start()
    for number in range(30_000):
        logs.handle(record(f"line {number} {'x' * 50}"))
    lost = logs.lost
    assert 1000 < lost < 30_000
    os.set_blocking(pipe[0], False)
    got = b""

    async def all_read() -> bool:
        nonlocal got
        with contextlib.suppress(BlockingIOError):
            got += os.read(pipe[0], 1_000_000)
        return b"lines of this log are lost" in got

    await eventually(all_read, 20)
    lines = got.decode().splitlines()
    numbers = [int(line.split()[1]) for line in lines if line.startswith("line ")]
    assert numbers == sorted(numbers)
    assert len(numbers) + lost == 30_000
    assert f"{lost} lines of this log are lost: nobody took them in time" in lines
    logs.handle(record("one more"))
    logs.close()
    assert b"one more" in os.read(pipe[0], 1000)


@pytest.mark.promise("F-17")
def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        logs = Logs(full.fileno())
        logs.start()
        for _ in range(10):
            logs.handle(record("a line"))
        logs.close()
        assert logs.lost >= 10
        direct = Logs(full.fileno())
        direct.handle(record("a line"))
        assert direct.lost == 1


@pytest.mark.promise("F-17")
def test_without_a_thread_a_line_is_written_at_once_or_lost(pipe: tuple[int, int]) -> None:
    logs = Logs(pipe[1])
    for _ in range(5000):
        logs.handle(record("x" * 100))
    assert logs.lost > 1000
    os.read(pipe[0], 1_000_000)
    before = logs.lost
    logs.handle(record("there is room"))
    assert logs.lost == before


@pytest.mark.promise("H-15")
def test_no_message_can_pass_for_another_line(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("w") as stream, logging_to(stream, "info") as logs:
        logging.getLogger("relay").info("a\r\n2026-01-01 00:00:00,000 INFO relay: faked\x1b[2J\0\x85\u2028\x7f")
        try:
            raise ValueError("b\n2026 faked as well\x1b")
        except ValueError:
            logging.getLogger("relay").exception("with a traceback")
        assert logs.lost == 0
    text = file.read_text()
    assert "\x1b" not in text.split("Traceback")[0]
    assert [line for line in text.split("\n") if line.startswith("2026-01-01")] == []
    assert "\\x1b" in text


@pytest.mark.promise("F-16")
def test_that_there_are_no_descriptors_is_said_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    try:
        complaints = Complaints()
        for _ in range(500):
            complaints(loop, {"message": "accept", "exception": OSError(24, "Too many open files")})
        assert [entry.message for entry in caplog.records] == [
            "no connection can be accepted for now: Too many open files"
        ]
        complaints(loop, {"message": "something else", "exception": ValueError("x")})
        assert len(caplog.records) == 2
    finally:
        loop.close()


@pytest.mark.promise("F-16")
@LOOPS
async def test_a_relay_without_descriptors_answers_again_once_there_are_some(
    tmp_path: Path, upstream: FakeUpstream, uvloop: bool
) -> None:
    upstream.scripts = [chat_answer()]

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    async with served(tmp_path, config(upstream), uvloop=uvloop, stderr=PIPE, preexec_fn=little) as relay:
        assert (await relay.ask(relay.chat())).status == 200
        crowd = []
        for _ in range(120):
            crowd.append(await asyncio.open_connection("127.0.0.1", relay.port))
        await asyncio.sleep(1.5)
        for _, writer in crowd:
            writer.close()
        began = time.monotonic()

        async def answers() -> bool:
            try:
                async with asyncio.timeout(0.5):
                    return (await relay.ask(relay.chat())).status == 200
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                return False

        await eventually(answers, 10)
        assert time.monotonic() - began < 2.5
        relay.process.terminate()
        status, log = await relay.end()
    assert status == 0
    assert len(log) < 20_000, "not a line for each try"
    assert json.dumps(log).count("Traceback") == 0
