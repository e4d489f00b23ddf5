"""Secrets and texts that must be nowhere but where they belong: every place that anything is written to is searched."""

from __future__ import annotations

import asyncio
import signal
import sys
import textwrap
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from tests.flow.conftest import openai_config
from tests.flow.fake import FakeUpstream, Seen, Step, chat_answer, chat_chunk, http, stream
from tests.promises.served import Served, environment, served
from tests.promises.wire import post

OURS = "sk-CANARY-upstream-key"
PROMPT = "CANARY-prompt-7c1e"
ANSWER = "CANARY-answer-90ad"
ECHO = {"error": {"message": f"Incorrect API key provided: {OURS}. Send a better one.", "type": "x", "code": OURS}}
BROKEN = """
from relay import Family, UpstreamRequest, hookimpl

@hookimpl
def relay_families():
    return [Family("broken", dialects=frozenset())]

@hookimpl
def translate_request(request, target):
    raise ValueError("this plugin is broken")

@hookimpl
def endpoint(target, body):
    return UpstreamRequest(target.base_url, {}, body)

@hookimpl
def translate_stream():
    return None

@hookimpl
def translate_response(target, status, headers, body):
    return None

@hookimpl
def translate_error(status, body):
    return None
"""


def answer(seen: Seen) -> list[Step]:
    """One ending for each model."""
    told: dict[str, list[Step]] = {
        "good": chat_answer(ANSWER),
        "streamed": stream(chat_chunk({"content": ANSWER}), chat_chunk(finish="stop"), b"data: [DONE]\n\n"),
        "refused": http(ECHO, status=400),
        "unauthorised": http(ECHO, status=401),
        "failing": http(ECHO, status=500),
        "html": http(f"<html>{OURS} {ANSWER}</html>".encode(), status=503, content_type="text/html"),
        "odd": http(ANSWER.encode()),
        "silent": ["stall"],
        "cut": stream(chat_chunk({"content": ANSWER}), "rst", end=False),
        "told late": stream(
            chat_chunk({"content": ANSWER}), 0.05, b"data: " + str(ECHO).replace("'", '"').encode() + b"\n\n"
        ),
    }
    return told[seen.json["model"]]


MODELS = ("good", "streamed", "refused", "unauthorised", "failing", "html", "odd", "silent", "cut", "told late")


def config(upstream: FakeUpstream, folder: Path) -> str:
    text = textwrap.dedent(openai_config(upstream)).split("[models.m]")[0]
    models = "".join(f'[models."{model}"]\ntargets = ["up/{model}"]\n' for model in MODELS)
    return (
        f'[plugins]\nfolder = "{folder}"\n[routing]\nmax_attempts = 1\nfailures = 1000\nmax_cool_down_seconds = 0\n'
        f"{text}first_byte_timeout = 0.5\n{models}"
        f'[upstreams.other]\nfamily = "broken"\nbase_url = "{upstream.url}"\napi_key = "{OURS}"\n'
        '[models.plugged]\ntargets = ["other/x"]\n'
    )


def stored(folder: Path) -> dict[str, bytes]:
    """The database's files."""
    return {file.name: file.read_bytes() for file in folder.rglob("relay.db*")}


def running(relay: Served) -> tuple[bytes, dict[str, bytes]]:
    """What can be seen of a process while it runs."""
    return Path(f"/proc/{relay.process.pid}/cmdline").read_bytes(), stored(relay.folder)


async def made(relay: Served) -> str:
    """A key that was never shown on the relay's own output."""
    asked = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "keys", "create", "canary", "--db", str(relay.folder / "relay.db")),
        env=environment(relay.folder),
        stdout=PIPE,
    )
    output, _ = await asked.communicate()
    (key,) = [word for word in output.decode().split() if word.startswith("sk-relay-") and "..." not in word]
    return key


@pytest.mark.promise("A-05")
@pytest.mark.promise("A-06")
@pytest.mark.promise("A-18")
async def test_no_secret_and_no_text_is_written_anywhere(tmp_path: Path, upstream: FakeUpstream) -> None:
    upstream.answer = answer
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "broken.py").write_text(BROKEN)
    bodies: list[bytes] = []
    async with served(tmp_path, config(upstream, folder), "--log-level", "debug") as relay:
        key = await made(relay)
        statuses: dict[str, Any] = {}
        for model in (*MODELS, "plugged", "unknown"):
            for path in ("/v1/chat/completions", "/v1/messages"):
                async with relay.wire() as connection:
                    streamed = model in ("streamed", "cut", "told late")
                    # Half of them are kept, to be given again.
                    named = f"Idempotency-Key: {model}\r\n" if path == "/v1/messages" else ""
                    request = post(
                        key,
                        path=path,
                        headers=f"Connection: close\r\nCookie: CANARY-cookie=1\r\nX-Secret: CANARY-header\r\n{named}",
                        model=model,
                        stream=streamed,
                        max_tokens=50,
                        messages=[{"role": "user", "content": PROMPT}],
                    )
                    connection.send(request)
                    said = await connection.rest()
                    statuses[model] = said[9:12]
                    if b" 200 " not in said.split(b"\r\n")[0]:
                        bodies.append(said)
                    else:
                        # The answer is the client's; everything else in it is not.
                        bodies.append(said.replace(ANSWER.encode(), b""))
        for broken in (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n%b\r\n\r\n",
        ):
            async with relay.wire() as connection:
                connection.send(broken % (key.encode(), PROMPT.encode()))
                bodies.append(await connection.rest())
        async with relay.wire() as connection:
            # A key in the wrong place.
            connection.send(
                f"GET /v1/models?key={key} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
            )
            bodies.append(await connection.rest())
        line, alive = await asyncio.to_thread(running, relay)
        relay.signal(signal.SIGTERM)
        assert relay.process.stdout is not None
        _, log = await relay.end()
        rest = (await relay.process.stdout.read()).decode() + "\n".join(relay.output)
    assert statuses["good"] == statuses["cut"] == b"200"
    assert statuses["silent"] == b"504"
    assert statuses["plugged"] == b"500"
    assert "this plugin is broken" in log, "what went wrong is in the log"
    assert len(upstream.seen) == 2 * len(MODELS)
    sinks: dict[str, bytes] = {
        **{f"{name}, while it ran": data for name, data in alive.items()},
        **await asyncio.to_thread(stored, tmp_path),
        "log": log.encode(),
        "output": rest.encode(),
        "command line": line,
        **{f"answer {number}": body for number, body in enumerate(bodies)},
    }
    found = [
        (name, secret)
        for name, data in sinks.items()
        for secret in (OURS, key, PROMPT, ANSWER, "CANARY-cookie", "CANARY-header")
        if secret.encode() in data
    ]
    assert not found, found
    for seen in upstream.seen:
        whole = f"{seen.path} {seen.headers}"
        assert key not in whole
        assert "CANARY-cookie" not in whole
        assert "CANARY-header" not in whole
        assert seen.headers["authorization"] == f"Bearer {OURS}"
        assert key.encode() not in seen.body
