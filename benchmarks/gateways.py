"""The gateways to measure: read from `gateways.toml`, found, started, asked if they serve, ended."""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tree

__all__ = ["KEY", "PEERS", "Broken", "Gateway", "Running", "free_port", "gateways", "pinned"]

HERE = Path(__file__).resolve().parent
PEERS = HERE.parent / ".peers"
"""Environments of other gateways. Not in this folder, where they would be taken for our own code."""
KEY = "sk-benchmark-0123456789"
START_SECONDS = 60.0
END_SECONDS = 10.0
GIVEN_TO_NOBODY = range(20_000, 32_000)
"""Ports below those that systems hand out: 32,768 and up on Linux, 49,152 and up elsewhere."""
LOOK = 0.005
"""Seconds between two questions whether it serves."""
QUESTION = {"model": "mock-0-0", "max_tokens": 400, "messages": [{"role": "user", "content": "Hello"}]}


class Broken(Exception):
    """A gateway does not do what it should; the message says what is known."""


@dataclass(frozen=True)
class Gateway:
    """One table of the file."""

    name: str
    command: Sequence[str]
    about: str = ""
    prepare: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    model: str = "{model}"
    port_file: str = ""
    keyless: bool = False
    cross: bool = False

    def found(self) -> bool:
        """Whether its program is here."""
        return _program(self.command[0]) is not None


def gateways(file: Path = HERE / "gateways.toml") -> list[Gateway]:
    """All of the file."""
    return [Gateway(name, **row) for name, row in tomllib.loads(file.read_text(encoding="utf-8")).items()]


def _program(name: str) -> str | None:
    if name == "python":
        return sys.executable
    peer, slash, program = name.rpartition("/")
    if slash:
        return shutil.which(str(PEERS / peer / "bin" / program))
    # Where Debian has its servers is not in everybody's path.
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def free_port() -> int:
    """A port that nobody listens on, and that nobody gets who asks the system for any: until the gateway listens on
    it, others may be asking."""
    while True:
        port = random.choice(GIVEN_TO_NOBODY)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def pinned(cores: Sequence[int]) -> Callable[[], None] | None:
    """For `Popen(preexec_fn=...)`: keep the child on these cores; nothing if there are none to choose from."""
    return (lambda: os.sched_setaffinity(0, cores)) if cores else None


class Running:
    """A gateway that was started, in a folder of its own. It serves once the constructor returns."""

    def __init__(self, gateway: Gateway, upstream: int, folder: Path, cores: Sequence[int]) -> None:
        self.gateway = gateway
        self.port = 0 if gateway.port_file else free_port()
        self.folder = folder
        self._names = {
            "port": str(self.port),
            "upstream": str(upstream),
            "folder": str(folder),
            "here": str(HERE),
            "key": KEY,
        }
        for name, text in gateway.files.items():
            (folder / name).write_text(self._filled(text), encoding="utf-8")
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder.parent), **gateway.env}
        if gateway.prepare:
            command = self._command(gateway.prepare)
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Broken(f"{gateway.name} cannot be prepared: {done.stderr.strip()[-500:]}")
        self._log = (folder / "log").open("w+b")
        began = time.perf_counter()
        self._process = subprocess.Popen(
            self._command(gateway.command),
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=pinned(cores),
        )
        try:
            self._await(began)
        except BaseException:
            self.end()
            raise
        self.start_seconds = time.perf_counter() - began
        self.start_cpu = self.cpu()

    def _filled(self, text: str) -> str:
        for name, value in self._names.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    def _command(self, words: Sequence[str]) -> list[str]:
        return [_program(words[0]) or words[0], *map(self._filled, words[1:])]

    def _await(self, began: float) -> None:
        """Until a question is answered."""
        while True:
            if self._process.poll() is not None:
                raise Broken(f"{self.gateway.name} ended with status {self._process.returncode}:\n{self._last_words()}")
            try:
                if not self.port:
                    self.port = int(Path(self._filled(self.gateway.port_file)).read_text())
                status, answer = self.ask(QUESTION)
            except (OSError, ValueError):
                # It does not listen yet, or its port is not written yet.
                status, answer = 0, None
            if status == 200:
                self._check(answer)
                return
            if time.perf_counter() - began > START_SECONDS:
                raise Broken(f"{self.gateway.name} does not serve (status {status}):\n{self._last_words()}")
            time.sleep(LOOK)

    def _check(self, answer: Any) -> None:
        """It must really forward, and it must really look at the key."""
        if "MOCK" not in answer["choices"][0]["message"]["content"]:
            raise Broken(f"{self.gateway.name} answers something else than its upstream")
        if self.gateway.keyless:
            return
        status, _ = self.ask(QUESTION, key="sk-wrong-0123456789abc")
        if status not in (400, 401, 403):
            raise Broken(f"{self.gateway.name} answers a wrong key with status {status}")

    def ask(self, body: Any, key: str = KEY) -> tuple[int, Any]:
        """Status and JSON of one answer. Raises OSError while it does not listen."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
            text = json.dumps({**body, "model": self.gateway.model.replace("{model}", body["model"])})
            connection.request("POST", self.gateway.path, text, headers)
            answer = connection.getresponse()
            got = answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()
        return answer.status, json.loads(got) if answer.status == 200 else got

    def cpu(self) -> float:
        """CPU seconds so far."""
        return tree.cpu_seconds(self._process.pid)

    def memory(self) -> float:
        """MiB now."""
        return tree.resident_mib(self._process.pid)

    def _last_words(self) -> str:
        self._log.flush()
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-15:])

    def end(self) -> None:
        """End it and all that it started."""
        for number in self._signals():
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(END_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                break
        self._process.wait(END_SECONDS)
        self._log.close()

    @staticmethod
    def _signals() -> Iterator[int]:
        yield signal.SIGTERM
        yield signal.SIGKILL
