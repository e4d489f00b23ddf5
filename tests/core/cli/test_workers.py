"""`relay serve --workers`: several processes that look like one."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from relay.cli.workers import held, limits_in_force
from relay.settings import BudgetSettings, KeySettings, ModelSettings, Settings
from relay.store import Key, Limits
from tests.core.cli.test_serve import DEMO, SECONDS, SLOW, Process, Serve, call, serve

__all__ = ["serve"]

FREE = DEMO + "[keys]\nrpm = 0\ntpm = 0\n"


def children(process: Process) -> list[int]:
    pid = process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def started(process: Process) -> tuple[str, str, list[str]]:
    """Address and first key, once it has said all it says."""
    lines = process.greeting("Any OpenAI client:")
    (key,) = [line.strip() for line in lines if line.strip().startswith("sk-relay-")]
    return lines[0].split()[-1], key, lines


def alive(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def answer(url: str, key: str) -> str:
    with call(url, key) as response:
        text: str = json.loads(response.read())["choices"][0]["message"]["content"]
        return text


def ticks(pid: int) -> int:
    """User CPU time of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])


def test_every_worker_answers_and_they_greet_once(serve: Serve) -> None:
    relay = serve("--workers", "2", "--limits-per-process")
    url, key, lines = started(relay)
    assert sum(line.startswith("i8Relay listens on") for line in lines) == 1
    assert "  2 workers: each counts limits for itself, so up to 2 times as much is let through" in lines
    until(lambda: len(children(relay)) == 2)
    before = {child: ticks(child) for child in children(relay)}
    deadline = time.monotonic() + SECONDS
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        # Each call has a connection of its own; the kernel deals them out.
        while not all(ticks(child) - before[child] >= 2 for child in before):
            assert set(pool.map(lambda _: answer(url, key), range(40))) == {"You said: Hi there"}
            assert time.monotonic() < deadline, "one of them does nothing"
    relay.signal(signal.SIGTERM)
    code, rest, errors = relay.end()
    assert code == 0
    assert "listens" not in rest
    assert "Traceback" not in errors


@pytest.mark.promise("C-09")
def test_a_worker_that_is_killed_is_replaced(serve: Serve) -> None:
    relay = serve("--workers", "2", "--limits-per-process")
    url, key, _ = started(relay)
    until(lambda: len(children(relay)) == 2)
    killed, kept = children(relay)
    os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in children(relay) and len(children(relay)) == 2)
    assert kept in children(relay)
    assert answer(url, key) == "You said: Hi there"
    relay.signal(signal.SIGTERM)
    code, rest, errors = relay.end()
    assert code == 0
    assert f"(process {killed}) was killed by signal 9; another one takes its place" in errors
    assert "sk-relay-" not in rest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_answers_are_finished_before_they_leave(serve: Serve, number: int) -> None:
    relay = serve("--workers", "2", "--limits-per-process", config=SLOW)
    url, key, _ = started(relay)
    question = "one two three four five six seven eight nine ten"
    with call(url, key, stream=True, messages=[{"role": "user", "content": question}]) as response:
        got = response.readline()
        relay.signal(number)
        got += response.read()
    assert got.endswith(b"data: [DONE]\n\n")
    assert b" ten" in got
    assert relay.end()[0] == 0


def test_workers_do_not_outlive_their_parent(serve: Serve) -> None:
    relay = serve("--workers", "2", "--limits-per-process")
    url, _, _ = started(relay)
    relay.signal(signal.SIGKILL)
    relay.end()
    until(lambda: not alive(url))


@pytest.mark.promise("M-02")
def test_limits_are_not_multiplied_without_a_word(serve: Serve, tmp_path: Path) -> None:
    code, output, errors = serve("--workers", "3").end()
    assert (code, output) == (1, "")
    assert errors == (
        "3 workers cannot keep limits together yet, and there are some: [keys] rpm, [keys] tpm; "
        "set them to 0, or let each worker count for itself with --limits-per-process\n"
    )


def test_without_limits_nothing_has_to_be_allowed(serve: Serve) -> None:
    relay = serve("--workers", "2", config=FREE)
    url, key, _ = started(relay)
    assert answer(url, key) == "You said: Hi there"


def test_what_runs_beside_the_relay_is_not_started_several_times(serve: Serve) -> None:
    config = FREE + '[upstreams.mine]\nfamily = "local"\n'
    code, output, errors = serve("--workers", "2", config=config).end()
    assert (code, output) == (1, "")
    assert errors == (
        "upstream mine runs something beside the relay, and 2 workers would each start one: "
        "serve it with one worker, or leave it out\n"
    )


def test_a_port_in_use_is_one_line_and_no_key_is_wasted(serve: Serve) -> None:
    with socket.socket() as taken:
        # Even if the other one would share it.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output, errors = serve("--workers", "2", config=FREE, port=port).end()
    assert (code, output) == (1, "")
    assert errors.startswith(f"cannot listen on 127.0.0.1:{port}: ")
    assert len(errors.splitlines()) == 1
    started(serve("--workers", "2", config=FREE))


def test_a_worker_that_cannot_start_ends_the_start(serve: Serve) -> None:
    # Without a key, only this machine may be served: the first worker finds that out.
    code, output, errors = serve("--workers", "2", "--host", "0.0.0.0", config=FREE).end()
    assert (code, output) == (1, "")
    assert "there is no API key yet, and 0.0.0.0 can be reached from other machines" in errors


def test_a_held_port_takes_no_connections_and_is_shared_with_those_that_ask_to() -> None:
    with held("127.0.0.1", 0) as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
        with pytest.raises(OSError, match="in use"), held("127.0.0.1", port):
            pass


def key(**fields: object) -> Key:
    return Key(id=1, prefix="", name="ci", created_at=0, **fields)  # type: ignore[arg-type]


def test_everything_that_sets_a_limit_is_named() -> None:
    free = Settings(keys=KeySettings(rpm=0, tpm=0))
    assert limits_in_force(free, [key(), key(rpm=0)]) == []
    assert limits_in_force(Settings(), []) == ["[keys] rpm", "[keys] tpm"]
    model = Settings(keys=KeySettings(rpm=0, tpm=0), models={"smart": ModelSettings(concurrency=2)})
    assert limits_in_force(model, []) == ["[models.smart] concurrency"]
    assert limits_in_force(free, [key(tpm=5)]) == ["key 'ci'"]
    assert limits_in_force(free, [key(budget={"day": 1}), key(budget={"day": 0})]) == ["key 'ci'"]
    money = Settings(keys=KeySettings(rpm=0, tpm=0, budget=BudgetSettings(month=5.0)))
    assert limits_in_force(money, []) == ["[keys.budget] month"]
    assert limits_in_force(free, [key(model_limits={"m": Limits(rpm=1)})]) == ["key 'ci'"]
