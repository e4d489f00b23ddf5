"""Streams of several choices: one that was asked for and never came is missing, however well the stream is closed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import DONE, USAGE, FakeUpstream, Step, chat_chunk, stream
from tests.flow.test_memory import GEMINI


def choice(index: int, text: str = "", finish: str | None = None) -> bytes:
    return chat_chunk(choices=[{"index": index, "delta": {"content": text} if text else {}, "finish_reason": finish}])


def candidate(index: int, text: str = "Hi", finish: str | None = "STOP") -> bytes:
    parts = {"content": {"role": "model", "parts": [{"text": text}]}} if text else {}
    value = {"candidates": [{"index": index, **parts, **({"finishReason": finish} if finish else {})}]}
    return b"data: " + json.dumps({**value, "modelVersion": "m", "responseId": "r"}).encode() + b"\r\n\r\n"


COUNT = chat_chunk(choices=[], usage=USAGE)
ONE, OTHER = [choice(0, "a"), choice(0, finish="stop")], [choice(1, "b"), choice(1, finish="stop")]
BLOCKED = b'data: {"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "m", "responseId": "r"}\r\n\r\n'
CHAT: dict[str, tuple[list[bytes], bool]] = {
    "both": ([*ONE, *OTHER], True),
    "both, with an end": ([*ONE, *OTHER, DONE], True),
    "the second never began": (ONE, False),
    "the second never ended": ([*ONE, OTHER[0]], False),
    "the second never ended, with an end": ([*ONE, OTHER[0], DONE], False),
    "counted, with an end": ([*ONE, OTHER[0], COUNT, DONE], True),
    # The host's own end, and its own idea of how many there are.
    "one, with an end": ([*ONE, DONE], True),
    "held back": ([choice(0, finish="content_filter")], True),
}
GEMINI_STREAMS: dict[str, tuple[list[bytes], bool]] = {
    "both": ([candidate(0), candidate(1)], True),
    "the second never began": ([candidate(0)], False),
    "the second never ended": ([candidate(0), candidate(1, finish=None)], False),
    "held back": ([candidate(0, "", "SAFETY")], True),
    "blocked": ([BLOCKED], True),
}
CLIENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai-chat": (
        "/v1/chat/completions",
        {"model": "m", "stream": True, "n": 2, "messages": [{"role": "user", "content": "Hi"}]},
    ),
    "gemini": (
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], "generationConfig": {"candidateCount": 2}},
    ),
}


async def asked(relay: Running, dialect: str) -> tuple[bytes, bool]:
    """All that came, and whether the body ended well."""
    path, body = CLIENTS[dialect]
    got, whole = b"", True
    async with relay.client.post(relay.url + path, json=body) as response:
        try:
            async for piece in response.content.iter_any():
                got += piece
        except Exception:
            whole = False
    return got, whole


async def judged(relay: Running, dialect: str, complete: bool) -> None:
    got, whole = await asked(relay, dialect)
    row = await relay.row()
    if complete:
        assert whole
        assert b'"error"' not in got
        assert row.outcome == "ok"
    else:
        assert b'"error"' in got
        assert b"[DONE]" not in got
        assert row.outcome == "upstream_cut"


@pytest.mark.promise("U-01")
@pytest.mark.parametrize("dialect", CLIENTS)
@pytest.mark.parametrize("name", CHAT)
async def test_choices_of_chat(start: Start, upstream: FakeUpstream, dialect: str, name: str) -> None:
    pieces, complete = CHAT[name]
    steps: list[Step] = stream(*pieces)
    upstream.scripts = [steps]
    await judged(await start(openai_config(upstream)), dialect, complete)


@pytest.mark.promise("U-01")
@pytest.mark.parametrize("dialect", CLIENTS)
@pytest.mark.parametrize("name", GEMINI_STREAMS)
async def test_candidates_of_the_gemini_api(start: Start, upstream: FakeUpstream, dialect: str, name: str) -> None:
    pieces, complete = GEMINI_STREAMS[name]
    upstream.scripts = [stream(*pieces)]
    await judged(await start(GEMINI.replace("{url}", upstream.url)), dialect, complete)
