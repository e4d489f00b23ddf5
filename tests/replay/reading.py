"""What a recording says, read naively: plain dict work that shares nothing with the relay."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

FRAME = re.compile(rb"\r?\n\r?\n")


@dataclass
class Said:
    """One answer in the words of Chat Completions."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[tuple[str, Any]] = field(default_factory=list)
    """Names and parsed arguments; text where the arguments are not JSON."""
    finish: str | None = None


@dataclass
class Counted:
    """Tokens as the recording counts them; None: it does not say."""

    input: int | None = None
    output: int | None = None
    cached: int | None = None


@dataclass
class Reading:
    """Everything that must come out at the other end."""

    choices: dict[int, Said] = field(default_factory=dict)
    counted: Counted = field(default_factory=Counted)


def arguments(text: str) -> Any:
    """Tool arguments as a value; the text itself where they are not JSON."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def frames(body: bytes) -> list[tuple[str, bytes]]:
    """The events of a stream with their names, also the one without a blank line behind it."""
    found = []
    for block in FRAME.split(body):
        lines = block.decode().splitlines()
        data = [line[5:].removeprefix(" ") for line in lines if line.startswith("data:")]
        name = [line[6:].strip() for line in lines if line.startswith("event:")]
        if data:
            found.append((name[-1] if name else "", "\n".join(data).encode()))
    return found


# Chat Completions


def openai_counts(usage: Any, known: Counted) -> Counted:
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


def openai_stream(body: bytes) -> Reading:
    reading = Reading()
    spelled: dict[tuple[int, int], list[str]] = {}
    for _, data in frames(body):
        if data.strip() == b"[DONE]":
            break
        chunk = json.loads(data)
        for raw in chunk.get("choices") or ():
            index, delta = raw.get("index", 0), raw.get("delta") or {}
            said = reading.choices.setdefault(index, Said())
            said.finish = raw.get("finish_reason") or said.finish
            said.text += delta["content"] if isinstance(delta.get("content"), str) else ""
            said.reasoning += delta.get("reasoning_content") or ""
            said.refusal += delta.get("refusal") or ""
            for call in delta.get("tool_calls") or ():
                known = spelled.setdefault((index, call.get("index", 0)), ["", ""])
                known[0] += call["function"].get("name") or ""
                known[1] += call["function"].get("arguments") or ""
        groq = chunk.get("x_groq") or {}
        reading.counted = openai_counts(chunk.get("usage") or groq.get("usage"), reading.counted)
    for (index, _), (name, text) in sorted(spelled.items()):
        reading.choices[index].calls.append((name, arguments(text)))
    return reading


def openai_whole(body: bytes) -> Reading:
    return Reading(counted=openai_counts(json.loads(body).get("usage"), Counted()))


# Messages

MESSAGES_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "refusal": "content_filter",
    None: None,
}


def messages_stream(body: bytes) -> Reading:
    message: dict[str, Any] = {}
    spelled: dict[int, str] = {}
    for _, data in frames(body):
        event = json.loads(data)
        match event["type"]:
            case "message_start" if not message:
                message = event["message"]
                message["content"] = {}
            case "content_block_start":
                message["content"][event["index"]] = event["content_block"]
            case "content_block_delta":
                block = message["content"][event["index"]]
                for name in ("text", "thinking"):
                    block[name] = block.get(name, "") + event["delta"].get(name, "")
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
    return messages_reading(message)


def messages_reading(message: dict[str, Any]) -> Reading:
    said = Said(finish=MESSAGES_FINISH[message["stop_reason"]])
    for block in message["content"]:
        match block["type"]:
            case "text":
                said.text += block["text"]
            case "thinking":
                said.reasoning += block["thinking"]
            case "tool_use":
                said.calls.append((block["name"], block.get("input") or {}))
    usage = message["usage"]
    # Compaction is billed beside what the totals count.
    rounds = [usage, *(entry for entry in usage.get("iterations") or () if entry["type"] == "compaction")]
    parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    counted = Counted(
        sum(entry.get(name) or 0 for entry in rounds for name in parts),
        sum(entry["output_tokens"] for entry in rounds),
        usage.get("cache_read_input_tokens"),
    )
    return Reading({0: said}, counted)


def messages_whole(body: bytes) -> Reading:
    return messages_reading(json.loads(body))


# Gemini

GEMINI_FINISH = {
    "STOP": "stop",
    1: "stop",
    "MAX_TOKENS": "length",
    2: "length",
    "MODEL_ARMOR": "content_filter",
    "UNEXPECTED_TOOL_CALL": "error",
    None: None,
}


def gemini_stream(body: bytes) -> Reading:
    if body.lstrip().startswith((b"[", b"{")):
        found = json.loads(body)
        return gemini_reading(found if isinstance(found, list) else [found])
    return gemini_reading([json.loads(data) for _, data in frames(body)])


def gemini_reading(chunks: list[Any]) -> Reading:
    reading = Reading()
    usage: dict[str, Any] = {}
    for chunk in chunks:
        usage = chunk.get("usageMetadata", usage)
        for place, candidate in enumerate(chunk.get("candidates") or ()):
            said = reading.choices.setdefault(candidate.get("index", place), Said())
            said.finish = GEMINI_FINISH[candidate.get("finishReason")] or said.finish
            parts = (candidate.get("content") or {}).get("parts") or ()
            for part in parts:
                gemini_part(said, part)
            if said.finish == "content_filter" and not parts:
                said.refusal += candidate.get("finishMessage") or ""
    for said in reading.choices.values():
        if said.calls and said.finish == "stop":
            said.finish = "tool_calls"
    if usage.keys() & {"promptTokenCount", "candidatesTokenCount", "totalTokenCount"}:
        given = usage.get("promptTokenCount")
        if given is not None:
            given += usage.get("toolUsePromptTokenCount") or 0
        made = (usage.get("candidatesTokenCount") or 0) + (usage.get("thoughtsTokenCount") or 0)
        reading.counted = Counted(given, made, usage.get("cachedContentTokenCount"))
    return reading


def gemini_part(said: Said, part: dict[str, Any]) -> None:
    if isinstance(part.get("text"), str):
        if part.get("thought"):
            said.reasoning += part["text"]
        else:
            said.text += part["text"]
    call = part.get("functionCall") or {}
    if call.get("name"):
        said.calls.append((call["name"], dict(call.get("args") or {})))
    for piece in call.get("partialArgs") or ():
        _place(said.calls[-1][1], piece)


def _place(root: Any, piece: dict[str, Any]) -> None:
    """Put one value that was streamed by its JSON path where that path says."""
    keys: list[Any] = []
    for step in piece["jsonPath"].removeprefix("$.").split("."):
        name, _, rest = step.partition("[")
        keys.append(name)
        if rest:
            keys.append(int(rest.rstrip("]")))
    for key, following in pairwise(keys):
        fresh: Any = [] if isinstance(following, int) else {}
        if isinstance(root, list) and key == len(root):
            root.append(fresh)
        elif isinstance(root, dict):
            root.setdefault(key, fresh)
        root = root[key]
    if "stringValue" in piece:
        root[keys[-1]] = root.get(keys[-1], "") + piece["stringValue"]
    else:
        root[keys[-1]] = piece.get("numberValue", piece.get("boolValue"))


def gemini_whole(body: bytes) -> Reading:
    return gemini_reading([json.loads(body)])


READERS: dict[tuple[str, bool], Callable[[bytes], Reading]] = {
    ("openai-chat", True): openai_stream,
    ("openai-chat", False): openai_whole,
    ("anthropic-messages", True): messages_stream,
    ("anthropic-messages", False): messages_whole,
    ("gemini", True): gemini_stream,
    ("gemini", False): gemini_whole,
}


def read(exchange: dict[str, Any]) -> Reading:
    """What the recorded answer says."""
    return READERS[exchange["dialect"], exchange["streaming"]](exchange["body"])


def words_of(body: bytes) -> str:
    """The reason in an error answer, wherever its host puts it; the innermost one where a gateway wraps it."""
    value = json.loads(body)
    error = value.get("error", value)
    if isinstance(error, str):
        return error
    message: str = error.get("message") or error.get("detail")
    raw = (error.get("metadata") or {}).get("raw")
    if message == "Provider returned error" and raw:
        try:
            return words_of(raw.encode())
        except ValueError:
            return str(raw)
    return message


# Ends


def openai_ended(body: bytes, *, closed: bool) -> bool:
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


def messages_ended(body: bytes, *, closed: bool) -> bool:
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


def gemini_ended(body: bytes, *, closed: bool) -> bool:
    """Whether every candidate had its reason. There is no end marker, so only a connection `closed` well tells."""
    if not closed:
        return False
    text = body.strip()
    if text.startswith(b"["):
        found = _array(text)
    else:
        found = []
        for _, data in frames(body):
            try:
                found.append(json.loads(data))
            except ValueError:
                return False
    reasons: dict[int, bool] = {}
    for chunk in found or ():
        for place, candidate in enumerate(chunk.get("candidates") or ()):
            number = candidate.get("index", place)
            reasons[number] = bool(candidate.get("finishReason")) or reasons.get(number, False)
    return bool(reasons) and all(reasons.values())


def _array(text: bytes) -> list[Any] | None:
    """The values of an array that may lack its end, but not the end of a value; None if it does."""
    for end in (b"", b"]"):
        try:
            value = json.loads(text.rstrip().rstrip(b",") + end)
        except ValueError:
            continue
        assert isinstance(value, list)
        return value
    return None


ENDED: dict[str, Callable[..., bool]] = {
    "openai-chat": openai_ended,
    "anthropic-messages": messages_ended,
    "gemini": gemini_ended,
}
