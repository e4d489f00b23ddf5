"""What is measured, as a table: for each phase a load, and what its CPU time is divided by."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gateways import KEY, Gateway, Running, pinned

__all__ = ["PHASES", "Load", "Phase", "shorter"]

SETTLE = 0.15
"""Seconds after a load in which work that was put off (rows, logs) still counts."""
LOOK = 0.03
"""Seconds between two looks at the memory."""
LONG_PROMPT = 65_536
SYSTEM = "You are a helpful assistant that answers in plain words and says so when it does not know."


@dataclass(frozen=True)
class Phase:
    """One load. Without `seconds` it is over after `requests`."""

    name: str
    model: str
    stream: bool = False
    connections: int = 1
    requests: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    """Requests a second; 0: each as soon as the one before it is answered."""
    prompt: int = 200
    """Bytes of the prompt."""
    unit: Literal["request", "piece"] = "request"
    """What CPU time is counted for."""
    cross: bool = False
    """Asked in one dialect, answered by an upstream of another."""
    path: str = ""
    """Where it is asked, if not where the gateway has Chat Completions."""
    marker: str = ""
    """What a good answer holds, if not the end of a stream of Chat Completions, or the mock's last word."""

    def body(self, model: str = "{model}") -> bytes:
        """The request; `model` is how the gateway wants models to be named."""
        words = ("The cat sat on the mat. " * (self.prompt // 24 + 1))[: self.prompt]
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": words}]
        value: dict[str, Any] = {"model": model.replace("{model}", self.model), "messages": messages, "max_tokens": 400}
        if self.stream:
            value["stream"] = True
        # As the official clients write it: without blanks.
        return json.dumps(value, separators=(",", ":")).encode()


PHASES = (
    Phase("plain", "mock-0-0", connections=32, seconds=1.5),
    Phase("long prompt", "mock-0-0", connections=8, seconds=1.0, prompt=LONG_PROMPT),
    Phase("paced", "mock-100-10", stream=True, connections=100, requests=100, unit="piece"),
    Phase("burst", "mock-200-0", stream=True, connections=8, seconds=1.0, unit="piece"),
    Phase("burst translated", "claude-200-0", stream=True, connections=8, seconds=1.0, unit="piece", cross=True),
    Phase("50 a second", "mock-0-0", connections=64, seconds=1.5, rate=50.0),
    Phase("1,000 streams", "mock-10-100", stream=True, connections=1000, requests=1000, unit="piece"),
)
"""In the order in which a gateway goes through them: what needs most memory comes last."""


def shorter(phase: Phase, share: float) -> Phase:
    """The same phase in a share of its time, where that is a number of seconds."""
    return replace(phase, seconds=phase.seconds * share)


class Load:
    """The load client, and the folder of its requests."""

    def __init__(self, program: Path, folder: Path, cores: Sequence[int]) -> None:
        self._program = program
        self._folder = folder
        self._cores = cores

    def _start(self, phase: Phase, port: int, gateway: Gateway) -> subprocess.Popen[str]:
        file = self._folder / f"{phase.name.replace(' ', '-')}.json"
        file.write_bytes(phase.body(gateway.model))
        path, marker = phase.path or gateway.path, phase.marker or ("[DONE]" if phase.stream else "MOCK")
        command = [self._program, "-p", port, "-P", path, "-H", f"authorization: Bearer {KEY}", "-b", file]
        command += ["-m", marker, "-c", phase.connections]
        if phase.requests:
            command += ["-n", phase.requests]
        if phase.seconds:
            command += ["-t", phase.seconds]
        if phase.rate:
            command += ["-r", phase.rate]
        return subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, text=True, preexec_fn=pinned(self._cores)
        )

    def alone(self, phase: Phase, port: int, gateway: Gateway) -> dict[str, float]:
        """What the client says of a load as it would be sent to a gateway, without a look at the server."""
        out, _ = self._start(phase, port, gateway).communicate()
        told: dict[str, float] = json.loads(out)
        return told

    def measure(self, phase: Phase, running: Running) -> dict[str, float]:
        """What the client says of a load; with the server's CPU in us for each unit and its largest memory in MiB."""
        before = running.cpu()
        largest = running.memory()
        client = self._start(phase, running.port, running.gateway)
        while client.poll() is None:
            largest = max(largest, running.memory())
            time.sleep(LOOK)
        out, _ = client.communicate()
        told: dict[str, float] = json.loads(out)
        time.sleep(SETTLE)
        count = told["pieces"] if phase.unit == "piece" else told["ok"]
        if count:
            told["cpu_us"] = (running.cpu() - before) * 1e6 / count
        told["memory"] = max(largest, running.memory())
        return told
