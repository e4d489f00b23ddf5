"""Calls over the wire, streamed, whole and in another dialect, and configurations that route them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tests.flow.conftest import Running
from tests.flow.fake import (
    FakeUpstream,
    Seen,
    Step,
    chat_answer,
    chat_stream,
    http,
)

PLANES = ("stream", "whole", "messages")
"""Streamed and whole as it passes through, and whole in a dialect that is translated."""
plane_of = pytest.mark.parametrize("plane", PLANES)
REFUSAL = {"error": {"message": "not now", "type": "server_error"}}


@dataclass
class Got:
    """One answer."""

    status: int
    headers: Any
    body: bytes

    @property
    def code(self) -> str:
        """The relay's word for what went wrong; the dialect of Messages does not carry it."""
        code: str = json.loads(self.body)["error"].get("code", "")
        return code


async def ask(relay: Running, plane: str = "whole", **more: Any) -> Got:
    """One call."""
    path = "/v1/messages" if plane == "messages" else "/v1/chat/completions"
    body = {"model": "m", "max_tokens": 20, "messages": [{"role": "user", "content": "Hi"}], **more}
    async with relay.client.post(relay.url + path, json={**body, "stream": plane == "stream"}) as response:
        return Got(response.status, response.headers, await response.read())


def good(plane: str) -> list[Step]:
    return chat_stream() if plane == "stream" else chat_answer()


def refused(status: int, **headers: str) -> list[Step]:
    return http(REFUSAL, status, **headers)


def answered(got: Got) -> bool:
    return got.status == 200 and b"Hello" in got.body


def by_model(**scripts: Sequence[Step]) -> Callable[[Seen], Sequence[Step]]:
    """A script for each model name: `a` for `x/a`."""
    return lambda seen: scripts[seen.json["model"]]


def asked(upstream: FakeUpstream) -> list[str]:
    return [seen.json["model"] for seen in upstream.seen]


def config(upstream: FakeUpstream, *targets: str, more: str = "", **routing: Any) -> str:
    """A model `m` whose targets are the models of these names at one upstream; each counts for itself."""
    names = ", ".join(f'"up/{name}"' for name in targets or ("a",))
    settings = "\n".join(f"{name} = {value}" for name, value in {"backoff_seconds": 0.02, **routing}.items())
    return f"""
[routing]
{settings}
[upstreams.up]
family = "openai"
base_url = "{upstream.url}/v1"
api_key = "sk-CANARY-upstream-key"
{more}
[models.m]
targets = [{names}]
"""


class Clock:
    """A time that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
