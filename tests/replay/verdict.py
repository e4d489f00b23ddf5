"""Whether what came out of the relay is what the recording says, fault by fault."""

from __future__ import annotations

import json
from typing import Any

from relay.store import UsageRow
from tests.replay.reading import FRAME, Reading, frames, read, words_of
from tests.replay.recording import Exchange
from tests.replay.stage import NANO_PER_INPUT, NANO_PER_OUTPUT, PATHS, Played, envelope

SHOWN = {400: 400, 401: 502, 403: 502, 404: 404, 413: 413, 422: 422, 429: 429, 503: 503, 529: 503}
"""What a caller gets for each status of the upstream; 502 for all others. 401 and 403 are about the relay's key."""

FAILED = {"7c6ec620a74582ba": 400, "fd33f4461f7d6b61": 502, "fad2fc1338ad5f7e": 502}
"""Answers with status 200 that hold an error before anything else, and the status it names."""

ANNOUNCED_WHOLE = "application/json"
"""Streams that are announced as one object are read and written again: what they say must be there, not their bytes."""

OWN = {"7e59534461ab3a04": "max_tokens"}
"""Requests that the relay refuses by itself, and the parameter: a limit of no tokens. The upstream refused it too."""


def faults(played: Played, rows: list[UsageRow]) -> list[str]:
    """What is wrong with this exchange; empty if nothing is."""
    found = [f"logged: {line}" for line in played.logged]
    if len(rows) != 1:
        return [*found, f"{len(rows)} usage rows"]
    exchange = played.exchange
    if exchange["id"] in OWN:
        return [*found, *own_refusal(played, rows[0])]
    if len(played.seen) != 1:
        return [*found, f"the upstream was asked {len(played.seen)} times"]
    request(played, found)
    if exchange["status"] >= 400 or exchange["id"] in FAILED:
        refusal(played, rows[0], found)
    elif played.error is not None:
        found.append(f"the SDK raised {type(played.error).__name__}: {played.error}")
    else:
        reading = read(exchange)
        announced = (exchange["response_headers"] or {}).get("content-type")
        if exchange["dialect"] == "openai-chat" and not (played.streamed and announced == ANNOUNCED_WHOLE):
            passed(played, found)
        else:
            translated(played, reading, found)
        row(rows[0], played, reading, found)
    return found


def expect(found: list[str], what: str, got: Any, wanted: Any) -> None:
    if got != wanted:
        found.append(f"{what}: {clip(got)} instead of {clip(wanted)}")


def clip(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."


def request(played: Played, found: list[str]) -> None:
    """What the upstream got."""
    seen = played.seen[0]
    expect(found, "path", seen.path, PATHS[played.upstream, played.streamed])
    if played.exchange["dialect"] != "openai-chat":
        return
    wanted = played.tape.sent.replace(b"replay-" + played.upstream.encode(), b"upstream-" + played.upstream.encode())
    if played.streamed and not asks(played):
        value = json.loads(wanted)
        value["stream_options"] = {**(value.get("stream_options") or {}), "include_usage": True}
        expect(found, "request", seen.json, value)
    elif seen.body != wanted:
        found.append("the request's bytes were changed")


def asks(played: Played) -> bool:
    """Whether the client itself asked for token counts."""
    options = json.loads(played.tape.sent).get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def passed(played: Played, found: list[str]) -> None:
    """Same dialect: the same bytes, but for the count that the client had not asked for."""
    wanted: bytes = played.exchange["body"]
    if played.streamed and not asks(played):
        wanted = without_count(wanted)
    if not played.tape.whole:
        found.append("the body did not end")
    if played.tape.body != wanted:
        place = next(
            (i for i, (a, b) in enumerate(zip(played.tape.body, wanted, strict=False)) if a != b),
            min(len(played.tape.body), len(wanted)),
        )
        found.append(
            f"bytes differ at {place} of {len(wanted)} ({len(played.tape.body)} came):"
            f" {clip(played.tape.body[place : place + 60])} instead of {clip(wanted[place : place + 60])}"
        )


def without_count(body: bytes) -> bytes:
    """`body` without the chunk that has no choices and counts tokens."""
    kept = []
    start = 0
    for match in FRAME.finditer(body):
        block = body[start : match.end()]
        start = match.end()
        if not any(is_count(data) for _, data in frames(block)):
            kept.append(block)
    return b"".join([*kept, body[start:]])


def is_count(data: bytes) -> bool:
    if data.strip() == b"[DONE]":
        return False
    value = json.loads(data)
    return isinstance(value, dict) and value.get("choices") == [] and bool(value.get("usage"))


def translated(played: Played, reading: Reading, found: list[str]) -> None:
    """Another dialect: everything that it said."""
    expect(found, "status", played.tape.status, 200)
    if played.streamed and not played.tape.body.endswith(b"data: [DONE]\n\n"):
        found.append("the stream does not end with [DONE]")
    expect(found, "choices", sorted(played.choices), sorted(reading.choices))
    for index, wanted in reading.choices.items():
        said = played.choices.get(index)
        if said is None:
            continue
        for name in ("text", "reasoning", "calls", "finish", "refusal"):
            expect(found, name, getattr(said, name), getattr(wanted, name))
    counted, usage = reading.counted, played.usage
    if (counted.input is None and counted.output is None) or (played.streamed and not asks(played)):
        expect(found, "usage shown", usage, None)
    elif usage is None:
        found.append("no usage was shown")
    else:
        shown = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
        expect(found, "usage shown", shown, (given := counted.input or 0, made := counted.output or 0, given + made))
        details = usage.prompt_tokens_details
        expect(found, "cached tokens shown", (details.cached_tokens if details else None) or 0, counted.cached or 0)


def row(row: UsageRow, played: Played, reading: Reading, found: list[str]) -> None:
    """The usage row of a good answer."""
    expect(found, "outcome", (row.outcome, row.status, row.attempts), ("ok", 200, 1))
    expect(found, "row's target", row.target_model, f"upstream-{played.upstream}")
    expect(found, "row's stream", row.stream, played.streamed)
    counted, usage = reading.counted, row.usage
    if counted.input is not None and counted.output is not None:
        expect(found, "usage source", row.usage_source, "provider")
        got = None if usage is None else (usage.input, usage.output, usage.cache_read or 0)
        expect(found, "usage", got, (counted.input, counted.output, counted.cached or 0))
        expect(found, "cost", row.cost, counted.input * NANO_PER_INPUT + counted.output * NANO_PER_OUTPUT)
    else:
        wanted = "estimate" if counted.input is None and counted.output is None else "partial"
        expect(found, "usage source", row.usage_source, wanted)


def refusal(played: Played, row: UsageRow, found: list[str]) -> None:
    """An error of the upstream's."""
    exchange = played.exchange
    status: int = FAILED.get(exchange["id"]) or exchange["status"]
    wanted: int = SHOWN.get(status, 502)
    text = said_in_error(exchange).strip()
    if "API key not valid" in text:
        wanted, status = 502, 401
    expect(found, "status", played.tape.status, wanted)
    if played.error is None:
        found.append("the SDK raised nothing")
    error = envelope(played.tape)
    if error is None:
        found.append(f"no error envelope: {clip(played.tape.body)}")
        return
    if status in (401, 403):
        expect(found, "error code", error["code"], "upstream_credentials")
    elif text not in error["message"]:
        found.append(f"message: {clip(error['message'])} instead of {clip(text)}")
    if wanted == 429:
        expect(found, "error type", error["type"], "rate_limit_exceeded")
    else:
        expect(found, "error type", error["type"], "invalid_request_error" if wanted < 500 else "api_error")
    expect(found, "outcome", (row.outcome, row.status), ("upstream_error", wanted))
    expect(found, "usage", (row.usage_source, row.usage, row.cost), ("none", None, 0))
    expect(found, "error code in the row", row.error_code, error["code"])


def said_in_error(exchange: Exchange) -> str:
    body: bytes = exchange["body"]
    if exchange["streaming"]:
        body = frames(body)[-1][1]
    return words_of(body)


def own_refusal(played: Played, row: UsageRow) -> list[str]:
    found: list[str] = []
    error = envelope(played.tape)
    expect(found, "status", (played.tape.status, row.status), (400, 400))
    expect(found, "outcome", row.outcome, "rejected")
    expect(found, "param", error and error["param"], OWN[played.exchange["id"]])
    expect(found, "requests upstream", len(played.seen), 0)
    return found
