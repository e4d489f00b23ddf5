"""Upstreams of every format, and clients that ask them in that format and in another one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from relay.kit import SseDecoder
from tests.flow import gemini
from tests.flow.conftest import Running
from tests.flow.fake import DONE, USAGE, FakeUpstream, Seen, Step, chat_chunk, http, stream
from tests.flow.test_anthropic_sdk import event, message
from tests.flow.test_responses_sdk import answer, text_events
from tests.flow.test_responses_sdk import message as responses_message

SAID = "It is a fine day"
"""What good answers say."""


@dataclass(frozen=True)
class Kind:
    """One format: what an upstream says in it, and how a client asks for it."""

    dialect: str
    family: str
    path: str
    """Of its address."""
    start: Sequence[bytes]
    """Events that come before the first text."""
    word: Callable[[str], bytes]
    """An event with a piece of text."""
    end: Callable[[str], Sequence[bytes]]
    """What follows all of the text."""
    whole: Callable[[str], dict[str, Any]]
    """A complete answer."""

    @staticmethod
    def of(seen: Seen) -> tuple[Kind, bool]:
        """Which kind of upstream was asked, and whether for a stream."""
        if "/models/" in seen.path:
            return KINDS["gemini"], "stream" in seen.path
        name = {"responses": "openai-responses", "messages": "anthropic-messages"}.get(seen.path.rpartition("/")[2])
        return KINDS[name or "openai-chat"], bool(seen.json.get("stream"))

    def pieces(self, *texts: str) -> list[bytes]:
        """A good stream, event by event."""
        return [*self.start, *(self.word(text) for text in texts), *self.end("".join(texts))]

    def good(self, streamed: bool) -> list[Step]:
        """A good answer."""
        words = [word if number == 0 else f" {word}" for number, word in enumerate(SAID.split(" "))]
        return stream(*self.pieces(*words)) if streamed else http(self.whole(SAID))


def responses_events(*texts: str) -> list[bytes]:
    """A stream of Responses, with the text in these pieces."""
    text = "".join(texts)
    found = text_events("x")
    place = next(number for number, one in enumerate(found) if one["type"] == "response.output_text.delta")
    found[place : place + 1] = [{**found[place], "delta": piece} for piece in texts]
    for one in found:
        if "text" in one:
            one["text"] = text
        if one["type"] == "response.content_part.done":
            one["part"]["text"] = text
        if one["type"] == "response.output_item.done":
            one["item"] = responses_message(text)
        if one["type"] == "response.completed":
            one["response"] = answer("completed", responses_message(text))
    return [b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in found]


START = [
    event("message_start", message=message(stop="end_turn") | {"content": [], "stop_reason": None}),
    event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
]
END = [
    event("content_block_stop", index=0),
    event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 3}),
    event("message_stop"),
]
KINDS: Mapping[str, Kind] = {
    kind.dialect: kind
    for kind in (
        Kind(
            "openai-chat",
            "openai",
            "/v1",
            [chat_chunk({"role": "assistant", "content": ""})],
            lambda text: chat_chunk({"content": text}),
            lambda text: [chat_chunk(finish="stop"), chat_chunk(choices=[], usage=USAGE), DONE],
            lambda text: {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1700000000,
                "model": "m-1",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                "usage": USAGE,
            },
        ),
        Kind(
            "openai-responses",
            "openai",
            "/v1",
            responses_events("")[:4],
            lambda text: responses_events(text)[4],
            lambda text: responses_events(text)[5:],
            lambda text: answer("completed", responses_message(text)),
        ),
        Kind(
            "anthropic-messages",
            "anthropic",
            "",
            START,
            lambda text: event("content_block_delta", index=0, delta={"type": "text_delta", "text": text}),
            lambda text: END,
            lambda text: message({"type": "text", "text": text}),
        ),
        Kind(
            "gemini",
            "gemini",
            "",
            [],
            lambda text: gemini.frame(gemini.answer({"text": text}, finish=None)),
            lambda text: [gemini.frame(gemini.answer({"text": ""}))],
            lambda text: gemini.answer({"text": text}),
        ),
    )
}

MESSAGES = [{"role": "user", "content": "Hi"}]
CONTENTS = [{"role": "user", "parts": [{"text": "Hi"}]}]


TRANSLATED = {name: "openai-chat" if name == "anthropic-messages" else "anthropic-messages" for name in KINDS}
"""The other dialect in which each kind of upstream is asked."""


@dataclass(frozen=True)
class Way:
    """An upstream of one kind, asked in its own dialect or in another one."""

    kind: str
    client: str
    streamed: bool

    @property
    def found(self) -> Kind:
        """What its upstream says."""
        return KINDS[self.kind]

    @property
    def native(self) -> bool:
        """Whether answers pass through as they are."""
        return self.kind == self.client

    def request(self, model: str = "") -> tuple[str, dict[str, Any]]:
        """Path and body of a call."""
        model = model or self.kind
        if self.client == "gemini":
            method = "streamGenerateContent?alt=sse" if self.streamed else "generateContent"
            return f"/v1beta/models/{model}:{method}", {"contents": CONTENTS}
        if self.client == "openai-responses":
            return "/v1/responses", {"model": model, "input": "Hi", "stream": self.streamed}
        path = "/v1/messages" if self.client == "anthropic-messages" else "/v1/chat/completions"
        return path, {"model": model, "max_tokens": 50, "messages": MESSAGES, "stream": self.streamed}


WAYS = [
    Way(name, client, streamed) for name in KINDS for client in (name, TRANSLATED[name]) for streamed in (True, False)
]
"""Every format, asked in itself and in another one, streamed and whole."""
STREAMS = [way for way in WAYS if way.streamed]
WHOLES = [way for way in WAYS if not way.streamed]
both_transports = pytest.mark.parametrize("transport", ["relay", "aiohttp"])


def config(
    upstream: FakeUpstream, transport: str = "relay", *, host: str = "127.0.0.1", server: str = "", **settings: Any
) -> str:
    """An upstream of every kind, each with a model of its name, asked once and never set aside."""
    more = "".join(f"{name} = {value}\n" for name, value in settings.items())
    parts = [
        f"[server]\ntransport = '{transport}'\n{server}\n[routing]\nmax_attempts = 1\nmax_cool_down_seconds = 0\n",
        *(
            f"[upstreams.{name}]\nfamily = '{kind.family}'\nbase_url = 'http://{host}:{upstream.port}{kind.path}'\n"
            f"api_key = 'sk-CANARY-upstream-key'\ndialects = ['{name}']\n{more}"
            f"[models.{name}]\ntargets = ['{name}/m-1']\nprice = {{input = 1.0, output = 2.0}}\n"
            for name, kind in KINDS.items()
        ),
    ]
    return "".join(parts)


ENDS: Mapping[str, bytes] = {
    "openai-chat": b"data:[DONE]",
    "openai-responses": b'"type":"response.completed"',
    "anthropic-messages": b'"type":"message_stop"',
    "gemini": b'"finishReason":',
}
"""What clients take for the end of a stream, without blanks."""


@dataclass
class Got:
    """What a client was given."""

    dialect: str
    streamed: bool
    status: int
    headers: Any
    body: bytes
    proper: bool
    """Whether the body had its own end."""

    @property
    def finished(self) -> bool:
        """Whether the client takes it for a whole answer."""
        if not self.streamed or self.status != 200:
            return self.proper and self.status == 200
        return self.proper and ENDS[self.dialect] in self.body.replace(b" ", b"")

    @property
    def error(self) -> str:
        """What the client is told went wrong; empty for nothing. Fails for more than one error."""
        values = [json.loads(self.body)] if self.status != 200 else self.events if self.streamed else []
        found = [told for value in values if (told := told_by(value))]
        assert len(found) <= 1, self.body
        return found[0] if found else ""

    @property
    def events(self) -> list[Any]:
        """The JSON of a stream's events; fails for what is neither that nor the end."""
        found: list[Any] = []
        for _, data in SseDecoder().feed(self.body):
            if data.strip() not in (b"", b"[DONE]"):
                # What passes through may be odd; what the relay writes never is.
                found.append(json.loads(data.decode("utf-8", "replace")))
        return found

    @property
    def text(self) -> str:
        """All text of the answer, in order."""
        return "".join(spoken(self.events if self.streamed else json.loads(self.body), self.dialect))


def told_by(value: Any) -> str:
    """The message of an error, wherever a dialect puts it."""
    if not isinstance(value, dict):
        return ""
    failed = value.get("response") if value.get("type") == "response.failed" else None
    fault = (failed or value).get("error")
    return str(fault["message"]) if isinstance(fault, dict) else str(fault or "")


def spoken(value: Any, dialect: str) -> list[str]:
    """The pieces of text in an answer's JSON."""
    if isinstance(value, list):
        return [text for one in value for text in spoken(one, dialect)]
    if not isinstance(value, dict):
        return []
    if dialect == "openai-responses" and str(value.get("type", "")).startswith("response."):
        said = value.get("delta") if value["type"] == "response.output_text.delta" else None
        return [said] if isinstance(said, str) else []
    wanted = "content" if dialect == "openai-chat" else "text"
    found = [value[wanted]] if isinstance(value.get(wanted), str) else []
    return found + [text for inner in value.values() for text in spoken(inner, dialect)]


async def ask(relay: Running, way: Way, heard: asyncio.Event | None = None, model: str = "") -> Got:
    """One call; what its client was given. `heard` is set once there is anything of it."""
    path, body = way.request(model)
    async with relay.client.post(relay.url + path, json=body) as response:
        got, proper = b"", True
        try:
            async for piece in response.content.iter_any():
                got += piece
                if heard is not None:
                    heard.set()
        except aiohttp.ClientPayloadError:
            proper = False
        return Got(way.client, way.streamed, response.status, response.headers, got, proper)
