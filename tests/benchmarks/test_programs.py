"""The upstream and the client of the benchmark do what the figures rest on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.conftest import FOLDER

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, compiled."""
    folder = tmp_path_factory.mktemp("programs")
    for name in ("mock", "load"):
        command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(folder / name), str(FOLDER / f"{name}.c")]
        subprocess.run(command, check=True)
    return folder


@pytest.fixture
def upstream(programs: Path) -> Iterator[int]:
    """The upstream's port."""
    with subprocess.Popen([programs / "mock", "0"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


def load(programs: Path, port: int, tmp_path: Path, body: dict[str, Any], *more: str) -> dict[str, Any]:
    file = tmp_path / "body.json"
    file.write_text(json.dumps(body))
    command = [programs / "load", "-p", str(port), "-b", file, *more]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_every_request_is_answered_and_counted(programs: Path, upstream: int, tmp_path: Path) -> None:
    told = load(programs, upstream, tmp_path, {"model": "mock-0-0"}, "-m", "MOCK", "-c", "4", "-n", "50")
    assert (told["ok"], told["bad"]) == (50, 0)
    assert 0 < told["p50"] <= told["p99"]


def test_an_answer_without_what_it_should_hold_is_bad(programs: Path, upstream: int, tmp_path: Path) -> None:
    told = load(programs, upstream, tmp_path, {"model": "mock-0-0"}, "-m", "SOMETHING", "-n", "3")
    assert (told["ok"], told["bad"]) == (0, 3)


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("/v1/chat/completions", "[DONE]"),
        ("/v1/messages", "message_stop"),
        ("/v1/responses", "response.completed"),
        ("/v1beta/models/mock-150-0:streamGenerateContent?alt=sse", '"finishReason":"STOP"'),
    ],
)
def test_every_piece_of_a_stream_is_counted(
    programs: Path, upstream: int, tmp_path: Path, path: str, last: str
) -> None:
    body = {"model": "mock-150-0", "stream": True}
    told = load(programs, upstream, tmp_path, body, "-P", path, "-m", last, "-c", "3", "-n", "6")
    assert (told["ok"], told["bad"], told["pieces"]) == (6, 0, 6 * 150)


def test_pieces_come_at_their_pace(programs: Path, upstream: int, tmp_path: Path) -> None:
    began = time.monotonic()
    told = load(programs, upstream, tmp_path, {"model": "mock-20-10", "stream": True}, "-m", "[DONE]", "-n", "1")
    took = time.monotonic() - began
    assert told["pieces"] == 20
    assert told["p50"] >= 190_000
    assert took >= 0.19


def test_requests_at_a_rate_begin_when_they_are_due(programs: Path, upstream: int, tmp_path: Path) -> None:
    body = {"model": "mock-0-50"}
    told = load(programs, upstream, tmp_path, body, "-m", "MOCK", "-c", "16", "-n", "20", "-r", "100")
    # One after the other they would take a second; each begins 10 ms after the one before.
    assert told["ok"] == 20
    assert 0.19 + 0.05 <= told["seconds"] < 0.9


def test_an_upstream_that_ends_is_noticed(programs: Path, tmp_path: Path) -> None:
    with subprocess.Popen([programs / "mock", "0"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        file = tmp_path / "body.json"
        file.write_text('{"model":"mock-100-100","stream":true}')
        command = [programs / "load", "-p", str(port), "-b", file, "-m", "[DONE]", "-n", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            time.sleep(0.3)
            process.terminate()
            out, _ = client.communicate(timeout=10)
    told = json.loads(out)
    assert (told["ok"], told["bad"]) == (0, 1)


def test_the_cpu_of_a_tree_holds_its_children_living_and_dead() -> None:
    from tree import cpu_seconds, members, resident_mib

    burn = "import time\nwhile time.process_time() < 0.3: pass"
    program = (
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\n"
        f"child = subprocess.Popen([sys.executable, '-c', {burn!r} + '\\nprint(1, flush=True); time.sleep(60)'])\n"
        "child.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(list(members(process.pid))) == 2
        assert 0.6 <= cpu_seconds(process.pid) < 1.5
        assert resident_mib(process.pid) > 5
        os.killpg(process.pid, signal.SIGKILL)
