"""Recorded answers of the Converse API, read naively."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from tests.replay.said import Counted, Finish, Reading, Said, arguments

FINISH: Mapping[str | None, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "error",
    "malformed_tool_use": "error",
}
"""Any other word is `other`."""


def messages(body: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The events of a stream that are all there. A message is its length, that of its headers, and both."""
    found = []
    while len(body) >= 12:
        length, head = struct.unpack(">II", body[:8])
        if len(body) < length:
            break
        headers, payload, body = body[12 : 12 + head], body[12 + head : length - 4], body[length:]
        texts = {}
        while headers:
            name, rest = headers[1 : 1 + headers[0]].decode(), headers[1 + headers[0] :]
            (size,) = struct.unpack(">H", rest[1:3])
            texts[name], headers = rest[3 : 3 + size].decode(), rest[3 + size :]
        found.append((texts[":event-type"], json.loads(payload)))
    return found


def read(body: bytes, *, streaming: bool) -> Reading:
    return _of(_joined(body) if streaming else json.loads(body))


def _joined(body: bytes) -> dict[str, Any]:
    """The answer that a stream spells out."""
    blocks: dict[int, dict[str, Any]] = {}
    answer: dict[str, Any] = {}
    for kind, value in messages(body):
        place = value.get("contentBlockIndex")
        if kind == "contentBlockStart":
            blocks[place] = {name: {**start, "input": ""} for name, start in value["start"].items()}
        elif kind == "contentBlockDelta":
            block = blocks.setdefault(place, {})
            for name, piece in value["delta"].items():
                if name == "text":
                    block["text"] = block.get("text", "") + piece
                elif name == "citation":
                    block.setdefault("cited", []).append(piece)
                elif name == "reasoningContent":
                    block["thought"] = block.get("thought", "") + piece.get("text", "")
                elif name == "toolUse":
                    block["toolUse"]["input"] += piece["input"]
        elif kind in ("messageStop", "metadata"):
            answer |= value
    content: list[dict[str, Any]] = []
    for block in blocks.values():
        if "toolUse" in block:
            content.append({"toolUse": {**block["toolUse"], "input": arguments(block["toolUse"]["input"])}})
        elif "thought" in block:
            content.append({"reasoningContent": {"reasoningText": {"text": block["thought"]}}})
        elif "cited" in block:
            words = [{"text": block["text"]}] if "text" in block else []
            content.append({"citationsContent": {"content": words, "citations": block["cited"]}})
        else:
            content.append(block)
    return {**answer, "output": {"message": {"content": content}}}


def _of(answer: dict[str, Any]) -> Reading:
    reason = answer.get("stopReason")
    said = Said(finish=None if reason is None else FINISH.get(reason, "other"))
    last = ""
    for block in answer["output"]["message"]["content"]:
        if "text" in block:
            last = block["text"]
            said.text += last
        elif "citationsContent" in block:
            cited = block["citationsContent"]
            words = "".join(item["text"] for item in cited.get("content") or ())
            last = words or last
            said.text += words
            said.beside["citations"] += len(cited["citations"])
            places = [note["location"].get("web") or {} for note in cited["citations"]]
            said.pages += [(place["url"], last) for place in places if place.get("url")]
        elif "reasoningContent" in block:
            said.reasoning += block["reasoningContent"]["reasoningText"]["text"]
        elif block.get("toolUse", {}).get("type") in ("tool_use", None) and "toolUse" in block:
            said.calls.append((block["toolUse"]["name"], block["toolUse"].get("input") or {}))
        else:
            said.beside["server_tools"] += 1
    usage = answer.get("usage") or {}
    given = [usage.get(name) for name in ("inputTokens", "cacheReadInputTokens", "cacheWriteInputTokens")]
    total = None if given[0] is None else sum(count or 0 for count in given)
    return Reading({0: said}, Counted(total, usage.get("outputTokens"), usage.get("cacheReadInputTokens")))


def ended(body: bytes, *, closed: bool) -> bool:
    """Whether the count was seen, behind everything else; where the connection was `closed` well, the reason does."""
    found = messages(body)
    if found and found[-1][0] == "metadata":
        return True
    whole = sum(struct.unpack(">I", body[place : place + 4])[0] for place in _starts(body)) == len(body)
    return closed and whole and bool(found) and found[-1][0] == "messageStop"


def _starts(body: bytes) -> list[int]:
    places, place = [], 0
    while place + 12 <= len(body):
        places.append(place)
        place += struct.unpack(">I", body[place : place + 4])[0]
    return places
