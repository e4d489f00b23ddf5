"""`relay serve` as a process beside the test, with upstreams that the test plays."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.promises.wire import Said, Wire, post

SECONDS = 20.0
ALONE = "[discovery]\nenvironment = false\nlocal = false\nfallback = false\n"
WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from relay.__main__ import main; main()"


@dataclass
class Served:
    """A serving process."""

    process: Process
    folder: Path
    port: int
    key: str
    output: list[str]

    @property
    def file(self) -> Path:
        """Its configuration."""
        return self.folder / "relay.toml"

    @asynccontextmanager
    async def wire(self) -> AsyncIterator[Wire]:
        """A connection to it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()

    async def ask(self, data: bytes) -> Said:
        """The answer to one request."""
        async with self.wire() as connection:
            connection.send(data)
            return await connection.answer()

    async def ready(self) -> tuple[int, dict[str, Any]]:
        """What `/readyz` says."""
        said = await self.ask(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return said.status, json.loads(said.body)

    def children(self) -> list[int]:
        """Its workers."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def chat(self, **body: Any) -> bytes:
        """One request as bytes."""
        return post(self.key, **body)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    async def end(self) -> tuple[int, str]:
        """Wait for its end: status, and what it logged."""
        assert self.process.stderr is not None
        log = await asyncio.wait_for(self.process.stderr.read(), SECONDS)
        return await asyncio.wait_for(self.process.wait(), SECONDS), log.decode()

    async def rows(self) -> list[dict[str, Any]]:
        """Its usage rows, newest first, once it has ended."""
        database = str(self.folder / "relay.db")
        asked = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "relay", "usage", "--db", database, "--last", "1000", "--json"),
            env=environment(self.folder),
            stdout=PIPE,
        )
        found, _ = await asyncio.wait_for(asked.communicate(), SECONDS)
        assert asked.returncode == 0
        rows: list[dict[str, Any]] = json.loads(found)
        return rows


def environment(folder: Path, **more: str) -> dict[str, str]:
    """An environment in which nothing is found that the test did not put there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("I8RELAY_")}
    return kept | {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("CONFIG", "DATA", "CACHE")} | more


class Workers:
    """Hears when all of them serve, as a service manager does. Who dies before that ends the others."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ready"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self.path))

    async def serve(self) -> None:
        """Once they do."""
        loop = asyncio.get_running_loop()
        with self._socket:
            while b"READY=1" not in await loop.sock_recv(self._socket, 4096):
                pass


@asynccontextmanager
async def served(
    folder: Path,
    config: str,
    *arguments: str,
    uvloop: bool = True,
    stderr: int = PIPE,
    first: bool = True,
    **options: Any,
) -> AsyncIterator[Served]:
    """Start the relay with a configuration's text on a free port; it is killed in the end if it is still there.

    It makes its `first` key, unless the database has one already.
    """
    (folder / "relay.toml").write_text(ALONE + config)
    program = ("-m", "relay") if uvloop else ("-c", WITHOUT_UVLOOP)
    environ = {**(options.pop("env", None) or environment(folder))}
    workers = Workers(folder) if "--workers" in arguments and "NOTIFY_SOCKET" not in environ else None
    if workers is not None:
        environ["NOTIFY_SOCKET"] = str(workers.path)
    files = ("--config", str(folder / "relay.toml"), "--db", str(folder / "relay.db"), "--port", "0")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *program, "serve", *files, *arguments),
        cwd=folder,
        stdout=PIPE,
        stderr=stderr,
        limit=2**22,
        env=environ,
        **options,
    )
    try:
        assert process.stdout is not None
        lines: list[str] = []
        async with asyncio.timeout(SECONDS):
            last = "Any OpenAI client:" if first else "i8Relay listens on"
            while not (lines and lines[-1].startswith(last)):
                line = (await process.stdout.readline()).decode()
                assert line, f"it ended: {await process.stderr.read() if process.stderr is not None else lines}"
                lines.append(line.rstrip("\n"))
            if workers is not None:
                await workers.serve()
        shown = [line.strip() for line in lines if line.strip().startswith("sk-relay-")]
        (key,) = shown if first else ("",)
        yield Served(process, folder, int(lines[0].rpartition(":")[2]), key, lines)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
