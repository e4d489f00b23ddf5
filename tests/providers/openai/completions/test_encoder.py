"""What clients of legacy completions are told of any answer, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.errors import UpstreamProtocol
from relay.events import Event, Failure, Logprobs, MessageStart, MessageStop, PartStart, TextDelta
from relay.fold import unfold
from relay.ir import Choice, Media, Part, Refusal, Response, StopKind, StopReason, Text, Thinking, ToolCall, Usage
from relay_openai.completions.encoder import CompletionsEncoder, encode_response


def encoder(*, usage: bool = False) -> CompletionsEncoder:
    return CompletionsEncoder(model="asked", created=7, new_id="cmpl-new", usage=usage)


def frames(data: bytes) -> list[Any]:
    found = []
    for block in data.split(b"\n\n")[:-1]:
        assert block.startswith(b"data: ")
        found.append(block[6:].decode() if block == b"data: [DONE]" else json.loads(block[6:]))
    return found


def whole(response: Response) -> Any:
    return json.loads(encode_response(response, model="asked", created=7, new_id="cmpl-new"))


def answer(*parts: Part, kind: StopKind = "stop", **fields: Any) -> Response:
    return Response("id-1", "m", [Choice(list(parts), StopReason(kind))], created=3, **fields)


EVERYTHING: tuple[Part, ...] = (
    Thinking("hm"),
    Text("one"),
    ToolCall("c", "f", "{}"),
    Media("image", "image/png", data="AA"),
    Refusal(" no"),
    Text(" two"),
)


def test_text_is_all_that_there_is_a_place_for() -> None:
    shown = whole(answer(*EVERYTHING, usage=Usage(input=3, output=2)))
    assert shown == {
        "id": "id-1",
        "object": "text_completion",
        "created": 3,
        "model": "m",
        "choices": [{"text": "one no two", "index": 0, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def test_what_the_upstream_does_not_tell_is_made_up_once() -> None:
    shown = whole(Response("", "", [Choice([Text("a")])]))
    assert (shown["id"], shown["created"], shown["model"], "usage" in shown) == ("cmpl-new", 7, "asked", False)
    assert shown["choices"][0]["finish_reason"] is None
    streamed = frames(encoder().encode(unfold(Response("", "", [Choice([Text("a")], StopReason("stop"))]))))
    assert {(one["id"], one["created"], one["model"]) for one in streamed[:-1]} == {("cmpl-new", 7, "asked")}


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_spells_what_the_whole_answer_says(usage: bool) -> None:
    response = Response(
        "id-1",
        "m",
        [Choice([*EVERYTHING], StopReason("length")), Choice([Text("other")], StopReason("filter"))],
        usage=Usage(input=3, output=2),
        created=3,
    )
    found = frames(encoder(usage=usage).encode(unfold(response)))
    assert found.pop() == "[DONE]"
    if usage:
        last = found.pop()
        assert (last["choices"], last["usage"]["total_tokens"]) == ([], 5)
        assert all(one["usage"] is None for one in found)
    else:
        assert all("usage" not in one for one in found)
    texts = {0: "", 1: ""}
    finishes = {}
    for one in found:
        assert (one["id"], one["object"], one["created"], one["model"]) == ("id-1", "text_completion", 3, "m")
        (choice,) = one["choices"]
        texts[choice["index"]] += choice["text"]
        if choice["finish_reason"] is not None:
            finishes[choice["index"]] = choice["finish_reason"]
    assert (texts, finishes) == ({0: "one no two", 1: "other"}, {0: "length", 1: "content_filter"})


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "stop"),
        ("filter", "content_filter"),
        ("error", "error"),
        ("other", "stop"),
    ],
)
def test_every_end_has_its_word(kind: StopKind, word: str) -> None:
    assert whole(answer(Text("a"), kind=kind))["choices"][0]["finish_reason"] == word
    assert frames(encoder().encode(unfold(answer(Text("a"), kind=kind))))[-2]["choices"][0]["finish_reason"] == word


def test_an_answer_without_any_text_still_ends() -> None:
    found = frames(encoder().encode(unfold(answer(Thinking("hm")))))
    assert [one if isinstance(one, str) else one["choices"][0]["finish_reason"] for one in found] == ["stop", "[DONE]"]


def test_nothing_follows_a_failure_and_it_is_said_once() -> None:
    one = encoder()
    events: list[Event] = [MessageStart("i", "m"), PartStart(0, Text("")), TextDelta(0, "a")]
    error = UpstreamProtocol("it broke off")
    data = one.encode([*events, Failure(error), TextDelta(0, "b"), MessageStop()])
    found = frames(data)
    assert found[-1] == {
        "error": {
            "message": "it broke off",
            "type": "api_error",
            "param": None,
            "code": "upstream_protocol_error",
        }
    }
    assert b"[DONE]" not in data
    assert one.failure(error) == b""
    assert one.encode([TextDelta(0, "c"), MessageStop()]) == b""


def test_offsets_count_on_through_a_stream_and_odd_tokens_are_left_out() -> None:
    one = encoder()
    token = {"token": "ab", "logprob": -1, "top_logprobs": [{"token": "x", "logprob": -2}, {"logprob": 0}, 5]}
    found = frames(one.encode([Logprobs([token, {"logprob": 0}, 7]), Logprobs([token]), Logprobs([token], 1)]))
    assert [(f["choices"][0]["index"], f["choices"][0]["logprobs"]["text_offset"]) for f in found] == [
        (0, [0]),
        (0, [2]),
        (1, [0]),
    ]
    assert found[0]["choices"][0]["logprobs"]["top_logprobs"] == [{"x": -2}]
