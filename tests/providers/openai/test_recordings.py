"""Recorded traffic, read by the decoders and by a naive reading written only for this test."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from relay import Target, Upstream
from relay.errors import BadParameter, UpstreamError
from relay.events import ChoiceStop, Event, Failure, MessageStart, UsageSeen
from relay.fold import Fold
from relay.ir import Choice, Refusal, Response, Thinking, ToolCall
from relay_openai.compose import compose
from relay_openai.dialect import OpenAIChat
from relay_openai.encoder import ChatEncoder
from relay_openai.family import read_error
from relay_openai.request import parse_request
from relay_openai.response import decode_response, encode_response
from relay_openai.stream import ChatDecoder

pytestmark = pytest.mark.shared

# Everything on, so that a round trip shows the parser's losses and not a host's.
OPTIONS = {"developer_role": True, "cache_control": True, "top_k": True}
TARGET = Target(Upstream("test", "openai", "https://upstream.test/v1", options=OPTIONS), "m")

NOT_CHAT = {"0f652df74552e3ec", "0ff4f5cc03f8b7db", "32bfd7e8bd4c2eec"}
"""Lists of stored completions: answers to GET, not to a chat request."""
ERRORS = {"7c6ec620a74582ba", "fd33f4461f7d6b61", "fad2fc1338ad5f7e"}
"""Answers with status 200 that are errors."""


def exchanges(traffic: Any, *, streaming: bool | None = None, good: bool | None = True) -> list[Any]:
    return [
        e
        for e in traffic.exchanges(traffic.folder, handmade=True, streaming=streaming)
        if e["dialect"] == "openai-chat" and (good is None or (e["status"] < 300) == good)
    ]


def decode(data: bytes, size: int = 0) -> list[Event]:
    decoder = ChatDecoder()
    step = size or max(len(data), 1)
    events: list[Event] = []
    for start in range(0, len(data), step):
        events += decoder.feed(data[start : start + step])
    return events + decoder.close()


def fold(events: list[Event]) -> Fold:
    folded = Fold()
    folded.add(events)
    return folded


# A naive reading: dict work, nothing shared with the decoder.


def blank() -> dict[str, Any]:
    return {"text": "", "thinking": "", "refusal": "", "calls": [], "finish": None}


def naive_content(choice: dict[str, Any], content: Any) -> None:
    if isinstance(content, str):
        choice["text"] += content
    elif isinstance(content, dict):
        choice["text"] += json.dumps(content, separators=(",", ":"))
    for item in content if isinstance(content, list) else ():
        if item["type"] == "text":
            choice["text"] += item["text"]
        elif item["type"] == "thinking":
            choice["thinking"] += "".join(t["text"] for t in item["thinking"])


def naive_message(choice: dict[str, Any], message: dict[str, Any], *, whole: bool) -> None:
    naive_content(choice, message.get("content"))
    thinking = message.get("reasoning_content") or message.get("reasoning")
    if not thinking and not choice["thinking"]:
        thinking = "".join(d.get("text") or d.get("summary") or "" for d in message.get("reasoning_details") or ())
        choice["thinking"] += thinking if whole else ""
    else:
        choice["thinking"] += thinking or ""
    choice["refusal"] += message.get("refusal") or ""
    for call in message.get("tool_calls") or ():
        body = call["function"]
        if whole or (body.get("name") and (call.get("id") or "index" not in call)):
            choice["calls"].append([body.get("name"), body.get("arguments") or "", call.get("index")])
        else:
            # A continuation: of the call with its number.
            known = [c for c in choice["calls"] if c[2] == call.get("index")]
            if known:
                known[-1][1] += body.get("arguments") or ""
            else:
                choice["calls"].append([body.get("name"), body.get("arguments") or "", call.get("index")])
    old = message.get("function_call")
    if old and old["name"] and not message.get("tool_calls"):
        choice["calls"].append([old["name"], old["arguments"], None])


def naive_usage(usage: Any, seen: tuple[Any, Any]) -> tuple[Any, Any]:
    if not usage:
        return seen
    prompt, completion, total = usage["prompt_tokens"], usage["completion_tokens"], usage.get("total_tokens")
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    audio = (usage.get("prompt_tokens_details") or {}).get("audio_tokens") or 0
    if completion is None:
        return prompt, None
    if total == prompt + completion + reasoning:
        completion += reasoning
    elif total == prompt + completion + audio:
        prompt += audio
    return prompt, completion


def naive_stream(text: str) -> tuple[dict[int, Any], tuple[Any, Any]]:
    choices: dict[int, Any] = {}
    usage: tuple[Any, Any] = (None, None)
    for line in text.splitlines():
        if not line.startswith("data:") or line[5:].strip() == "[DONE]":
            continue
        chunk = json.loads(line[5:])
        for raw in chunk.get("choices") or ():
            choice = choices.setdefault(raw["index"], blank())
            naive_message(choice, raw.get("delta") or {}, whole=False)
            choice["finish"] = raw.get("finish_reason") or choice["finish"]
        usage = naive_usage(chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage"), usage)
    return choices, usage


def naive_whole(body: dict[str, Any]) -> tuple[dict[int, Any], tuple[Any, Any]]:
    choices: dict[int, Any] = {}
    for place, raw in enumerate(body["choices"]):
        choice = choices.setdefault(raw.get("index", place), blank())
        naive_message(choice, raw["message"], whole=True)
        choice["finish"] = raw.get("finish_reason") or None
        if raw.get("error"):
            choice["finish"] = choice["finish"] or "error"
    return choices, naive_usage(body.get("usage"), (None, None))


def summary(choice: Choice) -> dict[str, Any]:
    return {
        "text": choice.text,
        "thinking": "".join(p.text for p in choice.parts if isinstance(p, Thinking)),
        "refusal": "".join(p.text for p in choice.parts if isinstance(p, Refusal)),
        "calls": [(p.name, p.arguments) for p in choice.parts if isinstance(p, ToolCall)],
        "finish": choice.stop.raw if choice.stop else None,
    }


def compare(response: Response, wanted: tuple[dict[int, Any], tuple[Any, Any]], name: str) -> None:
    choices, usage = wanted
    assert len(response.choices) == len(choices), name
    for choice, number in zip(response.choices, sorted(choices), strict=True):
        expected = choices[number]
        expected["calls"] = [(call[0], call[1]) for call in expected["calls"]]
        assert summary(choice) == expected, name
    seen = response.usage
    assert (seen.input if seen else None, seen.output if seen else None) == usage, name


def test_every_recorded_stream_says_what_a_naive_reading_finds_however_it_is_cut(traffic: Any) -> None:
    outcomes: Counter[str] = Counter()
    for exchange in exchanges(traffic, streaming=True):
        data = traffic.body(exchange)
        events = decode(data)
        assert repr(decode(data, 7)) == repr(events), exchange["id"]
        assert repr(decode(data.replace(b"\n", b"\r\n"), 11)) == repr(events), exchange["id"]
        folded = fold(events)
        if exchange["id"] in ERRORS:
            assert isinstance(events[-1], Failure), exchange["id"]
            outcomes["failed"] += 1
            continue
        assert folded.error is None, (exchange["id"], folded.error)
        assert folded.complete, exchange["id"]
        compare(folded.response(), naive_stream(data.decode()), exchange["id"])
        outcomes["complete"] += 1
    assert outcomes["complete"] > 450
    assert outcomes["failed"] == 2


def test_every_recorded_answer_says_what_a_naive_reading_finds(traffic: Any) -> None:
    read = 0
    for exchange in exchanges(traffic, streaming=False):
        data = traffic.body(exchange)
        if exchange["id"] in NOT_CHAT | ERRORS:
            with pytest.raises(UpstreamError):
                decode_response(json.loads(data), data)
            continue
        response = decode_response(json.loads(data), data)
        compare(response, naive_whole(json.loads(data)), exchange["id"])
        read += 1
    assert read > 950


def comparable(events: list[Event]) -> Response:
    """The answer, without what this format has no place for."""
    for event in events:
        if isinstance(event, UsageSeen):
            usage = event.usage
            usage.cache_write_5m = (usage.cache_write_5m or 0) + (usage.cache_write_1h or 0)
            usage.cache_write_1h = usage.raw = None
        elif isinstance(event, ChoiceStop):
            event.extra = None
            event.stop.raw = event.stop.sequence = None
        elif isinstance(event, MessageStart):
            event.extra = None
            event.id = event.id or "made-up"
    return fold(events).response()


def test_recorded_streams_survive_being_written_again(traffic: Any) -> None:
    compared = 0
    for exchange in exchanges(traffic, streaming=True):
        events = decode(traffic.body(exchange))
        if exchange["id"] in ERRORS:
            continue
        encoder = ChatEncoder(model="m", created=1, new_id="made-up", usage=True)
        again = decode(encoder.encode(events))
        assert comparable(again) == comparable(events), exchange["id"]
        compared += 1
    assert compared > 450


def test_recorded_answers_survive_being_written_again(traffic: Any) -> None:
    for exchange in exchanges(traffic, streaming=False):
        if exchange["id"] in NOT_CHAT | ERRORS:
            continue
        data = traffic.body(exchange)
        response = decode_response(json.loads(data), data)
        again = encode_response(response, model="m", created=1, new_id="made-up")
        second = decode_response(json.loads(again), again)
        assert encode_response(second, model="m", created=1, new_id="made-up") == again, exchange["id"]
        for one, two in zip(response.choices, second.choices, strict=True):
            kept = {**summary(one), "finish": None}
            assert {**summary(two), "finish": None} == kept, exchange["id"]


REFUSED = {
    "09f76ebe755ef04a": "messages[2].tool_call_id",
    "351aa12a40b81135": "messages[2].tool_call_id",
    "7e59534461ab3a04": "max_tokens",
}
"""Requests that this dialect does not allow: tools' answers without the id of their call, and a limit of 0 tokens."""


def normal(value: Any) -> Any:
    """A request as the documented normalisation leaves it."""
    body = {key: item for key, item in value.items() if item is not None}
    body.pop("model", None)
    body["messages"] = [normal_message(message) for message in body["messages"]]
    limit = body.pop("max_tokens", None)
    limit = body.pop("max_completion_tokens", limit)
    body["limit"] = limit
    if isinstance(body.get("stop"), str):
        body["stop"] = [body["stop"]]
    if body.get("stream") is False:
        del body["stream"]
    if body.get("stream"):
        body["stream_options"] = {**body.get("stream_options", {}), "include_usage": True}
    else:
        body.pop("stream_options", None)
    if body.get("response_format") == {"type": "text"}:
        del body["response_format"]
    if not body.get("tools") and not body.get("functions"):
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            body.pop(name, None)
    body["tools"] = [normal_tool(tool) for tool in body.get("tools") or ()]
    choice = body.get("tool_choice", body.pop("function_call", None))
    if choice == "auto":
        body["tool_choice"] = "auto"
    elif choice == "any":
        body["tool_choice"] = "required"
    elif isinstance(choice, dict) and "function" in choice:
        body["tool_choice"] = {"type": "function", "function": choice["function"]}
    form = body.get("response_format")
    if form and form["type"] == "json_schema":
        form["json_schema"] = {key: item for key, item in form["json_schema"].items() if item is not None}
        form["json_schema"].setdefault("name", "answer")
    return body


def normal_tool(tool: dict[str, Any]) -> dict[str, Any]:
    if "function" not in tool:
        return tool
    function = {key: item for key, item in tool["function"].items() if item is not None}
    function.setdefault("parameters", {"type": "object", "properties": {}})
    return {**tool, "type": "function", "function": function}


def normal_part(part: dict[str, Any]) -> dict[str, Any]:
    out = {key: item for key, item in part.items() if item is not None}
    if isinstance(out.get("image_url"), str):
        out["image_url"] = {"url": out["image_url"]}
    return out


def normal_message(message: dict[str, Any]) -> dict[str, Any]:
    out = {key: item for key, item in message.items() if item is not None}
    role, content = out["role"], out.get("content")
    if isinstance(content, list):
        out["content"] = content = [normal_part(part) for part in content]
        if all(part.keys() == {"type", "text"} for part in content):
            texts = [part["text"] for part in content]
            if role != "user" or len(texts) == 1:
                out["content"] = {"assistant": "", "tool": "\n"}.get(role, "\n\n").join(texts)
    if not out.get("content"):
        out.pop("content", None)
    for call in out.get("tool_calls") or ():
        call.setdefault("type", "function")
        call["function"]["arguments"] = call["function"].get("arguments") or "{}"
        call["function"].pop("parsed_arguments", None)
        for key in [key for key, item in call.items() if item is None]:
            del call[key]
    if out.get("tool_calls") == []:
        del out["tool_calls"]
    return out


def test_every_recorded_request_is_read_and_written_again(traffic: Any) -> None:
    dialect = OpenAIChat()
    read = legacy = nameless = 0
    for exchange in exchanges(traffic, good=None):
        body = exchange["request_body"]
        if not isinstance(body, dict):
            continue
        if body["model"] is None:
            with pytest.raises(BadParameter, match="model is missing"):
                dialect.peek(json.dumps(body).encode(), "generate", {}, {})
            nameless += 1
            continue
        if exchange["id"] in REFUSED:
            with pytest.raises(BadParameter) as caught:
                dialect.parse(dialect.peek(json.dumps(body).encode(), "generate", {}, {}))
            assert caught.value.param == REFUSED[exchange["id"]]
            continue
        head = dialect.peek(json.dumps(body).encode(), "generate", {}, {})
        assert head.model == body["model"]
        assert head.input_estimate > 0
        assert len(dialect.tools(head)) == sum("function" in t for t in body.get("tools") or ()) + len(
            body.get("functions") or ()
        )
        request = dialect.parse(head)
        losses: list[Any] = []
        written = compose(request, TARGET, losses)
        read += 1
        if any(message.get("role") == "function" or message.get("function_call") for message in body["messages"]) or (
            "functions" in body
        ):
            assert "functions" not in written
            legacy += 1
            continue
        assert losses == [], (exchange["id"], losses)
        assert normal(written) == normal(body), exchange["id"]
    assert read > 1400
    assert (legacy, nameless) == (7, 1)


def test_a_request_parsed_written_and_parsed_again_is_the_same(traffic: Any) -> None:
    for exchange in exchanges(traffic, good=None):
        body = exchange["request_body"]
        if not isinstance(body, dict) or exchange["id"] in REFUSED or body["model"] is None:
            continue
        written = compose(parse_request(body), TARGET, [])
        assert compose(parse_request(written), TARGET, []) == written, exchange["id"]


def test_every_recorded_error_is_told_in_the_vendors_words(traffic: Any) -> None:
    told = 0
    for exchange in exchanges(traffic, good=False):
        error = read_error(TARGET, exchange["status"], exchange["response_headers"], traffic.body(exchange))
        assert error.upstream_status in (exchange["status"], 401), exchange["id"]
        assert 400 <= error.status < 600
        assert error.message
        if exchange["status"] in (401, 403):
            assert error.status == 502
            continue
        assert error.message != f"the upstream answered with status {exchange['status']}", exchange["id"]
        assert not error.message.startswith("{"), exchange["id"]
        told += 1
    assert told > 35
