"""What callers are told of losses, on the way there and on the way back, and when strict keys are refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.flow.conftest import Running, Start, openai_config
from tests.flow.fake import FakeUpstream, chat_answer, chat_chunk, http, stream
from tests.flow.test_anthropic_sdk import event
from tests.flow.test_anthropic_sdk import native as messages_config

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m-1",
    "stop_reason": "stop_sequence",
    "stop_sequence": "END",
    "usage": {"input_tokens": 5, "output_tokens": 3},
    "content": [
        {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []},
        {
            "type": "text",
            "text": "It is blue.",
            "citations": [{"type": "char_location", "cited_text": "blue", "document_index": 0}],
        },
    ],
}


async def asked(relay: Running, path: str = "/v1/chat/completions", **fields: Any) -> tuple[int, str | None, bytes]:
    """Status, what the header says is lost, and the body."""
    body = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], **fields}
    async with relay.client.post(f"{relay.url}{path}", json=body) as response:
        return response.status, response.headers.get("x-relay-dropped"), await response.read()


@pytest.mark.parametrize("strict", [False, True])
async def test_hints_are_told_and_pass_with_any_key(start: Start, upstream: FakeUpstream, strict: bool) -> None:
    upstream.scripts = [http(MESSAGE | {"content": [{"type": "text", "text": "Yes."}], "stop_sequence": None})]
    relay = await start(messages_config(upstream), key={"strict": strict})
    status, lost, _ = await asked(relay, verbosity="low", service_tier="flex", metadata={"team": "a"})
    assert (status, lost) == (200, "verbosity, service_tier")
    assert "verbosity" not in upstream.seen[0].json


async def test_strict_keys_are_refused_what_matters_even_behind_hints(start: Start, upstream: FakeUpstream) -> None:
    relay = await start(messages_config(upstream), key={"strict": True})
    status, lost, body = await asked(relay, verbosity="low", seed=7)
    assert (status, lost, upstream.seen) == (400, None, [])
    assert b'"param":"seed"' in body
    assert b"up/m-1 cannot carry seed: answers cannot be made repeatable here" in body
    assert (await relay.row()).outcome == "rejected"


async def test_a_whole_answer_tells_what_the_callers_format_has_no_room_for(
    start: Start, upstream: FakeUpstream
) -> None:
    upstream.scripts = [http(MESSAGE)]
    relay = await start(messages_config(upstream), key={"strict": True})
    status, lost, body = await asked(relay)
    assert (status, lost) == (200, "server tools, blocks, citations, stop sequence")
    assert b"It is blue." in body
    assert b"web_search" not in body


async def test_what_passes_through_loses_nothing(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [http(MESSAGE)]
    relay = await start(messages_config(upstream))
    status, lost, _ = await asked(relay, "/v1/messages")
    assert (status, lost) == (200, None)


async def test_a_second_choice_is_told_of_where_there_is_only_one(start: Start, upstream: FakeUpstream) -> None:
    choices = [
        {"index": number, "message": {"role": "assistant", "content": f"No. {number}"}, "finish_reason": "stop"}
        for number in range(2)
    ]
    upstream.scripts = [chat_answer(choices=choices)]
    relay = await start(openai_config(upstream))
    status, lost, body = await asked(relay, "/v1/messages")
    assert (status, lost) == (200, "choices")
    assert b"No. 0" in body
    assert b"No. 1" not in body


async def test_the_head_of_a_stream_tells_what_has_shown_by_then(start: Start, upstream: FakeUpstream) -> None:
    """The search came before the first words, the citation after them."""
    search, found, text = MESSAGE["content"]
    upstream.scripts = [
        stream(
            event("message_start", message=MESSAGE | {"content": [], "stop_reason": None}),
            event("content_block_start", index=0, content_block=search),
            event("content_block_stop", index=0),
            event("content_block_start", index=1, content_block=found),
            event("content_block_stop", index=1),
            event("content_block_start", index=2, content_block={"type": "text", "text": ""}),
            event("content_block_delta", index=2, delta={"type": "text_delta", "text": "It is blue."}),
            0.05,
            event(
                "content_block_delta",
                index=2,
                delta={"type": "citations_delta", "citation": text["citations"][0]},
            ),
            event("content_block_stop", index=2),
            event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3}),
            event("message_stop"),
        )
    ]
    relay = await start(messages_config(upstream))
    status, lost, body = await asked(relay, stream=True, seed=7)
    assert status == 200
    # How much of a stream is there at once depends on the network.
    assert lost in ("seed, server tools, blocks", "seed, server tools, blocks, citations")
    assert b"It is blue." in body
    assert body.endswith(b"data: [DONE]\n\n")


async def test_a_stream_that_is_over_before_its_head_tells_everything(start: Start, upstream: FakeUpstream) -> None:
    upstream.scripts = [
        stream(
            chat_chunk({"role": "assistant", "content": ""})
            + chat_chunk({"content": "No."}, finish="tired")
            + b"data: [DONE]\n\n"
        )
    ]
    relay = await start(openai_config(upstream))
    status, lost, _ = await asked(relay, "/v1/messages", stream=True)
    assert (status, lost) == (200, "stop reason")
