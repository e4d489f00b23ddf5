"""Text that passes from one dialect into another undecoded: nobody can tell, but by the number of pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.events import Event, Failure, StreamDecoder, StreamEncoder, TextDelta, ThinkingDelta
from relay.fold import Fold
from relay.ir import Response
from relay.kit import dumps
from relay.meter import Meter
from relay.outbox import Buffer, Writable
from relay.recast import Recast
from relay.valve import Valve
from relay_anthropic.encoder import MessagesEncoder
from relay_anthropic.stream import MessagesDecoder
from relay_openai.encoder import ChatEncoder
from relay_openai.stream import ChatDecoder
from tests.core.test_valve import Client, chunk
from tests.effort import times

Make = Callable[[str], bytes]


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), dumps({"type": kind, **fields}))


def part(delta: dict[str, Any], index: int = 0, **more: Any) -> bytes:
    return event("content_block_delta", index=index, delta=delta, **more)


def data(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: %b\n\n" % dumps({"id": "c1", "created": 1, "model": "m", "choices": [choice], **more})


def call(number: int, text: str) -> bytes:
    return data(
        {"tool_calls": [{"index": number, "id": f"call_{number}", "function": {"name": "f", "arguments": text}}]}
    )


MESSAGES: dict[str, Make] = {
    "text": lambda text: part({"type": "text_delta", "text": text}),
    "padded": lambda text: part({"type": "text_delta", "text": text})[:-3] + b" " * (len(text) % 5) + b"}\n\n",
    "thought": lambda text: part({"type": "thinking_delta", "thinking": text}, 1),
    "signed": lambda text: part({"type": "signature_delta", "signature": text}, 1),
    "arguments": lambda text: part({"type": "input_json_delta", "partial_json": text}, 2),
    "cited": lambda text: part({"type": "citations_delta", "citation": {"type": "page_location", "cited_text": text}}),
    "ping": lambda text: event("ping"),
    "odd": lambda text: b": " + text.encode("ascii", "replace").replace(b"\n", b"") + b"\n\n",
    "call": lambda text: event(
        "content_block_start", index=2, content_block={"type": "tool_use", "id": "t", "name": "f", "input": {}}
    ),
    "stop": lambda text: event("content_block_stop", index=0),
    "again": lambda text: event("content_block_start", index=0, content_block={"type": "text", "text": text}),
    "thinks": lambda text: event("content_block_start", index=1, content_block={"type": "thinking", "thinking": ""}),
    "two": lambda text: part({"type": "text_delta", "text": text}) * 2,
    "with more": lambda text: part({"type": "text_delta", "text": text, "more": text}),
}
CHAT: dict[str, Make] = {
    "text": lambda text: data({"content": text}),
    "hidden": lambda text: data({"content": text}, obfuscation="x" * (len(text) % 5)),
    "with its role": lambda text: data({"role": "assistant", "content": text}),
    "thought": lambda text: data({"reasoning_content": text}),
    "thought, too": lambda text: data({"reasoning": text, "reasoning_details": [{"type": "x", "text": text}]}),
    "detailed": lambda text: data({"reasoning": text, "reasoning_details": [{"type": "x", "id": "1"}]}),
    "call": lambda text: call(0, text),
    "other call": lambda text: call(1, text),
    "refused": lambda text: data({"refusal": text}),
    "counted": lambda text: data({"content": text}, usage={"prompt_tokens": 3, "completion_tokens": len(text)}),
    "ends": lambda text: data({"content": text}, "stop"),
    "nothing": lambda text: data({}),
    "ping": lambda text: b": ping\n\n",
    "two": lambda text: data({"content": text}) * 2,
    "listed": lambda text: data({"content": [{"type": "text", "text": text}]}),
}


@dataclass(frozen=True)
class Side:
    """A dialect: how it is read and written, what a stream in it begins and ends with, and what may come between."""

    decoder: Callable[[], StreamDecoder]
    encoder: Callable[[], StreamEncoder]
    begin: bytes
    end: bytes
    kinds: dict[str, Make]


SIDES = {
    "messages": Side(
        MessagesDecoder,
        lambda: MessagesEncoder(model="m", new_id="msg_1"),
        event("message_start", message={"id": "m1", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9}) + event("message_stop"),
        MESSAGES,
    ),
    "chat": Side(
        ChatDecoder,
        lambda: ChatEncoder(model="m", created=1, new_id="c1", usage=True),
        data({"role": "assistant", "content": ""}),
        data({}, "stop", usage={"prompt_tokens": 3, "completion_tokens": 9}) + b"data: [DONE]\n\n",
        CHAT,
    ),
}


@dataclass
class Stream:
    """One translated stream, as `relay.stream.Delivery` has it."""

    decoder: StreamDecoder
    encoder: StreamEncoder
    casts: bool
    sent: list[bytes] = field(default_factory=list)
    passed: int = 0

    def __post_init__(self) -> None:
        self.meter, self.fold, self.client = Meter(), Fold(), Client()
        self.recast = Recast.of(self.decoder, self.encoder, self.meter, self.fold) if self.casts else None
        self.valve = Valve(self.write, self.rest, self.broken)
        self.valve.open = True

    def write(self, to: Writable, piece: Buffer) -> None:
        self.passed += 1
        self.sent += chunked(bytes(piece))

    def broken(self, error: BaseException) -> None:
        raise error

    def rest(self, framed: bytes) -> None:
        self.take(b"".join(chunked(framed)))

    def take(self, piece: bytes) -> None:
        if self.recast is not None:
            self.recast.catch_up()
        events = self.decoder.feed(piece)
        self.told(events)
        if self.recast is not None:
            self.recast.follow(self.valve, self.client, piece, events)

    def told(self, events: list[Event]) -> None:
        self.meter.add(events)
        self.fold.add(events)
        self.sent.append(self.encoder.encode(events))

    def close(self) -> None:
        if self.recast is not None:
            self.recast.catch_up()
        self.told(self.decoder.close())


def chunked(framed: bytes) -> list[bytes]:
    """The contents of chunks."""
    found = []
    while framed:
        size, _, rest = framed.partition(b"\r\n")
        found.append(rest[: int(size, 16)])
        framed = rest[int(size, 16) + 2 :]
    return found


def heard(side: Side, sent: Iterable[bytes]) -> Response:
    """What a client makes of it."""
    decoder, fold = side.decoder(), Fold()
    events = decoder.feed(b"".join(sent))
    if not any(isinstance(one, Failure) for one in events):
        events += decoder.close()
    fold.add([one for one in events if not isinstance(one, Failure)])
    return fold.response()


TEXTS = st.text(st.sampled_from('ab "\\\n\t\x01ü€😀\x7f/{}') | st.characters(codec="utf-8"), max_size=8)


@pytest.mark.parametrize(("upstream", "client"), [("messages", "chat"), ("chat", "messages")])
@settings(max_examples=times(80), deadline=None)
@given(st.data())
def test_whoever_follows_a_stream_cannot_tell_what_passed_undecoded(upstream: str, client: str, data: Any) -> None:
    side, other = SIDES[upstream], SIDES[client]
    # More of one kind in a row, as streams have it.
    runs = st.tuples(st.sampled_from(sorted(side.kinds)), st.lists(TEXTS, min_size=1, max_size=5))
    events = [side.kinds[kind](text) for kind, texts in data.draw(st.lists(runs, max_size=6)) for text in texts]
    reads = [b""]
    for number, one in enumerate([side.begin, *events, side.end]):
        if number and data.draw(st.booleans()):
            reads.append(b"")
        reads[-1] += chunk(one)
    streams = [Stream(side.decoder(), other.encoder(), casts) for casts in (False, True)]
    for stream in streams:
        for read in reads:
            stream.valve(read)
        stream.close()
    plain, cast = streams
    assert plain.passed == 0
    assert cast.fold.response() == plain.fold.response()
    assert heard(other, cast.sent) == heard(other, plain.sent)
    assert (cast.meter.complete, cast.meter.usage) == (plain.meter.complete, plain.meter.usage)
    assert type(cast.meter.error) is type(plain.meter.error)
    assert cast.meter.seen == pytest.approx(plain.meter.seen, abs=len(events))


@pytest.mark.parametrize(("upstream", "client"), [("messages", "chat"), ("chat", "messages")])
@pytest.mark.parametrize("kind", ["text", "thought"])
def test_text_and_thoughts_pass_from_the_second_piece_on(upstream: str, client: str, kind: str) -> None:
    side, other = SIDES[upstream], SIDES[client]
    stream = Stream(side.decoder(), other.encoder(), True)
    stream.valve(chunk(side.begin))
    make = side.kinds[kind]
    for number in range(12):
        stream.valve(chunk(make(f'"{number}"\n')))
    assert stream.passed >= 9
    stream.valve(chunk(side.end))
    (choice,) = heard(other, stream.sent).choices
    assert [one.text for one in choice.parts if hasattr(one, "text")] == ["".join(f'"{n}"\n' for n in range(12))]


def test_a_pair_of_which_one_does_not_know_how_has_all_decoded() -> None:
    class Plain:
        def encode(self, events: list[Event], /) -> bytes:
            return b""

        def failure(self, error: object, /) -> bytes:
            return b""

    assert Recast.of(ChatDecoder(), Plain(), Meter(), None) is None
    assert Recast.of(object(), SIDES["chat"].encoder(), Meter(), None) is None
    assert Recast.of(ChatDecoder(), SIDES["chat"].encoder(), object(), None) is None
    assert Recast.of(ChatDecoder(), None, Meter(), None) is None


@pytest.mark.parametrize("wrong", [b"data: 1\n\n", b"no event", data({"content": "other"}, model="n")])
def test_what_is_not_as_it_was_said_to_be_does_not_pass(wrong: bytes) -> None:
    stream = Stream(ChatDecoder(), SIDES["messages"].encoder(), True)
    assert stream.recast is not None
    stream.take(SIDES["chat"].begin)
    for text in ("one", "and"):
        stream.take(data({"content": text}))
    assert stream.valve.through(chunk(data({"content": "two"})), 0) > 0
    for events in ([TextDelta(0, "a")], [ThinkingDelta(7, "a")], []):
        stream.recast.follow(stream.valve, stream.client, wrong, events)  # type: ignore[arg-type]
        assert stream.valve.through(chunk(data({"content": "two"})), 0) == 0


def test_an_encoder_that_fails_at_the_end_costs_no_count() -> None:
    stream = Stream(ChatDecoder(), SIDES["messages"].encoder(), True)
    recast = stream.recast
    assert recast is not None
    for text in ("one", "two", "three"):
        stream.take(data({"content": text}))
    before = stream.meter.seen
    assert stream.valve.through(chunk(data({"content": "four"})), 0) > 0

    def broken(events: list[Event]) -> bytes:
        raise RuntimeError("it was not to be asked")

    recast._tell = (stream.meter.add, broken)
    recast.catch_up(ended=True)
    assert stream.meter.seen == before + 1
