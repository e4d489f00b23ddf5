"""What the relay remembers of a model's reasoning, for whom, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.ir import Choice, Message, Part, Request, Response, Text, Thinking, ToolCall, ToolResult
from relay.memory import Memory, Thought, place_of
from relay.shelf import Look, Shelf
from relay.store import Key

SIGNED = Thinking("Let me see.", signature="c2lnbmVk", dialect="anthropic-messages")
HIDDEN = Thinking("", signature="cmVkYWN0ZWQ=", redacted=True, dialect="anthropic-messages")
ASKED = Message("user", [Text("Weather?")])
UNIQUE = "toolu_01AbCdEfGh"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Kept:
    """A memory, as one key's calls use it."""

    def __init__(self, clock: Clock) -> None:
        self.shelf = Shelf("thoughts", 100_000, 3600.0, clock=clock)
        self.memory = Memory(self.shelf)

    def keep(self, owner: int, upstream: str, response: Response, before: Message = ASKED) -> None:
        self.memory.keep(key(owner), upstream, response, before)

    def restored(self, owner: int, upstream: str, request: Request, *, signs: bool = False) -> Request:
        return self.memory.restored(Look(key(owner)), upstream, request, signs=signs)

    def recall(self, owner: int, upstream: str, name: str) -> Thought | None:
        return self.memory.recall(Look(key(owner)), upstream, place_of(call(name), ASKED))


def key(number: int) -> Key:
    return Key(id=number, prefix="sk-...", name=f"k{number}", created_at=0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> Kept:
    return Kept(clock)


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


def test_dropped_reasoning_comes_back_in_front_of_its_turn(memory: Kept) -> None:
    memory.keep(1, "up", answer(SIGNED, HIDDEN, Text("One moment."), call()))
    request = turn(Text("One moment."), call())
    assert memory.restored(1, "up", request).messages[1].parts == [SIGNED, HIDDEN, Text("One moment."), call()]
    assert request.messages[1].parts == [Text("One moment."), call()], "the caller's own request is not touched"


@pytest.mark.parametrize(("owner", "upstream", "name"), [(2, "up", "c1"), (1, "other", "c1"), (1, "up", "c2")])
def test_nobody_else_gets_it(memory: Kept, owner: int, upstream: str, name: str) -> None:
    memory.keep(1, "up", answer(SIGNED, call()))
    request = turn(call(name))
    assert memory.restored(owner, upstream, request) is request


def test_what_a_client_kept_is_not_replaced(memory: Kept) -> None:
    memory.keep(1, "up", answer(SIGNED, call()))
    own = replace(SIGNED, text="as the client has it")
    request = turn(own, call())
    assert memory.restored(1, "up", request) is request


def test_shown_text_without_a_signature_is_no_substitute(memory: Kept) -> None:
    memory.keep(1, "up", answer(SIGNED, call()))
    shown = Thinking("Let me see.", dialect="openai-chat")
    assert memory.restored(1, "up", turn(shown, call())).messages[1].parts == [SIGNED, shown, call()]


def test_several_calls_have_their_thoughts_once(memory: Kept) -> None:
    memory.keep(1, "up", answer(SIGNED, call("c1"), call("c2")))
    assert memory.restored(1, "up", turn(call("c1"), call("c2"))).messages[1].parts == [
        SIGNED,
        call("c1"),
        call("c2"),
    ]


def test_what_a_format_says_of_a_call_comes_back_with_it(memory: Kept) -> None:
    extra = {"gemini": {"thoughtSignature": "c2ln"}}
    memory.keep(1, "up", answer(replace(call(), extra=extra)))
    assert memory.restored(1, "up", turn(call())).messages[1].parts == [replace(call(), extra=extra)]
    kept = replace(call(), extra={"gemini": {"thoughtSignature": "own"}})
    request = turn(kept)
    assert memory.restored(1, "up", request) is request


def test_the_tools_of_an_upstream_itself_are_not_kept(memory: Kept) -> None:
    memory.keep(1, "up", answer(SIGNED, replace(call(), server=True)))
    assert len(memory.shelf) == 0


def test_it_is_forgotten_in_time(memory: Kept, clock: Clock) -> None:
    memory.keep(1, "up", answer(SIGNED, call()))
    clock.now += 3599
    assert memory.recall(1, "up", "c1")
    clock.now += 2
    assert memory.recall(1, "up", "c1") is None
    assert (len(memory.shelf), memory.shelf.size) == (0, 0)


def test_it_never_grows_beyond_its_size(memory: Kept) -> None:
    for number in range(1000):
        memory.keep(1, "up", answer(replace(SIGNED, text="x" * 1000), call(f"c{number}")))
        assert memory.shelf.size <= 100_000
    assert memory.recall(1, "up", "c0") is None
    assert memory.recall(1, "up", "c999")
    memory.keep(1, "up", answer(replace(SIGNED, text="x" * 200_000), call("huge")))
    assert memory.recall(1, "up", "huge") is None
    assert memory.recall(1, "up", "c999"), "what is too large pushes nothing out"
    for number in range(1000):
        memory.keep(1, "up", answer(SIGNED, call("again")))
        assert memory.recall(1, "up", "again"), number


def test_what_is_used_stays_longest(memory: Kept) -> None:
    memory.keep(1, "up", answer(replace(SIGNED, text="x" * 1000), call("used")))
    for number in range(200):
        memory.keep(1, "up", answer(replace(SIGNED, text="x" * 1000), call(f"c{number}")))
        assert memory.recall(1, "up", "used")


def numbered(name: str = "functions.weather:0", city: str = "Oslo") -> ToolCall:
    return ToolCall(name, "weather", f'{{"city":"{city}"}}')


def conversation(question: str, call: ToolCall) -> Request:
    return Request("m", [Message("user", [Text(question)]), Message("assistant", [call])])


@pytest.mark.parametrize(
    ("id", "name", "telling"),
    [
        ("toolu_01A09q90qw90lq917835lq9", "weather", True),
        ("call_abcd1234", "weather", True),
        ("D681PevKs", "weather", True),
        ("call_00_V9tPQkN3mAcF", "weather", True),
        ("functions.get_weather:0", "get_weather", False),
        ("call_0", "weather", False),
        ("0", "weather", False),
        ("weather-12", "weather", False),
    ],
)
def test_ids_that_only_number_calls_are_told_apart_by_what_was_asked(id: str, name: str, telling: bool) -> None:
    asked = ToolCall(id, name, "{}")
    other = Message("user", [Text("Something else")])
    assert (place_of(asked, ASKED) == place_of(asked, other)) is telling


def test_another_conversation_with_the_same_numbers_gets_no_thought_of_this_one(memory: Kept) -> None:
    mine = replace(SIGNED, text="of the first")
    memory.keep(1, "up", answer(mine, numbered()), Message("user", [Text("Weather in Oslo?")]))
    other = conversation("Is it cold in Oslo?", numbered())
    assert memory.restored(1, "up", other) is other
    elsewhere = conversation("Weather in Oslo?", numbered(city="Bergen"))
    assert memory.restored(1, "up", elsewhere) is elsewhere
    same = conversation("Weather in Oslo?", replace(numbered(), arguments='{ "city": "Oslo" }'))
    (_, turn) = memory.restored(1, "up", same).messages
    assert turn.parts[0] == mine


MARK = {"gemini": {"thoughtSignature": "c2ln"}}


def test_marks_on_words_come_back_where_they_were(memory: Kept) -> None:
    said = [Text("Hello "), Text("there", extra=MARK), Text("", extra={"gemini": {"thoughtSignature": "ZW5k"}})]
    memory.keep(1, "up", answer(*said))
    request = Request("m", [ASKED, Message("assistant", [Text("Hello there")]), ASKED])
    assert memory.restored(1, "up", request, signs=True).messages[1].parts == said
    assert memory.restored(1, "up", request) is request, "nobody looks where nothing is signed"
    changed = Request("m", [ASKED, Message("assistant", [Text("Hello there!")]), ASKED])
    assert memory.restored(1, "up", changed, signs=True) is changed
    elsewhere = Request("m", [Message("user", [Text("Hi")]), Message("assistant", [Text("Hello there")])])
    assert memory.restored(1, "up", elsewhere, signs=True) is elsewhere, "short words are said elsewhere, too"
    own = Request("m", [ASKED, Message("assistant", [Text("Hello there", extra=MARK)])])
    assert memory.restored(1, "up", own, signs=True) is own, "what a client kept is not replaced"


def test_words_that_a_client_cut_otherwise_have_their_marks_where_they_end(memory: Kept) -> None:
    memory.keep(1, "up", answer(Text("One. Two.", extra=MARK), Text("", extra=MARK)))
    turn = Message("assistant", [Text("One. "), call(UNIQUE), Text("Two.")])
    (_, new) = memory.restored(1, "up", Request("m", [ASKED, turn]), signs=True).messages
    assert new.parts == [Text("One. "), call(UNIQUE), Text("Two.", extra=MARK), Text("", extra=MARK)]


def test_a_mark_on_nothing_comes_back_to_a_turn_without_words(memory: Kept) -> None:
    memory.keep(1, "up", answer(Text("", extra=MARK), call(UNIQUE)))
    request = Request("m", [ASKED, Message("assistant", [call(UNIQUE)])])
    assert memory.restored(1, "up", request, signs=True).messages[1].parts == [call(UNIQUE), Text("", extra=MARK)]


def test_what_another_version_wrote_is_not_guessed_at(memory: Kept) -> None:
    memory.shelf.put(key(1), "up", place_of(call(UNIQUE), ASKED), b'{"form":99,"thoughts":[],"extra":null}')
    request = turn(call(UNIQUE))
    assert memory.restored(1, "up", request) is request
