"""`relay serve` as its users see it: a process, its output, its status."""

from __future__ import annotations

import importlib
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from relay.config import ConfigError

DEMO = '[discovery]\nenvironment = false\nlocal = false\n[upstreams.demo]\nfamily = "demo"\n'
SLOW = DEMO + "[upstreams.demo.options]\ndelay_ms = 60\n"
SECONDS = 20.0


class Process:
    """A running `relay serve`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("I8RELAY_")}
        environment |= {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA", "CACHE")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "relay", "serve", *arguments],
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        self._readers = [threading.Thread(target=self._read), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

    def greeting(self, until: str) -> list[str]:
        """Its output up to a line that begins with `until`."""
        lines: list[str] = []
        while (line := self._lines.get(timeout=SECONDS)) is not None:
            lines.append(line)
            if line.startswith(until):
                return lines
        raise AssertionError(f"it ended before {until!r}: {lines} {self._errors}")

    def url(self) -> str:
        """Where it listens."""
        found = re.search(r"listens on (\S+)", self.greeting("i8Relay listens on")[-1])
        assert found is not None
        return found[1]

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: status, the output that was not read yet, and standard error."""
        code = self._process.wait(SECONDS)
        for reader in self._readers:
            reader.join()
        rest: list[str] = []
        while (line := self._lines.get(timeout=SECONDS)) is not None:
            rest.append(line)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._process.stdout.close()
        self._process.stderr.close()
        return code, "\n".join(rest), "".join(self._errors)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self.end()


Serve = Callable[..., Process]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start the relay with a configuration's text, on a free port and a database of its own."""
    started: list[Process] = []

    def start(*arguments: str, config: str = DEMO, port: int = 0) -> Process:
        file = tmp_path / "relay.toml"
        file.write_text(config)
        database = str(tmp_path / "relay.db")
        process = Process(tmp_path, "--config", str(file), "--db", database, "--port", str(port), *arguments)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


def call(url: str, key: str, **body: Any) -> Any:
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps({"model": "demo-echo", "messages": [{"role": "user", "content": "Hi there"}], **body}).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    return urllib.request.urlopen(request, timeout=SECONDS)


def test_the_first_start_shows_a_key_that_works_and_the_second_shows_none(serve: Serve) -> None:
    first = serve()
    lines = first.greeting("Any OpenAI client:")
    (key,) = [line.strip() for line in lines if line.strip().startswith("sk-relay-")]
    found = re.fullmatch(r"i8Relay listens on (http://127\.0\.0\.1:\d+)", lines[0])
    assert found is not None
    assert "Models: demo-echo" in lines
    with call(found[1], key) as response:
        assert json.loads(response.read())["choices"][0]["message"]["content"] == "You said: Hi there"
    first.signal(signal.SIGTERM)
    code, _, errors = first.end()
    assert code == 0
    assert key not in errors

    second = serve()
    url = second.url()
    with call(url, key) as response:
        assert response.status == 200
    second.signal(signal.SIGTERM)
    code, rest, _ = second.end()
    assert code == 0
    assert "sk-relay-" not in rest


def test_the_example_in_the_greeting_is_a_command_that_works(serve: Serve) -> None:
    relay = serve()
    lines = relay.greeting("Any OpenAI client:")
    first = next(number for number, line in enumerate(lines) if line.startswith("  curl"))
    command = "\n".join(lines[first : first + 3])
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=SECONDS, check=True)
    assert done.stdout.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_when_told_to(serve: Serve, number: int) -> None:
    relay = serve()
    relay.url()
    relay.signal(number)
    code, _, errors = relay.end()
    assert code == 0
    assert "Traceback" not in errors


def test_an_open_answer_is_finished_before_it_leaves(serve: Serve) -> None:
    relay = serve(config=SLOW)
    lines = relay.greeting("Any OpenAI client:")
    key = next(line.strip() for line in lines if line.strip().startswith("sk-relay-"))
    question = "one two three four five six seven eight nine ten"
    with call(lines[0].split()[-1], key, stream=True, messages=[{"role": "user", "content": question}]) as response:
        got = response.readline()
        relay.signal(signal.SIGTERM)
        got += response.read()
    assert got.endswith(b"data: [DONE]\n\n")
    assert b" ten" in got
    assert relay.end()[0] == 0


@pytest.mark.promise("C-08")
def test_a_port_in_use_is_one_line_and_status_1(serve: Serve) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, output, errors = serve(port=port).end()
    assert code == 1
    assert output == ""
    assert errors.startswith(f"cannot listen on 127.0.0.1:{port}: ")
    assert len(errors.splitlines()) == 1


def test_a_start_that_fails_wastes_no_first_key(serve: Serve) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert serve(port=taken.getsockname()[1]).end()[0] == 1
    lines = serve().greeting("Any OpenAI client:")
    assert any(line.strip().startswith("sk-relay-") for line in lines)


@pytest.mark.promise("C-08")
def test_a_bad_configuration_never_starts(serve: Serve, tmp_path: Path) -> None:
    code, output, errors = serve(config='[server]\nport = "x"\n[keys]\nrpm = -1\n').end()
    assert code == 1
    assert output == ""
    assert [line.split(": ")[1] for line in errors.splitlines()] == ["line 2", "line 4"]
    assert not (tmp_path / "relay.db").exists()


def test_a_configuration_that_comes_to_the_usual_place_is_found_when_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("I8RELAY_CONFIG", raising=False)
    module = importlib.import_module("relay.cli.serve")
    starts: list[Any] = []
    monkeypatch.setattr(module, "_run", starts.append)
    assert CliRunner().invoke(module.serve, []).exit_code == 0
    (start,) = starts
    assert start.config.settings.routing.failures == 5
    usual = tmp_path / "i8relay" / "config.toml"
    usual.parent.mkdir()
    usual.write_text("[routing]\nfailures = 7\n")
    assert start.read().settings.routing.failures == 7
    usual.write_text('[routing]\nfailures = "many"\n')
    with pytest.raises(ConfigError):
        start.read()


def test_a_folder_of_plugins_that_is_missing_never_starts(serve: Serve, tmp_path: Path) -> None:
    code, output, errors = serve(config=DEMO + '[plugins]\nfolder = "/nowhere/at/all"\n').end()
    assert (code, output) == (1, "")
    assert errors == f"{tmp_path / 'relay.toml'}: line 7: plugins.folder: there is no folder '/nowhere/at/all'\n"


@pytest.mark.promise("A-03")
def test_other_machines_are_served_only_once_there_is_a_key(serve: Serve) -> None:
    code, output, errors = serve("--host", "0.0.0.0").end()
    assert code == 1
    assert output == ""
    assert errors == (
        "there is no API key yet, and 0.0.0.0 can be reached from other machines: "
        "make a key first (relay keys create NAME)\n"
    )


@pytest.mark.promise("C-08")
def test_a_database_that_is_none_is_one_line(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "relay.db").write_text("this is no database, and long enough to be told apart from one" * 10)
    code, output, errors = serve().end()
    assert code == 1
    assert output == ""
    assert len(errors.splitlines()) == 1


@pytest.mark.promise("P-02")
def test_a_broken_plugin_is_named_and_the_relay_serves(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "drop-ins"
    folder.mkdir()
    (folder / "broken.py").write_text("raise SystemExit('no')\n")
    relay = serve(config=DEMO + f'[plugins]\nfolder = "{folder}"\n')
    lines = relay.greeting("Any OpenAI client:")
    assert "  plugin broken was left out: cannot be imported: SystemExit: no" in lines


@pytest.mark.promise("A-12")
def test_health_needs_no_key_and_everything_else_does(serve: Serve) -> None:
    url = serve().url()
    deadline = time.monotonic() + SECONDS
    with urllib.request.urlopen(f"{url}/healthz", timeout=SECONDS) as response:
        assert json.loads(response.read()) == {"status": "ok"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{url}/v1/models", timeout=SECONDS)
    with refused.value:
        assert refused.value.code == 401
    assert time.monotonic() < deadline
