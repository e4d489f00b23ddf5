"""An upstream that plays a model with a tool: it asks for the tool once, then says what that gave.

It speaks four formats, told apart by the path. What it writes is written out here, so that nothing of the relay's own
has a part in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.flow.fake import Seen, Step, http, stream

__all__ = ["CALL_ID", "COMMAND", "FINAL", "MARK", "Model"]

MARK = "relay-42-works"
"""What the tool gives. The command does not hold it, so it is only there once the tool ran."""
COMMAND = "printf relay-%s-works 42"
FINAL = f"The tool said {MARK}, and that is all."
CALL_ID = "call_relay_0001"
TOOLS: Mapping[str, dict[str, Any]] = {
    "Bash": {"command": COMMAND, "description": "Say something"},
    "bash": {"command": COMMAND},
    "exec_command": {"cmd": COMMAND},
    "run_shell_command": {"command": COMMAND, "description": "Say something"},
    "weather": {"city": "Oslo"},
}
"""The tools that it asks for, with their arguments, by the names that clients give them."""
INPUT, OUTPUT = 50, 7
MODEL = "m-1"


class Model:
    """For `FakeUpstream.answer`. Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Seen] = []
        self.streamed: list[bool] = []

    def answer(self, seen: Seen) -> Sequence[Step]:
        """The next turn."""
        self.asked.append(seen)
        write = next(write for end, write in WRITERS.items() if end in seen.path)
        body = seen.json
        streamed = bool(body.get("stream")) or "streamGenerateContent" in seen.path
        self.streamed.append(streamed)
        offered = [tool for tool in names(body) if tool in TOOLS]
        if MARK in seen.body.decode() or not offered:
            # Agents ask for titles and the like beside what they were asked for themselves.
            return write(FINAL if offered else "A title", None, streamed)
        return write("", (offered[0], json.dumps(TOOLS[offered[0]])), streamed)

    def saw_the_result(self) -> bool:
        """Whether what the tool gave came back."""
        return any(MARK in seen.body.decode() for seen in self.asked)


def names(body: dict[str, Any]) -> list[str]:
    """The tools of a request, in any of the formats."""
    found = []
    for tool in body.get("tools") or ():
        for one in tool.get("functionDeclarations") or [tool.get("function") or tool]:
            found.append(str(one.get("name")))
    return found


Call = tuple[str, str]
"""A tool's name, and its arguments as JSON."""


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def data(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chat(text: str, call: Call | None, streamed: bool) -> Sequence[Step]:
    """Chat Completions."""
    usage = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
    finish = "tool_calls" if call else "stop"
    common = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": MODEL}
    if not streamed:
        message: dict[str, Any] = {"role": "assistant", "content": text or None}
        if call:
            function = {"name": call[0], "arguments": call[1]}
            message["tool_calls"] = [{"id": CALL_ID, "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return http({**common, "object": "chat.completion", "choices": [choice], "usage": usage})
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if call:
        start = {"index": 0, "id": CALL_ID, "type": "function", "function": {"name": call[0], "arguments": ""}}
        deltas.append({"tool_calls": [start]})
        middle = len(call[1]) // 2
        for piece in (call[1][:middle], call[1][middle:]):
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
    else:
        deltas += [{"content": word + " "} for word in text.split(" ")]
    chunk = {**common, "object": "chat.completion.chunk"}
    pieces = [data({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in deltas]
    pieces.append(data({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}))
    pieces.append(data({**chunk, "choices": [], "usage": usage}))
    return stream(*pieces, b"data: [DONE]\n\n")


def messages(text: str, call: Call | None, streamed: bool) -> Sequence[Step]:
    """Anthropic Messages."""
    stop = "tool_use" if call else "end_turn"
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT, "output_tokens": OUTPUT},
    }
    if not streamed:
        block: dict[str, Any] = {"type": "text", "text": text}
        if call:
            block = {"type": "tool_use", "id": CALL_ID, "name": call[0], "input": json.loads(call[1])}
        return http({**message, "content": [block], "stop_reason": stop})
    start: dict[str, Any] = {"type": "text", "text": ""}
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": word + " "} for word in text.split(" ")]
    if call:
        start = {"type": "tool_use", "id": CALL_ID, "name": call[0], "input": {}}
        middle = len(call[1]) // 2
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in (call[1][:middle], call[1][middle:])]
    return stream(
        event("message_start", message={**message, "content": [], "stop_reason": None}),
        event("content_block_start", index=0, content_block=start),
        *(event("content_block_delta", index=0, delta=delta) for delta in deltas),
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": stop, "stop_sequence": None}, usage={"output_tokens": OUTPUT}),
        event("message_stop"),
    )


def gemini(text: str, call: Call | None, streamed: bool) -> Sequence[Step]:
    """The Gemini API."""

    def answer(part: dict[str, Any], finish: str | None) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"role": "model", "parts": [part]}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        counts = {
            "promptTokenCount": INPUT,
            "candidatesTokenCount": OUTPUT,
            "totalTokenCount": INPUT + OUTPUT,
        }
        return {"candidates": [candidate], "usageMetadata": counts, "modelVersion": MODEL, "responseId": "r-1"}

    if call:
        part = {"functionCall": {"name": call[0], "args": json.loads(call[1])}}
        whole = answer(part, "STOP")
        return stream(data(whole)) if streamed else http(whole)
    if not streamed:
        return http(answer({"text": text}, "STOP"))
    *first, last = text.split(" ")
    return stream(*(data(answer({"text": word + " "}, None)) for word in first), data(answer({"text": last}, "STOP")))


def responses(text: str, call: Call | None, streamed: bool) -> Sequence[Step]:
    """OpenAI Responses."""
    if call:
        item: dict[str, Any] = {"type": "function_call", "id": "fc_1", "call_id": CALL_ID, "name": call[0]}
        done = {**item, "arguments": call[1], "status": "completed"}
        opened = {**item, "arguments": "", "status": "in_progress"}
    else:
        item = {"type": "message", "id": "msg_1", "role": "assistant"}
        part = {"type": "output_text", "text": text, "annotations": []}
        done = {**item, "content": [part], "status": "completed"}
        opened = {**item, "content": [], "status": "in_progress"}
    counts = {
        "input_tokens": INPUT,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": OUTPUT,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": INPUT + OUTPUT,
    }
    response: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "model": MODEL,
        "status": "completed",
        "output": [done],
        "usage": counts,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "temperature": 1.0,
        "top_p": 1.0,
    }
    if not streamed:
        return http(response)
    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    told: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": begun}),
        ("response.in_progress", {"response": begun}),
        ("response.output_item.added", {"output_index": 0, "item": opened}),
    ]
    where = {"item_id": item["id"], "output_index": 0}
    if call:
        middle = len(call[1]) // 2
        for piece in (call[1][:middle], call[1][middle:]):
            told.append(("response.function_call_arguments.delta", {**where, "delta": piece}))
        told.append(("response.function_call_arguments.done", {**where, "arguments": call[1]}))
    else:
        inside = {**where, "content_index": 0}
        empty = {"type": "output_text", "text": "", "annotations": []}
        told.append(("response.content_part.added", {**inside, "part": empty}))
        for word in text.split(" "):
            told.append(("response.output_text.delta", {**inside, "delta": word + " ", "logprobs": []}))
        told.append(("response.output_text.done", {**inside, "text": text, "logprobs": []}))
        told.append(("response.content_part.done", {**inside, "part": {**empty, "text": text}}))
    told.append(("response.output_item.done", {"output_index": 0, "item": done}))
    told.append(("response.completed", {"response": response}))
    return stream(*(event(kind, sequence_number=number, **fields) for number, (kind, fields) in enumerate(told)))


WRITERS: Mapping[str, Callable[[str, Call | None, bool], Sequence[Step]]] = {
    "/chat/completions": chat,
    "/messages": messages,
    "/responses": responses,
    "enerateContent": gemini,
}
"""Who answers, by a part of the path."""
