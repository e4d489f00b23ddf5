"""Lines by themselves, on a clock that the test moves: fair between keys, bounded, and without leaks."""

from __future__ import annotations

import asyncio
import heapq
import random
from statistics import quantiles

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import OutOfBudget, RateLimited
from relay.limits import Limiter, Limits, Reservation, Scope
from relay.lines import Line, Lines, Waiting

PLACES = 4
SECONDS = 1.0
"""What a call takes, give or take a half."""


class Desk:
    """A model with some places, a line before them, and an hour that goes by as fast as the machine can."""

    def __init__(self, places: int = PLACES, most: int = 50) -> None:
        self.now = 0.0
        self.limiter = Limiter()
        self.scope = Scope("model", "m", Limits(concurrency=places))
        self.line = Line("model concurrency")
        self.limiter.listen(self.line.call)
        self.most = most
        self.waits: dict[int, list[float]] = {}
        self.refused: dict[int, int] = {}
        self._ends: list[tuple[float, int, Reservation]] = []
        self._count = 0
        self.chance = random.Random(7)

    def arrive(self, key: int) -> None:
        """A call that takes its time as soon as it has a place."""
        came = self.now

        def take() -> None:
            place = self.limiter.reserve([self.scope], 0, self.now)
            self._count += 1
            heapq.heappush(self._ends, (self.now + self.chance.uniform(0.5, 1.5) * SECONDS, self._count, place))

        def told(error: Exception | None) -> None:
            if error is None:
                self.waits.setdefault(key, []).append(self.now - came)
            else:
                self.refused[key] = self.refused.get(key, 0) + 1

        try:
            take()
            told(None)
        except RateLimited:
            try:
                self.line.join(Waiting(key, take, told), self.most)
            except RateLimited as error:
                told(error)

    def until(self, then: float) -> None:
        while self._ends and self._ends[0][0] <= then:
            self.now, _, place = heapq.heappop(self._ends)
            place.settle(0, self.now)
        self.now = then


def p95(waits: list[float]) -> float:
    return quantiles(waits, n=20)[-1]


@pytest.mark.promise("L-11")
def test_one_that_hammers_does_not_make_others_wait() -> None:
    desk = Desk()
    arrivals = [(number / 40, 1) for number in range(120 * 40)]
    arrivals += [(number * 1.9, 2) for number in range(1, 61)]
    for then, key in sorted(arrivals):
        desk.until(then)
        desk.arrive(key)
    # A place is free four times a second: if two keys share them, it is each one's turn every half second.
    fair = 2 * SECONDS / PLACES
    assert p95(desk.waits[2]) < 2 * fair
    assert 2 not in desk.refused
    assert len(desk.waits[2]) == 60
    assert desk.refused[1] > 4000, "the one that hammers is told at once"
    assert len(desk.waits[1]) > 3.3 * 120, "and gets all that nobody else wants"
    assert len(desk.line) <= 50


@pytest.mark.promise("L-11")
def test_turns_go_round_whoever_came_first() -> None:
    desk = Desk(places=1)
    order: list[int] = []

    def join(key: int) -> None:
        desk.line.join(Waiting(key, lambda: None, lambda error: order.append(key)), 50)

    for key in (1, 1, 1, 1, 2, 3, 2):
        join(key)
    desk.line.call()
    assert order == [1, 2, 3, 1, 2, 1, 1]
    order.clear()
    # Whoever comes again at once, and alone, is not first again: the others' last turn is longer ago.
    for key in (1, 3, 2, 4):
        join(key)
    desk.line.call()
    assert order == [4, 3, 2, 1]


def refusal() -> None:
    raise RateLimited("no", limit="model concurrency", retry_after=1.0)


@pytest.mark.promise("L-11")
def test_a_full_line_makes_room_for_those_who_have_less_in_it() -> None:
    line = Line("model concurrency")
    told: list[tuple[int, int, str]] = []
    refused: list[tuple[str, int]] = []

    def join(key: int, number: int) -> bool:
        def out(error: Exception | None) -> None:
            assert isinstance(error, RateLimited)
            told.append((key, number, error.code))

        try:
            line.join(Waiting(key, refusal, out), 4)
        except RateLimited as error:
            refused.append((error.code, error.status))
            return False
        return True

    assert [join(1, number) for number in range(6)] == [True] * 4 + [False] * 2
    assert join(2, 0)
    assert told == [(1, 3, "queue_full")], "the newest of the one that has most"
    assert join(2, 1)
    assert [join(2, 2), join(1, 9)] == [False, False], "two and two is fair"
    assert join(3, 0)
    assert told[1:] == [(1, 2, "queue_full"), (1, 1, "queue_full")]
    assert set(refused) == {("queue_full", 429)}
    assert len(line) == 4


def test_what_a_key_may_not_have_now_keeps_nobody_else_waiting() -> None:
    line = Line("model concurrency")
    found: list[tuple[int, Exception | None]] = []
    raised: dict[int, Exception | None] = {
        1: RateLimited("no", limit="key concurrency", retry_after=1.0),
        2: RateLimited("no", limit="key requests per minute", retry_after=7.0),
        3: OutOfBudget("no"),
        4: ValueError("a plugin's"),
        5: None,
    }

    def take(key: int) -> None:
        error = raised[key]
        if error is not None:
            raise error

    for key in raised:
        for _ in range(2):
            line.join(Waiting(key, lambda key=key: take(key), lambda error, key=key: found.append((key, error))), 50)  # type: ignore[misc]
    line.call()
    assert sorted(key for key, _ in found) == [2, 2, 3, 3, 4, 4, 5, 5]
    assert all(error is raised[key] for key, error in found)
    assert len(line) == 2, "those whose key has no place of its own wait on"
    raised[1] = None
    line.call()
    assert (len(line), found[-1]) == (0, (1, None))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("jjjlc"), st.integers(1, 3), st.integers(0, 9)), max_size=60))
def test_whatever_happens_each_is_told_once_and_the_bound_holds(steps: list[tuple[str, int, int]]) -> None:
    desk = Desk(places=2, most=5)
    told: list[Waiting] = []
    joined: list[Waiting] = []
    left: list[Waiting] = []
    places: list[Reservation] = []
    for what, key, number in steps:
        if what == "j":
            waiting = Waiting(
                key, lambda: places.append(desk.limiter.reserve([desk.scope], 0, 0.0)), lambda error: None
            )
            waiting.told = lambda error, waiting=waiting: told.append(waiting)  # type: ignore[misc]
            try:
                desk.line.join(waiting, 5)
                joined.append(waiting)
            except RateLimited:
                assert len(desk.line) == 5
            desk.line.call()
        elif what == "l" and joined:
            waiting = joined[number % len(joined)]
            if not waiting.over:
                left.append(waiting)
            desk.line.leave(waiting)
        elif what == "c" and places:
            places.pop(number % len(places)).settle(0, 0.0)
        assert len(desk.line) <= 5
        assert len(set(map(id, told))) == len(told)
        waits = [waiting for waiting in joined if not waiting.over]
        assert len(waits) == len(desk.line)
        assert not waits or len(places) == 2, "nobody waits beside a free place"
    assert not set(map(id, told)) & set(map(id, left))


async def test_who_is_not_reached_in_time_is_told_so_and_leaves_no_trace() -> None:
    limiter = Limiter()
    lines = Lines(limiter)
    scope = Scope("model", "m", Limits(concurrency=1))
    place = limiter.reserve([scope], 0, 0.0)
    took: list[Reservation] = []
    with pytest.raises(RateLimited) as caught:
        await lines.wait(scope, 1, lambda: took.append(limiter.reserve([scope], 0, 0.0)), 5, 0.01)
    assert (caught.value.code, caught.value.status) == ("queue_timeout", 429)
    waiting = asyncio.create_task(lines.wait(scope, 1, lambda: took.append(limiter.reserve([scope], 0, 0.0)), 5, 9.0))
    await asyncio.sleep(0)
    assert len(lines) == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(lines) == 0
    place.settle(0, 1.0)
    assert not took
    assert limiter.running() == 0
    assert limiter._listener is None, "and calls cost what they cost without lines"


def test_the_limiter_drops_what_says_nothing_also_while_somebody_listens() -> None:
    limiter, heard = Limiter(), []
    for listener in (None, lambda: heard.append(1)):
        limiter.listen(listener)
        for number in range(3000):
            scope = Scope("key", number, Limits(rpm=10, tpm=10, concurrency=1))
            limiter.reserve([scope], 1, 0.0).settle(1, 1e6 + number)
        assert len(limiter) < 2100
    assert len(heard) == 3000
