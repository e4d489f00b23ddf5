"""Recorded answers of the Gemini API, read naively."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tests.replay.said import Counted, Finish, Reading, Said, frames, is_base64

FINISH: Mapping[str | int | None, Finish] = {
    "STOP": "stop",
    1: "stop",
    "MAX_TOKENS": "length",
    2: "length",
    **dict.fromkeys(
        (
            *("SAFETY", 3, "RECITATION", 4, "BLOCKLIST", 7, "PROHIBITED_CONTENT", 8, "SPII", 9, "IMAGE_SAFETY", 11),
            *("MODEL_ARMOR", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION"),
        ),
        "content_filter",
    ),
    **dict.fromkeys(
        (
            *("MALFORMED_FUNCTION_CALL", 10, "UNEXPECTED_TOOL_CALL", 12, "TOO_MANY_TOOL_CALLS", 13),
            *("MALFORMED_RESPONSE", "MISSING_THOUGHT_SIGNATURE"),
        ),
        "error",
    ),
}
"""Any other word or number is `other`."""


def read(body: bytes, *, streaming: bool) -> Reading:
    if not streaming or body.lstrip().startswith((b"[", b"{")):
        found = json.loads(body)
        return of_chunks(found if isinstance(found, list) else [found])
    return of_chunks([json.loads(data) for _, data in frames(body)])


def of_chunks(chunks: list[Any]) -> Reading:
    reading = Reading()
    usage: dict[str, Any] = {}
    blocked: dict[str, Any] = {}
    for chunk in chunks:
        usage = chunk.get("usageMetadata", usage)
        feedback = chunk.get("promptFeedback") or {}
        blocked = feedback if feedback.get("blockReason") else blocked
        for place, candidate in enumerate(chunk.get("candidates") or ()):
            said = reading.choices.setdefault(candidate.get("index", place), Said())
            reason = candidate.get("finishReason")
            said.finish = (FINISH.get(reason, "other") if reason else None) or said.finish
            # Words as numbers, which only those who ask for them can read.
            said.beside["unreadable"] += type(reason) is int
            parts = (candidate.get("content") or {}).get("parts") or ()
            for part in parts:
                _part(said, part)
            said.beside["logprobs"] += len((candidate.get("logprobsResult") or {}).get("chosenCandidates") or ())
            said.beside["citations"] += len((candidate.get("citationMetadata") or {}).get("citationSources") or ())
            grounded = candidate.get("groundingMetadata") or {}
            said.beside["citations"] += len(grounded.get("groundingChunks") or ())
            for support in grounded.get("groundingSupports") or ():
                for number in support.get("groundingChunkIndices") or ():
                    page = grounded["groundingChunks"][number].get("web") or {}
                    if page.get("uri"):
                        said.pages.append((page["uri"], support["segment"].get("text") or ""))
            if said.finish == "content_filter" and not parts:
                said.refusal = (said.refusal or "") + (candidate.get("finishMessage") or "")
    for said in reading.choices.values():
        if said.calls and said.finish == "stop":
            said.finish = "tool_calls"
    if blocked and not reading.choices:
        reading.choices[0] = Said(refusal=blocked.get("blockReasonMessage"), finish="content_filter")
    if usage.keys() & {"promptTokenCount", "candidatesTokenCount", "totalTokenCount"}:
        given = usage.get("promptTokenCount")
        if given is not None:
            given += usage.get("toolUsePromptTokenCount") or 0
        made = (usage.get("candidatesTokenCount") or 0) + (usage.get("thoughtsTokenCount") or 0)
        reading.counted = Counted(given, made, usage.get("cachedContentTokenCount"))
    return reading


def _part(said: Said, part: dict[str, Any]) -> None:
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
    if "inlineData" in part:
        said.beside["media" if is_base64(part["inlineData"].get("data") or "") else "unreadable"] += 1
    if part.keys() & {"executableCode", "codeExecutionResult", "toolCall", "toolResponse"}:
        said.beside["server_tools"] += 1


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


def ended(body: bytes, *, closed: bool) -> bool:
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
    blocked = False
    for chunk in found or ():
        blocked = blocked or bool((chunk.get("promptFeedback") or {}).get("blockReason"))
        for place, candidate in enumerate(chunk.get("candidates") or ()):
            number = candidate.get("index", place)
            reasons[number] = bool(candidate.get("finishReason")) or reasons.get(number, False)
    return all(reasons.values()) if reasons else blocked


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
