"""Upstreams that say nothing for a while: clients hear that there is somebody, between the events and nowhere else."""

from __future__ import annotations

import asyncio
import re

import pytest

from relay import stream as module
from tests.flow.conftest import Running, Start
from tests.flow.fake import LAST_CHUNK, STREAM_HEAD, FakeUpstream, chunk
from tests.promises.families import SAID, STREAMS, Got, Way, both_transports, config

SIGNS = {
    "openai-chat": re.compile(rb"^: keep-alive\n\n", re.M),
    "openai-responses": re.compile(rb'^: keep-alive\n\n|^event: keepalive\ndata: \{.*"type":"keepalive".*\}\n\n', re.M),
    "anthropic-messages": re.compile(rb'^event: ping\ndata: \{"type": "ping"\}\n\n', re.M),
    "gemini": re.compile(rb"(?<=\n\n)\n"),
}
"""What each dialect's clients accept and ignore. That of one may be an event or a comment."""
ENOUGH = 2
"""Signs of life that are waited for in each silence."""


BEGIN = b"data:\n\n"


def opened(got: bytes) -> bytes:
    """What came, with line ends of one kind and behind an event that says nothing."""
    return BEGIN + got.replace(b"\r\n", b"\n")


async def listen(relay: Running, way: Way, silences: list[asyncio.Event]) -> tuple[Got, list[int]]:
    """Hear a stream, and end each silence once there were signs of life in it; how many there were."""
    path, body = way.request()
    async with relay.client.post(relay.url + path, json=body) as response:
        got, heard, counts = b"", 0, []
        sign = SIGNS[way.client]
        async for piece in response.content.iter_any():
            # What the upstream writes is normalised, so that its own line ends are no signs.
            got += piece
            signs = len(sign.findall(opened(got)))
            if silences and signs >= heard + ENOUGH:
                counts.append(signs - heard)
                heard = signs
                silences.pop(0).set()
        return Got(way.client, True, response.status, response.headers, got, True), counts


@pytest.mark.promise("U-12")
@both_transports
async def test_every_silence_is_filled_between_two_events(
    start: Start, upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setattr(module, "PREAMBLE_SECONDS", 0.05)
    relay = await start(config(upstream, transport, server="keep_alive_seconds = 0.02"))
    for way in STREAMS:
        found = way.found
        silences = [asyncio.Event() for _ in range(4)]
        first, second = found.word("It is "), found.word("a fine ")
        upstream.scripts = [
            [
                STREAM_HEAD,
                silences[0],
                *(chunk(piece) for piece in (*found.start, first)),
                silences[1],
                chunk(second[:20]),
                silences[2],
                chunk(second[20:-1]),
                silences[3],
                chunk(second[-1:] + found.word("day")),
                *(chunk(piece) for piece in found.end(SAID)),
                LAST_CHUNK,
            ]
        ]
        got, counts = await listen(relay, way, [*silences])
        assert len(counts) == 4, (way, counts)
        assert (got.text, got.finished, got.error) == (SAID, True, ""), (way, got.body)
        # Without the signs of life it is what it would have been: none of them stands inside of an event.
        rest = SIGNS[way.client].sub(b"", opened(got.body)).removeprefix(BEGIN)
        if way.native:
            expected = b"".join((*found.start, first, second, found.word("day"), *found.end(SAID)))
            expected = expected.replace(b"\r\n", b"\n")
            asked = [event for event in expected.split(b"\n\n") if b'"choices": [], "usage"' not in event]
            assert rest == b"\n\n".join(asked), way
        assert (await relay.latest()).outcome == "ok"
