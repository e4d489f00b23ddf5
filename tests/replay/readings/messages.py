"""Recorded answers of the Messages API, read naively."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.replay.said import FRAME, Counted, Finish, Reading, Said, arguments, frames

FINISH: Mapping[str | None, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
"""Any other word is `other`."""
PLAIN = frozenset({"text", "thinking", "redacted_thinking", "tool_use"})


def read(body: bytes, *, streaming: bool) -> Reading:
    return of_message(_joined(body) if streaming else json.loads(body))


def _joined(body: bytes) -> dict[str, Any]:
    """The message that a stream spells out."""
    message: dict[str, Any] = {}
    spelled: dict[int, str] = {}
    for _, data in frames(body):
        try:
            event = json.loads(data)
        except ValueError:
            # What some hosts send behind the end.
            continue
        match event.get("type"):
            case "message_start" if not message:
                message = event["message"]
                message["content"] = {}
            case "content_block_start":
                message["content"][event["index"]] = event["content_block"]
            case "content_block_delta":
                block = message["content"][event["index"]]
                for name in ("text", "thinking"):
                    block[name] = block.get(name, "") + event["delta"].get(name, "")
                if "citation" in event["delta"]:
                    block["citations"] = [*(block.get("citations") or ()), event["delta"]["citation"]]
                spelled[event["index"]] = spelled.get(event["index"], "") + event["delta"].get("partial_json", "")
            case "message_delta":
                message["stop_reason"] = event["delta"].get("stop_reason")
                known = {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
                message["usage"] |= known
            case "message_stop":
                break
    for index, text in spelled.items():
        if text:
            message["content"][index]["input"] = arguments(text)
    message["content"] = list(message["content"].values())
    return message


def of_message(message: dict[str, Any]) -> Reading:
    reason = message.get("stop_reason")
    said = Said(finish=None if reason is None else FINISH.get(reason, "other"))
    for block in message["content"]:
        match block["type"]:
            case "text":
                said.text += block["text"]
                said.beside["citations"] += len(block.get("citations") or ())
                said.pages += [(note["url"], block["text"]) for note in block.get("citations") or () if note.get("url")]
            case "thinking":
                said.reasoning += block["thinking"]
            case "tool_use":
                said.calls.append((block["name"], block.get("input") or {}))
        if block["type"] not in PLAIN:
            said.beside["server_tools"] += 1
    usage = message["usage"]
    # Compaction is billed beside what the totals count.
    rounds = [usage, *(entry for entry in usage.get("iterations") or () if entry["type"] == "compaction")]
    parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    counted = Counted(
        sum(entry.get(name) or 0 for entry in rounds for name in parts),
        sum(entry.get("output_tokens") or 0 for entry in rounds),
        usage.get("cache_read_input_tokens"),
    )
    return Reading({0: said}, counted)


def ended(body: bytes, *, closed: bool) -> bool:
    """Whether `message_stop` was seen, in an event that is complete or at least is the last that there will be."""
    blocks = FRAME.split(body)
    for block in blocks if closed else blocks[:-1]:
        for _, data in frames(block):
            try:
                if json.loads(data)["type"] == "message_stop":
                    return True
            except ValueError:
                continue
    return False
