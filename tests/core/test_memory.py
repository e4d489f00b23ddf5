"""What the relay remembers of a model's reasoning, for whom, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.ir import Choice, Message, Part, Request, Response, Text, Thinking, ToolCall, ToolResult
from relay.memory import Memory

SIGNED = Thinking("Let me see.", signature="c2lnbmVk", dialect="anthropic-messages")
HIDDEN = Thinking("", signature="cmVkYWN0ZWQ=", redacted=True, dialect="anthropic-messages")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> Memory:
    return Memory(100_000, 3600.0, clock=clock)


def call(name: str = "c1") -> ToolCall:
    return ToolCall(name, "weather", '{"city":"Oslo"}')


def answer(*parts: Part) -> Response:
    return Response(id="r", model="m", choices=[Choice(parts=list(parts))])


def turn(*parts: Part) -> Request:
    """A conversation that goes on from a tool's result."""
    return Request(
        "m",
        [
            Message("user", [Text("Weather?")]),
            Message("assistant", list(parts)),
            Message("user", [ToolResult("c1", [Text("7 degrees")])]),
        ],
    )


def test_dropped_reasoning_comes_back_in_front_of_its_turn(memory: Memory) -> None:
    memory.keep(1, "up", answer(SIGNED, HIDDEN, Text("One moment."), call()))
    request = turn(Text("One moment."), call())
    assert memory.restored(1, "up", request).messages[1].parts == [SIGNED, HIDDEN, Text("One moment."), call()]
    assert request.messages[1].parts == [Text("One moment."), call()], "the caller's own request is not touched"


@pytest.mark.parametrize(("owner", "upstream", "name"), [(2, "up", "c1"), (1, "other", "c1"), (1, "up", "c2")])
def test_nobody_else_gets_it(memory: Memory, owner: int, upstream: str, name: str) -> None:
    memory.keep(1, "up", answer(SIGNED, call()))
    request = turn(call(name))
    assert memory.restored(owner, upstream, request) is request


def test_what_a_client_kept_is_not_replaced(memory: Memory) -> None:
    memory.keep(1, "up", answer(SIGNED, call()))
    own = replace(SIGNED, text="as the client has it")
    request = turn(own, call())
    assert memory.restored(1, "up", request) is request


def test_shown_text_without_a_signature_is_no_substitute(memory: Memory) -> None:
    memory.keep(1, "up", answer(SIGNED, call()))
    shown = Thinking("Let me see.", dialect="openai-chat")
    assert memory.restored(1, "up", turn(shown, call())).messages[1].parts == [SIGNED, shown, call()]


def test_several_calls_have_their_thoughts_once(memory: Memory) -> None:
    memory.keep(1, "up", answer(SIGNED, call("c1"), call("c2")))
    assert memory.restored(1, "up", turn(call("c1"), call("c2"))).messages[1].parts == [
        SIGNED,
        call("c1"),
        call("c2"),
    ]


def test_what_a_format_says_of_a_call_comes_back_with_it(memory: Memory) -> None:
    extra = {"gemini": {"thoughtSignature": "c2ln"}}
    memory.keep(1, "up", answer(replace(call(), extra=extra)))
    assert memory.restored(1, "up", turn(call())).messages[1].parts == [replace(call(), extra=extra)]
    kept = replace(call(), extra={"gemini": {"thoughtSignature": "own"}})
    request = turn(kept)
    assert memory.restored(1, "up", request) is request


def test_the_tools_of_an_upstream_itself_are_not_kept(memory: Memory) -> None:
    memory.keep(1, "up", answer(SIGNED, replace(call(), server=True)))
    assert len(memory) == 0


def test_it_is_forgotten_in_time(memory: Memory, clock: Clock) -> None:
    memory.keep(1, "up", answer(SIGNED, call()))
    clock.now += 3599
    assert memory.recall(1, "up", "c1")
    clock.now += 2
    assert memory.recall(1, "up", "c1") is None
    assert (len(memory), memory.size) == (0, 0)


def test_it_never_grows_beyond_its_size(memory: Memory) -> None:
    for number in range(1000):
        memory.keep(1, "up", answer(replace(SIGNED, text="x" * 1000), call(f"c{number}")))
        assert memory.size <= 100_000
    assert memory.recall(1, "up", "c0") is None
    assert memory.recall(1, "up", "c999")
    memory.keep(1, "up", answer(replace(SIGNED, text="x" * 200_000), call("huge")))
    assert memory.recall(1, "up", "huge") is None
    assert memory.recall(1, "up", "c999"), "what is too large pushes nothing out"
    for number in range(1000):
        memory.keep(1, "up", answer(SIGNED, call("again")))
        assert memory.recall(1, "up", "again"), number


def test_what_is_used_stays_longest(memory: Memory) -> None:
    memory.keep(1, "up", answer(replace(SIGNED, text="x" * 1000), call("used")))
    for number in range(200):
        memory.keep(1, "up", answer(replace(SIGNED, text="x" * 1000), call(f"c{number}")))
        assert memory.recall(1, "up", "used")
