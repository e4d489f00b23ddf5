"""What the upstreams of the built-in families say, written by hand: a greeting, a call of a tool, refusals."""

from __future__ import annotations

import json
from typing import Any

from relay.testing import Refusal, ToolCallVector, Vectors
from tests.providers.bedrock.wire import streamed as converse_stream

__all__ = ["CHAT", "CONVERSE", "DEMO", "GEMINI", "MESSAGES", "OLLAMA", "PARROT", "RESPONSES"]

ARGUMENTS = {"place": "Rome", "days": 3}
SPELLED = '{"place": "Rome", "days": 3}'


def sse(*values: Any, named: bool = False, done: bool = False) -> bytes:
    """Server-sent events."""
    frames = []
    for value in values:
        name = f"event: {value['type']}\n" if named else ""
        frames.append(f"{name}data: {json.dumps(value)}\n\n".encode())
    return b"".join(frames) + (b"data: [DONE]\n\n" if done else b"")


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def lines(*values: Any) -> bytes:
    return b"".join(body(value) + b"\n" for value in values)


# Chat Completions.


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    base = {"id": "c-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "model-1"}
    return {**base, "choices": choices, **more}


def completion(message: Any, finish: str, usage: Any) -> dict[str, Any]:
    base = {"id": "c-1", "object": "chat.completion", "created": 1_700_000_000, "model": "model-1"}
    return {**base, "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}


CHAT_USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
CHAT_CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
CHAT = Vectors(
    stream=sse(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hello"}),
        chunk({"content": " \u4e16\u754c"}),
        chunk({"content": "\u2028\U0001f642"}),
        chunk({}, "stop"),
        chunk(usage=CHAT_USAGE),
        done=True,
    ),
    answer=body(completion({"role": "assistant", "content": "Hello \u4e16\u754c\u2028\U0001f642"}, "stop", CHAT_USAGE)),
    text="Hello \u4e16\u754c\u2028\U0001f642",
    input_tokens=11,
    output_tokens=3,
    refusals=(
        Refusal(400, body({"error": {"message": "too hot", "type": "t", "param": "temperature"}}), "too hot", 400),
        Refusal(429, body({"error": {"message": "slow down", "type": "t", "code": "c"}}), "slow down", 429),
        Refusal(500, body({"error": {"message": "it broke", "type": "t"}}), "it broke", 502),
    ),
    tool=ToolCallVector(
        stream=sse(
            chunk({"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}),
            *(
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
                for piece in (SPELLED[:9], SPELLED[9:12], SPELLED[12:])
            ),
            chunk({}, "tool_calls"),
            chunk(usage=CHAT_USAGE),
            done=True,
        ),
        answer=body(
            completion(
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": SPELLED}}
                    ],
                },
                "tool_calls",
                CHAT_USAGE,
            )
        ),
        name="weather",
        arguments=ARGUMENTS,
    ),
)


# Responses.


def response(status: str, output: Any, usage: Any = None) -> dict[str, Any]:
    base = {"id": "resp_1", "object": "response", "created_at": 1_700_000_000, "model": "model-1", "error": None}
    return {**base, "status": status, "incomplete_details": None, "output": output, "usage": usage, "tools": []}


def item(status: str, *content: Any) -> dict[str, Any]:
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": list(content)}


def output_text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


RESPONSES_USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 16,
}
CALLED = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "weather", "status": "completed"}


def numbered(*values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**value, "sequence_number": number} for number, value in enumerate(values)]


AT = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
RESPONSES = Vectors(
    stream=sse(
        *numbered(
            {"type": "response.created", "response": response("in_progress", [])},
            {"type": "response.output_item.added", "output_index": 0, "item": item("in_progress")},
            {"type": "response.content_part.added", **AT, "part": output_text("")},
            {"type": "response.output_text.delta", **AT, "delta": "Hello", "logprobs": []},
            {"type": "response.output_text.delta", **AT, "delta": " there", "logprobs": []},
            {"type": "response.output_text.done", **AT, "text": "Hello there", "logprobs": []},
            {"type": "response.content_part.done", **AT, "part": output_text("Hello there")},
            {
                "type": "response.output_item.done",
                "output_index": 0,
                "item": item("completed", output_text("Hello there")),
            },
            {
                "type": "response.completed",
                "response": response("completed", [item("completed", output_text("Hello there"))], RESPONSES_USAGE),
            },
        ),
        named=True,
    ),
    answer=body(response("completed", [item("completed", output_text("Hello there"))], RESPONSES_USAGE)),
    text="Hello there",
    input_tokens=11,
    output_tokens=5,
    refusals=CHAT.refusals,
    tool=ToolCallVector(
        stream=sse(
            *numbered(
                {"type": "response.created", "response": response("in_progress", [])},
                {
                    "type": "response.output_item.added",
                    "output_index": 0,
                    "item": {**CALLED, "status": "in_progress", "arguments": ""},
                },
                {
                    "type": "response.function_call_arguments.delta",
                    "output_index": 0,
                    "item_id": "fc_1",
                    "delta": SPELLED[:9],
                },
                {
                    "type": "response.function_call_arguments.delta",
                    "output_index": 0,
                    "item_id": "fc_1",
                    "delta": SPELLED[9:],
                },
                {
                    "type": "response.function_call_arguments.done",
                    "output_index": 0,
                    "item_id": "fc_1",
                    "arguments": SPELLED,
                },
                {"type": "response.output_item.done", "output_index": 0, "item": {**CALLED, "arguments": SPELLED}},
                {
                    "type": "response.completed",
                    "response": response("completed", [{**CALLED, "arguments": SPELLED}], RESPONSES_USAGE),
                },
            ),
            named=True,
        ),
        answer=body(response("completed", [{**CALLED, "arguments": SPELLED}], RESPONSES_USAGE)),
        name="weather",
        arguments=ARGUMENTS,
    ),
    dialect="openai-responses",
)


# Messages.


def message(content: Any, stop: Any, usage: Any) -> dict[str, Any]:
    base = {"id": "msg_1", "type": "message", "role": "assistant", "model": "model-1", "stop_sequence": None}
    return {**base, "content": content, "stop_reason": stop, "usage": usage}


def streamed_message(start: Any, deltas: list[Any], stop: str) -> bytes:
    return sse(
        {"type": "message_start", "message": message([], None, {"input_tokens": 11, "output_tokens": 1})},
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "ping"},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
        named=True,
    )


def fault(kind: str, words: str) -> bytes:
    return body({"type": "error", "error": {"type": kind, "message": words}})


USED = {"input_tokens": 11, "output_tokens": 3}
TOOL_USE = {"type": "tool_use", "id": "toolu_1", "name": "weather"}
MESSAGES = Vectors(
    stream=streamed_message(
        {"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in ("Hello", " there")], "end_turn"
    ),
    answer=body(message([{"type": "text", "text": "Hello there"}], "end_turn", USED)),
    text="Hello there",
    input_tokens=11,
    output_tokens=3,
    refusals=(
        Refusal(400, fault("invalid_request_error", "too hot"), "too hot", 400),
        Refusal(429, fault("rate_limit_error", "slow down"), "slow down", 429),
        Refusal(529, fault("overloaded_error", "Overloaded"), "Overloaded", 503),
    ),
    tool=ToolCallVector(
        stream=streamed_message(
            {**TOOL_USE, "input": {}},
            [{"type": "input_json_delta", "partial_json": piece} for piece in ("", SPELLED[:9], SPELLED[9:])],
            "tool_use",
        ),
        answer=body(message([{**TOOL_USE, "input": ARGUMENTS}], "tool_use", USED)),
        name="weather",
        arguments=ARGUMENTS,
    ),
)


# The Gemini API.


def candidates(parts: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "model-1", "responseId": "r-1", **more}


COUNTED = {"usageMetadata": {"promptTokenCount": 11, "candidatesTokenCount": 3, "totalTokenCount": 14}}
FUNCTION = [{"functionCall": {"name": "weather", "args": ARGUMENTS}}]
GEMINI = Vectors(
    stream=sse(
        candidates([{"text": "Hello"}]), candidates([{"text": " there"}]), candidates([{"text": ""}], "STOP", **COUNTED)
    ),
    answer=body(candidates([{"text": "Hello there"}], "STOP", **COUNTED)),
    text="Hello there",
    input_tokens=11,
    output_tokens=3,
    refusals=(
        Refusal(
            400, body({"error": {"code": 400, "message": "too hot", "status": "INVALID_ARGUMENT"}}), "too hot", 400
        ),
        Refusal(429, body({"error": {"code": 429, "message": "slow down", "status": "R"}}), "slow down", 429),
    ),
    tool=ToolCallVector(
        stream=sse(candidates(FUNCTION), candidates([{"text": ""}], "STOP", **COUNTED)),
        answer=body(candidates(FUNCTION, "STOP", **COUNTED)),
        name="weather",
        arguments=ARGUMENTS,
    ),
)


# Converse.


def converse(content: Any, reason: str) -> bytes:
    return body(
        {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": reason, "usage": SPENT}
    )


SPENT = {"inputTokens": 11, "outputTokens": 3, "totalTokens": 14}
TOOL_WANTED = [{"toolUse": {"toolUseId": "call-1", "name": "weather", "input": ARGUMENTS}}]
CONVERSE = Vectors(
    stream=converse_stream([{"text": "Hello there"}], "end_turn", usage=SPENT),
    answer=converse([{"text": "Hello there"}], "end_turn"),
    text="Hello there",
    input_tokens=11,
    output_tokens=3,
    refusals=(
        Refusal(400, body({"message": "too hot", "__type": "ValidationException"}), "too hot", 400),
        Refusal(429, body({"message": "slow down", "__type": "ThrottlingException"}), "slow down", 429),
        Refusal(503, body({"message": "Overloaded"}), "Overloaded", 503),
    ),
    tool=ToolCallVector(
        stream=converse_stream(TOOL_WANTED, "tool_use", usage=SPENT),
        answer=converse(TOOL_WANTED, "tool_use"),
        name="weather",
        arguments=ARGUMENTS,
    ),
    stream_type="application/vnd.amazon.eventstream",
    options={"region": "us-east-1"},
)


# Families of one file, from the pages, and the demo.

SAID = ({"word": "Hello"}, {"word": " there"}, {"read": 11, "said": 3})
PARROT = Vectors(
    stream=lines(*SAID),
    answer=lines(*SAID),
    text="Hello there",
    input_tokens=11,
    output_tokens=3,
    stream_type="application/x-ndjson",
    secret="",
)


def turn(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "model-1", "message": {"role": "assistant", "content": text}, "done": bool(more), **more}


ENDED = {"done": True, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 3}
OLLAMA = Vectors(
    stream=lines(turn("Hello"), turn(" there"), turn("", **ENDED)),
    answer=body(turn("Hello there", **ENDED)),
    text="Hello there",
    input_tokens=11,
    output_tokens=3,
    refusals=(Refusal(404, body({"error": "model 'm' not found"}), "not found", 404),),
    stream_type="application/x-ndjson",
    secret="",
)
DEMO_SAID = (
    {"id": "demo-1", "text": "Hello"},
    {"id": "demo-1", "text": " there"},
    {"done": "stop", "input": 11, "output": 3},
)
DEMO_CALLED = (
    {"id": "demo-1", "tool": "weather", "arguments": SPELLED},
    {"done": "tool", "input": 11, "output": 3},
)
DEMO = Vectors(
    stream=lines(*DEMO_SAID),
    answer=body({"lines": DEMO_SAID}),
    text="Hello there",
    input_tokens=11,
    output_tokens=3,
    refusals=(Refusal(400, body({"error": "the demo does not like that"}), "does not like that", 400),),
    tool=ToolCallVector(lines(*DEMO_CALLED), body({"lines": DEMO_CALLED}), "weather", ARGUMENTS),
    stream_type="application/x-ndjson",
    secret="",
)
