"""Recorded streams that are cut short: nobody may take what there is for the whole answer."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from relay.errors import UpstreamProtocol
from relay.events import Event, Failure, MessageStop, StreamDecoder
from relay.meter import Meter
from relay_anthropic.stream import MessagesDecoder
from relay_bedrock.stream import ConverseDecoder
from relay_gemini.stream import GeminiDecoder
from relay_openai.responses.stream import ResponsesDecoder
from relay_openai.skim import chat_meter
from relay_openai.stream import ChatDecoder
from tests.effort import times
from tests.flow.fake import Step, chunk
from tests.hub import counts
from tests.replay.clients import CLIENTS
from tests.replay.reading import ENDED, failure, read, silent
from tests.replay.recording import Exchange, Recordings
from tests.replay.said import FRAME
from tests.replay.stage import Played, Stage, head_of

pytestmark = pytest.mark.shared

DECODERS: dict[str, Callable[[], StreamDecoder]] = {
    "openai-chat": ChatDecoder,
    "openai-responses": ResponsesDecoder,
    "anthropic-messages": MessagesDecoder,
    "gemini": GeminiDecoder,
    "bedrock-converse": ConverseDecoder,
}
MOST = times(80)
"""Streams of one dialect: of more of them some are taken, evenly."""
EVERY_BYTE = 500
"""Streams up to this length are cut at every byte; of longer ones the last part is, and all else in even steps."""
LAST_PART = 100
STEPS = times(10)


def streams(recordings: Recordings) -> list[Exchange]:
    """All good streams that can tell their end, of all dialects."""
    return [
        exchange
        for _, exchanges in sorted(recordings.groups().items())
        for exchange in exchanges
        if exchange["streaming"] and failure(exchange) is None and not silent(exchange)
    ]


def places(length: int) -> Iterator[int]:
    if length <= EVERY_BYTE:
        yield from range(length + 1)
        return
    yield from range(0, length - LAST_PART, max(1, (length - LAST_PART) // STEPS))
    yield from range(length - LAST_PART, length + 1)


@pytest.mark.promise("U-01")
@pytest.mark.parametrize("dialect", DECODERS)
def test_a_decoder_tells_of_every_cut(recordings: Recordings, dialect: str) -> None:
    cuts: Counter[str] = Counter()
    chosen = [exchange for exchange in streams(recordings) if exchange["dialect"] == dialect]
    some = chosen[:: -(-len(chosen) // MOST)]
    for exchange in some:
        cuts += cut_everywhere(exchange)
    assert cuts["told"] > 30 * len(some)
    assert cuts["whole"] > 20


def cut_everywhere(exchange: Exchange) -> Counter[str]:
    """Close a decoder at many places of a stream: how often that was a cut, and how often nothing was missing."""
    body: bytes = exchange["body"]
    decoder = DECODERS[exchange["dialect"]]()
    expected = decoder.feed(body) + decoder.close()
    assert isinstance(expected[-1], MessageStop), exchange["id"]
    ended = ENDED[exchange["dialect"]]
    decoder = DECODERS[exchange["dialect"]]()
    events: list[Event] = []
    before = 0
    cuts: Counter[str] = Counter()
    for place in places(len(body)):
        where = (exchange["id"], place)
        new = decoder.feed(body[before:place])
        assert new == expected[len(events) : len(events) + len(new)], where
        events += new
        before = place
        closed = pickle.loads(pickle.dumps(decoder)).close()
        if closed and isinstance(closed[-1], Failure):
            assert isinstance(closed[-1].error, UpstreamProtocol), where
            closed.pop()
            cuts["told"] += 1
        else:
            assert isinstance([*events, *closed][-1], MessageStop), where
            assert ended(body[:place], closed=not events or not isinstance(events[-1], MessageStop)), where
            cuts["whole"] += 1
        if not any(isinstance(event, MessageStop) for event in closed):
            # A stream that lacks only what comes after its reasons is whole, and shorter than it was.
            assert closed == expected[len(events) : len(events) + len(closed)], where
    return cuts


METERED = 12


def test_a_meter_and_a_decoder_tell_the_same_of_every_cut(recordings: Recordings) -> None:
    """Streams that pass through are counted by a meter that reads little of them: it must come to the same end."""
    compared = 0
    for exchange in streams(recordings):
        if exchange["dialect"] != "openai-chat":
            continue
        body: bytes = exchange["body"]
        meter = chat_meter(ChatDecoder())
        before = 0
        edges = [match.end() for match in FRAME.finditer(body)][-4:]
        for place in sorted({len(body) * step // METERED for step in range(METERED + 1)} | {*edges}):
            if not meter.complete:
                meter.feed(body[before:place])
            before = place
            cut_off = copy.deepcopy(meter)
            if not cut_off.complete:
                cut_off.close()
            decoder, wanted = ChatDecoder(), Meter()
            wanted.add(decoder.feed(body[:place]))
            wanted.add(decoder.close())
            where = (exchange["id"], place)
            assert (cut_off.complete, counts(cut_off.usage)) == (wanted.complete, counts(wanted.usage)), where
            assert type(cut_off.error) is type(wanted.error), where
            compared += 1
    assert compared > 5_000


# Through the whole relay

SAMPLE = 28
OFFSETS = times(5)
PLAYED = min(times(2), len(CLIENTS))
"""Clients that each stream is played to, in turn."""


def sample(recordings: Recordings) -> list[Exchange]:
    """Short streams that together stand for every file, dialect and tag; and more of them up to `SAMPLE`."""
    seen: set[tuple[str, str]] = set()
    chosen: list[Exchange] = []
    rest: list[Exchange] = []
    for exchange in sorted(streams(recordings), key=lambda item: (len(item["body"]), item["id"])):
        dialect = exchange["dialect"]
        marks = {(dialect, mark) for mark in (exchange["family"], *exchange["tags"])}
        (rest if marks <= seen else chosen).append(exchange)
        seen |= marks
    return chosen + rest[: max(0, SAMPLE - len(chosen))]


def offsets(body: bytes) -> list[int]:
    """Some places: at the ends of the last events, inside of them, and in even steps before."""
    edges = [match.end() for match in FRAME.finditer(body)][-4:]
    near = {len(body) - 1, *edges, *(edge - 7 for edge in edges)} - {len(body)}
    usable = sorted(place for place in near if place > 0)[-4:]
    steps = max(1, OFFSETS - len(usable))
    return sorted({*usable, *(max(1, len(body) * step // (steps + 1)) for step in range(1, steps + 1))})


FRAMINGS = ("chunked", "length", "close")
HEADS = {"chunked": "Transfer-Encoding: chunked", "close": "Connection: close"}


def cut(exchange: Exchange, place: int, framing: str) -> list[Step]:
    """The beginning of a recorded stream, and then the connection's end."""
    body: bytes = exchange["body"][:place]
    head = head_of(exchange, HEADS.get(framing, f"Content-Length: {len(exchange['body'])}"))
    return [head, chunk(body) if framing == "chunked" else body, "fin"]


UNREADABLE = frozenset({"f7e46dd85ac1ecc7"})
"""Streams at whose end, behind the answer, their host has an event that the SDK cannot read."""


@pytest.mark.promise("U-01")
@pytest.mark.timeout(60)
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("dialect", CLIENTS)
async def test_a_client_is_told_of_every_cut(stage: Stage, recordings: Recordings, dialect: str) -> None:
    counts: Counter[str] = Counter()
    chosen = sample(recordings)
    first, clients = list(CLIENTS).index(dialect), len(CLIENTS)
    for number, exchange in enumerate(chosen):
        if exchange["id"] in UNREADABLE or (number + first) % clients >= PLAYED:
            continue
        shown: list[tuple[tuple[str, int, str], bool, Played]] = []
        for step, place in enumerate(offsets(exchange["body"])):
            framing = FRAMINGS[(number + step) % 3]
            whole = ENDED[exchange["dialect"]](exchange["body"][:place], closed=framing == "close")
            played = await stage.play(dialect, exchange, cut(exchange, place, framing))
            shown.append(((exchange["id"], place, framing), whole, played))
        rows = await stage.rows(len(shown))
        for where, whole, played in shown:
            assert played.logged == [], where
            (row,) = rows[played.tape.headers["x-request-id"]]
            if whole:
                assert played.error is None, where
                assert row.outcome == "ok", where
                # One dialect tells a model's own error as a failed answer, at which its clients stop reading.
                assert played.tape.whole == (played.heard.failed is None), where
                assert played.heard.failed is None or read(exchange).choices[0].finish == "error", where
            else:
                told(played, where)
                assert row.outcome == "upstream_cut", where
            counts["whole" if whole else "told"] += 1
    assert len(chosen) >= SAMPLE
    assert {exchange["family"] for exchange in chosen} == {exchange["family"] for exchange in streams(recordings)}
    assert counts["told"] >= SAMPLE * PLAYED
    assert counts["whole"] >= 5 * PLAYED


def told(played: Played, where: tuple[str, int, str]) -> None:
    """The client knows that it was cut: an error answer, or an error event and a body without its end."""
    assert played.error is not None or played.heard.failed is not None, where
    body, client = played.tape.body, played.client
    if played.tape.status != 200:
        assert (played.tape.status, client.envelope(body) is not None) == (502, True), where
        return
    assert not played.tape.whole, where
    start = client.broken_off(body)
    assert start is not None, where
    if played.native and not played.exchange["body"].startswith(b"["):
        # A list of JSON that was asked for as events comes as events.
        assert played.exchange["body"].startswith(start.rstrip(b"\r\n")), where
        return
    reading = read(played.exchange)
    for index, said in played.heard.choices.items():
        assert reading.choices[index].text.startswith(said.text), where
        assert reading.choices[index].reasoning.startswith(said.reasoning), where
