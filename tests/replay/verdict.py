"""Whether what came out of the relay is what the recording says, fault by fault."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relay.lost import declared_answer_losses
from relay.manager import Plugins
from relay.store import UsageRow
from tests.replay.reading import ENDED, Told, failure, read, silent, waits
from tests.replay.said import FRAME, Reading, Said, frames
from tests.replay.stage import NANO_PER_INPUT, NANO_PER_OUTPUT, PATHS, Played

SHOWN = {400: 400, 401: 502, 403: 502, 404: 404, 413: 413, 422: 422, 429: 429, 503: 503, 529: 503}
"""What a caller gets for each status of the upstream. 401, 402 and 403 are about the relay's own account there."""

DIALECTS = Plugins.load().dialects

ANNOUNCED_WHOLE = "application/json"
"""Streams that are announced as one object are read and written again: what they say must be there, not their bytes."""


def shown_status(status: int | None) -> int:
    """What a caller gets for an upstream's status."""
    if status is None:
        return 502
    usual = 400 if 400 <= status < 500 and status not in (402, 405, 408, 409) else 502
    return SHOWN.get(status, usual)


@dataclass
class Verdict:
    """What became of one exchange."""

    faults: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    """What is declared to get lost, and did."""


def judge(played: Played, rows: list[UsageRow]) -> Verdict:
    """What is wrong with this exchange, and what it lost as it was to."""
    verdict = Verdict()
    verdict.faults = faults(played, rows, verdict.losses)
    return verdict


def faults(played: Played, rows: list[UsageRow], losses: list[str]) -> list[str]:
    """What is wrong with this exchange; empty if nothing is. What it lost as declared is appended to `losses`."""
    found = [f"logged: {line}" for line in played.logged]
    if len(rows) != 1:
        return [*found, f"{len(rows)} usage rows"]
    row, exchange = rows[0], played.exchange
    told = failure(exchange)
    if told is not None and not played.seen and row.outcome == "rejected":
        return [*found, *own_refusal(played, row)]
    if len(played.seen) != 1:
        return [*found, f"the upstream was asked {len(played.seen)} times"]
    request(played, found)
    if told is not None:
        refusal(played, told, row, found)
    elif not played.native and waits(exchange):
        expect(found, "status", (played.tape.status, row.status, row.outcome), (502, 502, "upstream_error"))
    elif exchange["streaming"] and not whole(exchange) and not silent(exchange):
        cut(played, row, found)
    else:
        answer(played, row, found, losses)
    return found


def whole(exchange: dict[str, Any]) -> bool:
    """Whether a recorded stream has its end."""
    body: bytes = exchange["body"]
    return ENDED[exchange["dialect"]](body, closed=True) or body.lstrip().startswith(b"{")


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
    if not played.native:
        return
    client = played.client
    wanted = client.sent(played.tape, f"replay-{played.upstream}", f"upstream-{played.upstream}")
    if client.counts(played.request):
        if seen.body != wanted:
            found.append("the request's bytes were changed")
        return
    value = json.loads(wanted)
    value["stream_options"] = {**(value.get("stream_options") or {}), "include_usage": True}
    expect(found, "request", seen.json, value)


# Good answers.


def answer(played: Played, row: UsageRow, found: list[str], losses: list[str]) -> None:
    """An answer that is complete."""
    exchange = played.exchange
    announced = (exchange["response_headers"] or {}).get("content-type") or ""
    if played.native and not (played.streamed and announced.lower().startswith(ANNOUNCED_WHOLE)):
        passed(played, found)
    elif played.error is not None:
        beyond_it = any(said.beside["unreadable"] for said in read(exchange).choices.values())
        if beyond_it and isinstance(played.error, played.client.unreadable):
            return
        found.append(f"the SDK raised {type(played.error).__name__}: {played.error}")
        return
    else:
        reading = read(exchange)
        translated(played, reading, found)
        lost(played, reading, found, losses)
    if not waits(exchange):
        billed(row, played, read(exchange), found)


def passed(played: Played, found: list[str]) -> None:
    """Same dialect: the same bytes, but for the count that the client had not asked for.

    What the SDK makes of a host's own bytes is between the two of them.
    """
    wanted: bytes = played.exchange["body"]
    if played.streamed and not played.client.counts(played.request):
        wanted = without_count(wanted)
    body = played.tape.body
    if played.error is not None:
        # Not all of it was read.
        same = wanted.startswith(body)
    elif "concatenated" in played.exchange["tags"]:
        # Several streams behind each other: the first is the answer.
        same = wanted.startswith(body) and bool(body)
    else:
        same = wanted == body
        if not played.tape.whole:
            found.append("the body did not end")
    if not same:
        place = next((i for i, (a, b) in enumerate(zip(body, wanted, strict=False)) if a != b), -1)
        place = min(len(body), len(wanted)) if place < 0 else place
        found.append(
            f"bytes differ at {place} of {len(wanted)} ({len(body)} came):"
            f" {clip(body[place : place + 60])} instead of {clip(wanted[place : place + 60])}"
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
    try:
        value = json.loads(data)
    except ValueError:
        # The end marker, or what else some hosts send.
        return False
    return isinstance(value, dict) and value.get("choices") == [] and bool(value.get("usage"))


def translated(played: Played, reading: Reading, found: list[str]) -> None:
    """Another dialect: everything that it said."""
    expect(found, "status", played.tape.status, 200)
    heard = played.heard
    if not played.tape.whole and heard.failed is None:
        found.append("the body did not end")
    found += heard.contradictions
    wanted = played.client.wanted(reading, played.request, streamed=played.streamed)
    expect(found, "choices", sorted(heard.choices), sorted(wanted.choices))
    for index, right in wanted.choices.items():
        said = heard.choices.get(index)
        if said is None:
            continue
        names = ["text", "reasoning", "calls", "finish", "refusal"]
        if reading.choices and right.refusal is None:
            names = ["reasoning", "calls", "finish"]
        for name in names:
            expect(found, name, getattr(said, name), getattr(right, name))
    counted = wanted.counted
    if counted is None:
        expect(found, "usage shown", heard.counted, None)
    elif heard.counted is None:
        found.append("no usage was shown")
    else:
        got = (heard.counted.input, heard.counted.output, heard.counted.cached or 0)
        expect(found, "usage shown", got, (counted.input or 0, counted.output or 0, counted.cached or 0))


LOST: Mapping[str, frozenset[str]] = {
    "citations": frozenset(("citations", "vendor fields")),
    "server_tools": frozenset(("server tools", "blocks")),
    "media": frozenset(("media", "blocks")),
    "logprobs": frozenset(("logprobs",)),
    "blocks": frozenset(("blocks",)),
}
"""What may be beside the words of an answer, and under which names its loss may be told."""


def lost(played: Played, reading: Reading, found: list[str], losses: list[str]) -> None:
    """What did not reach the client: it must be told in the header, and for streams at least be declared."""
    told = set(played.tape.headers.get("x-relay-dropped", "").split(", "))
    if played.streamed:
        # The head is out before most of the answer is known.
        told |= {kind.field for kind in declared_answer_losses(DIALECTS[played.client.dialect].capacity)}

    def tell(what: str, names: frozenset[str]) -> None:
        if told & names:
            losses.append(what)
        else:
            found.append(f"{what} lost, and nobody is told")

    shown = played.heard.choices
    if len(reading.choices) > 1 and not played.client.several:
        tell("choices", frozenset(("choices",)))
    for number, said in reading.choices.items():
        heard = shown.get(number)
        if heard is None:
            continue
        for name, names in LOST.items():
            if said.beside[name] and not heard.beside[name]:
                tell(name, names)
        found += miscited(said, heard, exact=played.client.exact)
        if said.finish in ("error", "other") and heard.finish == played.client.finish["stop"]:
            tell("stop reason", frozenset(("stop reason",)))


def miscited(said: Said, heard: Said, *, exact: bool) -> list[str]:
    """Pages that the recording cites, and the client does not hear of, or not for the same words."""
    faults = []
    shown = heard.cited()
    for url, words in said.cited():
        there = [other for page, other in shown if page == url]
        if not there:
            faults.append(f"a page that is cited is not shown: {clip(url)}")
        elif not any(words == other if exact and words else words in other for other in there):
            faults.append(f"cited for {clip(there)} instead of {clip(words)}")
    return faults


def billed(row: UsageRow, played: Played, reading: Reading, found: list[str]) -> None:
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


# Bad ones.


def refusal(played: Played, told: Told, row: UsageRow, found: list[str]) -> None:
    """An error of the upstream's, as the answer or inside of it."""
    words, status = told.words.strip(), told.status
    if "API key not valid" in words:
        status = 401
    if played.error is None and played.heard.failed is None:
        found.append("the SDK raised nothing")
    if played.tape.status == 200:
        inside(played, words, found)
        expect(found, "outcome", row.outcome, "upstream_error")
        return
    wanted = shown_status(status)
    expect(found, "status", played.tape.status, wanted)
    error = played.client.envelope(played.tape.body)
    if error is None:
        found.append(f"no error envelope: {clip(played.tape.body)}")
        return
    if status in (401, 402, 403):
        if words and words in error.message:
            found.append(f"the client is told of the relay's own account: {clip(error.message)}")
    elif words not in error.message:
        found.append(f"message: {clip(error.message)} instead of {clip(words)}")
    expect(found, "error type", error.type, played.client.error_type(wanted))
    if error.request_id is not None:
        expect(found, "request id", error.request_id, played.tape.headers["x-request-id"])
    expect(found, "outcome", (row.outcome, row.status), ("upstream_error", wanted))
    expect(found, "usage", (row.usage_source, row.usage, row.cost), ("none", None, 0))
    # One dialect writes its codes in capitals.
    expect(found, "error code in the row", str(row.error_code).lower(), str(error.code).lower())


def inside(played: Played, words: str, found: list[str]) -> None:
    """An error behind a beginning that the client has already."""
    said = played.heard.failed or str(played.error)
    if not played.streamed:
        found.append("a whole answer holds an error and is told as a good one")
    if words not in said:
        found.append(f"message: {clip(said)} instead of {clip(words)}")


def cut(played: Played, row: UsageRow, found: list[str]) -> None:
    """A stream that was recorded without its end."""
    if played.error is None and played.heard.failed is None:
        found.append("a stream that breaks off was told as a whole one")
    expect(found, "outcome", row.outcome, "upstream_cut")


def own_refusal(played: Played, row: UsageRow) -> list[str]:
    """A request that the relay refuses by itself. The upstream refused it, too."""
    found: list[str] = []
    recorded: int = played.exchange["status"]
    expect(found, "recorded status", 400 <= recorded < 500, True)
    expect(found, "status", (played.tape.status, row.status), (400, 400))
    if played.client.envelope(played.tape.body) is None:
        found.append(f"no error envelope: {clip(played.tape.body)}")
    if played.error is None:
        found.append("the SDK raised nothing")
    return found
