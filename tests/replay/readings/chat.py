"""Recorded Chat Completions, read naively."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tests.replay.said import FRAME, Counted, Finish, Reading, Said, arguments, frames

FINISH: Mapping[str | None, Finish] = {
    None: "stop",
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "STOP": "stop",
    "length": "length",
    "model_length": "length",
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
}
"""Any other word is `other`."""


def counts(usage: Any, known: Counted) -> Counted:
    """Prompt and completion, where one host counts reasoning beside the completion and one sound beside the prompt."""
    if not isinstance(usage, dict) or (usage.get("prompt_tokens"), usage.get("completion_tokens")) == (None, None):
        return known
    given, made = usage.get("prompt_tokens"), usage.get("completion_tokens")
    inside, outside = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    if given is not None and made is not None and usage.get("total_tokens"):
        beside = usage["total_tokens"] - given - made
        if beside > 0 and beside == outside.get("reasoning_tokens", usage.get("reasoning_tokens")):
            made += beside
        elif beside > 0 and beside == inside.get("audio_tokens"):
            given += beside
    cached = (
        inside.get("cached_tokens"),
        usage.get("prompt_cache_hit_tokens"),
        usage.get("cached_tokens"),
        usage.get("cache_read_input_tokens"),
    )
    return Counted(given, made, next((count for count in cached if count is not None), None))


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    chunks = []
    for _, data in frames(body):
        if data.strip() == b"[DONE]":
            break
        value = json.loads(data)
        if isinstance(value, dict):
            chunks.append(value)
    return chunks


def read(body: bytes, *, streaming: bool) -> Reading:
    """All choices, with the reasoning wherever the host puts it."""
    reading = Reading()
    spelled: dict[int, dict[Any, list[str]]] = {}
    raw: dict[int, str | None] = {}
    for chunk in chunks_of(body) if streaming else [json.loads(body)]:
        for place, choice in enumerate(chunk.get("choices") or ()):
            number = choice.get("index")
            number = place if number is None or (not streaming and number in raw) else number
            said = reading.choices.setdefault(number, Said())
            broken = "error" if choice.get("error") else None
            raw[number] = choice.get("finish_reason") or raw.get(number) or broken
            piece = choice.get("delta" if streaming else "message") or {}
            _piece(said, spelled.setdefault(number, {}), piece)
            weighed = choice.get("logprobs")
            if isinstance(weighed, dict):
                said.beside["logprobs"] += len(weighed.get("content") or ())
        groq = chunk.get("x_groq") or {}
        reading.counted = counts(chunk.get("usage") or groq.get("usage"), reading.counted)
    for number, said in reading.choices.items():
        said.calls = [(name, arguments(text)) for name, text in spelled[number].values()]
        said.finish = FINISH.get(raw[number], "other")
        if said.finish == "stop" and said.calls:
            said.finish = "tool_calls"
    return reading


def _piece(said: Said, spelled: dict[Any, list[str]], piece: dict[str, Any]) -> None:
    _content(said, piece.get("content"))
    details = [entry.get("text") or entry.get("summary") or "" for entry in piece.get("reasoning_details") or ()]
    said.reasoning += piece.get("reasoning_content") or piece.get("reasoning") or "".join(details)
    said.refusal = (said.refusal or "") + (piece.get("refusal") or "")
    said.beside["citations"] += len(piece.get("annotations") or ())
    for note in piece.get("annotations") or ():
        page = note.get("url_citation") or {}
        if page.get("url"):
            said.marks.append((page["url"], page.get("start_index"), page.get("end_index")))
    said.beside["media"] += len(piece.get("images") or ()) + bool((piece.get("audio") or {}).get("id"))
    for call in piece.get("tool_calls") or ():
        # Some hosts number all calls alike, or none of them: then a new id is a new call.
        number = (call.get("index"), call.get("id") or next((key[1] for key in reversed(spelled)), None))
        if number not in spelled and not call.get("id"):
            number = next((key for key in spelled if key[0] == call.get("index")), number)
        known = spelled.setdefault(number, ["", ""])
        function = call.get("function") or call.get("custom") or {}
        known[0] += function.get("name") or ""
        given = function.get("arguments") or function.get("input") or ""
        known[1] += given if isinstance(given, str) else json.dumps(given)
    old = piece.get("function_call") or {}
    if old.get("name") or old.get("arguments"):
        known = spelled.setdefault((None, "old"), ["", ""])
        known[0] += old.get("name") or ""
        known[1] += old.get("arguments") or ""


def _content(said: Said, content: Any) -> None:
    if isinstance(content, dict):
        # One host parses the JSON that the model wrote.
        content = json.dumps(content, separators=(",", ":"))
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content or ():
        if part.get("type") == "text":
            said.text += part["text"]
        elif part.get("type") == "thinking":
            inner = part["thinking"]
            said.reasoning += inner if isinstance(inner, str) else "".join(each.get("text") or "" for each in inner)
        else:
            said.beside["media" if part.get("type") == "image_url" else "blocks"] += 1


def ended(body: bytes, *, closed: bool) -> bool:
    """Whether nothing is missing: `[DONE]` was seen; where the connection was `closed` in good form, also a finish
    reason for every choice that was seen."""
    choices: dict[int, bool] = {}
    counted = False
    blocks = FRAME.split(body)
    for number, block in enumerate(blocks):
        complete = number < len(blocks) - 1
        for _, data in frames(block) if complete or closed else ():
            if data.strip() == b"[DONE]":
                return counted or any(choices.values())
            try:
                chunk = json.loads(data)
            except ValueError:
                continue
            for raw in chunk.get("choices") or ():
                choices[raw.get("index", 0)] = bool(raw.get("finish_reason")) or choices.get(raw.get("index", 0), False)
            counted = counted or bool(chunk.get("usage"))
    return closed and bool(choices) and all(choices.values())


def silent(body: bytes) -> bool:
    """Whether a stream ends in good form without a single word on why the model stopped, nor any count."""
    marked = any(data.strip() == b"[DONE]" for _, data in frames(body))
    return marked and any(chunk.get("choices") for chunk in chunks_of(body)) and not ended(body, closed=True)
