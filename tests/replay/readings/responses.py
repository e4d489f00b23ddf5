"""Recorded answers of the Responses API, read naively."""

from __future__ import annotations

import json
from typing import Any

from tests.replay.said import FRAME, Counted, Finish, Reading, Said, arguments, frames, is_base64, objects, words

TERMINAL = ("response.completed", "response.incomplete", "response.failed")
STOPPED: dict[str | None, Finish] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
"""Any other reason of an incomplete answer is `other`."""
PLAIN = frozenset({"message", "reasoning", "function_call", "custom_tool_call"})
THOUGHTS = ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")

Place = tuple[Any, Any]


def read(body: bytes, *, streaming: bool) -> Reading:
    return _stream(body) if streaming else of_response(json.loads(body))


def _stream(body: bytes) -> Reading:
    """Items as they are when they are done; texts as their pieces say where there are any."""
    items: dict[Any, dict[str, Any]] = {}
    texts: dict[Place, str] = {}
    thoughts: dict[Any, dict[Any, str]] = {}
    last: dict[str, Any] = {}
    for event in objects(body):
        kind, place = event.get("type"), event.get("output_index")
        if kind == "response.output_item.done":
            items[place] = event["item"]
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            key = (place, event.get("content_index"))
            texts[key] = texts.get(key, "") + event["delta"]
        elif kind in THOUGHTS:
            section = event.get("summary_index", ("content", event.get("content_index")))
            pieces = thoughts.setdefault(place, {})
            pieces[section] = pieces.get(section, "") + event["delta"]
        elif kind in TERMINAL:
            last = event["response"]
            break
    told = [items[place] for place in sorted(items)]
    for item in last.get("output") or ():
        # What was never told before.
        if not told or (item.get("id") and item["id"] not in {one.get("id") for one in told}):
            told.append(item)
    reading = of_response({**last, "output": told})
    said = reading.choices[0]
    if texts:
        said.text, said.refusal = _joined(told, texts)
    if thoughts:
        said.reasoning = "".join(
            "\n\n".join(thoughts[place].values()) if place in thoughts else _thought(items[place])
            for place in sorted({*thoughts, *(place for place in items if items[place]["type"] == "reasoning")})
        )
    return reading


def _joined(items: list[dict[str, Any]], texts: dict[Place, str]) -> tuple[str, str]:
    """The pieces by the kind of what they are pieces of; hosts count the places otherwise in events than in items."""
    kinds = [part["type"] for item in items if item["type"] == "message" for part in item.get("content") or ()]
    text, refusal = "", ""
    for key, kind in zip(sorted(texts, key=repr), kinds or ["output_text"] * len(texts), strict=False):
        if kind == "refusal":
            refusal += texts[key]
        else:
            text += texts[key]
    whole = of_items(items)
    # Parts without pieces stand in their items only.
    return (text if text or not whole.text else whole.text), (refusal or whole.refusal or "")


def _thought(item: dict[str, Any]) -> str:
    found = [entry.get("text") for name in ("summary", "content") for entry in item.get(name) or ()]
    return "\n\n".join(text for text in found if text)


def _call(item: dict[str, Any]) -> tuple[str, Any] | None:
    if item["type"] == "function_call":
        name = f"{item['namespace']}__{item['name']}" if item.get("namespace") else item["name"]
        given = item.get("arguments")
        return name, arguments(given) if isinstance(given, str) else given or {}
    if item["type"] == "custom_tool_call":
        return item["name"], {"input": item["input"]}
    if item["type"] == "tool_search_call" and item.get("execution") == "client":
        return "tool_search", item["arguments"]
    return None


def of_items(items: list[dict[str, Any]]) -> Said:
    said = Said()
    for item in items:
        if item["type"] == "message":
            for part in item.get("content") or ():
                if part["type"] == "refusal":
                    said.refusal = (said.refusal or "") + part["refusal"]
                elif part["type"] in ("output_text", "text"):
                    said.text += part["text"]
                    said.beside["citations"] += len(part.get("annotations") or ())
                    said.pages += [
                        (note["url"], words(part["text"], note.get("start_index"), note.get("end_index")))
                        for note in part.get("annotations") or ()
                        if note.get("url")
                    ]
                    said.beside["logprobs"] += len(part.get("logprobs") or ())
        elif item["type"] == "reasoning":
            said.reasoning += _thought(item)
        elif (call := _call(item)) is not None:
            said.calls.append(call)
        elif item["type"] == "image_generation_call" and item.get("result"):
            said.beside["media" if is_base64(item["result"]) else "unreadable"] += 1
        else:
            said.beside["server_tools"] += 1
    return said


def of_response(response: dict[str, Any]) -> Reading:
    said = of_items(response.get("output") or [])
    said.finish = "tool_calls" if said.calls else "stop"
    if response.get("status") == "incomplete":
        said.finish = STOPPED.get((response.get("incomplete_details") or {}).get("reason"), "other")
    usage = response.get("usage") or {}
    cached = (usage.get("input_tokens_details") or {}).get("cached_tokens")
    return Reading({0: said}, Counted(usage.get("input_tokens"), usage.get("output_tokens"), cached))


def waiting(body: bytes) -> bool:
    """Whether this is an answer in the background, which says nothing yet."""
    value = json.loads(body)
    return isinstance(value, dict) and value.get("status") in ("queued", "in_progress", "cancelled")


def ended(body: bytes, *, closed: bool) -> bool:
    """Whether one of the events that complete an answer was seen whole."""
    blocks = FRAME.split(body)
    for block in blocks if closed else blocks[:-1]:
        for name, data in frames(block):
            try:
                value = json.loads(data)
            except ValueError:
                continue
            if isinstance(value, dict) and value.get("type", name) in TERMINAL[:2]:
                return True
    return False
