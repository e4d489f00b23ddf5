from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import RateLimited
from relay.limits import Limiter, Limits, Scope, duration


def key(rpm: int = 0, tpm: int = 0, concurrency: int = 0) -> Scope:
    return Scope("key", 1, Limits(rpm, tpm, concurrency))


@pytest.mark.promise("L-09")
def test_a_bucket_admits_no_more_than_its_burst_plus_its_rate_in_any_window() -> None:
    limiter, scope, rng = Limiter(), key(rpm=60), random.Random(7)
    now, admitted = 0.0, []
    for _ in range(20_000):
        now += rng.expovariate(4)
        try:
            limiter.reserve([scope], 0, now).settle(0, now)
            admitted.append(now)
        except RateLimited:
            pass
    first = 0
    for last, moment in enumerate(admitted):
        while admitted[first] < moment - 60:
            first += 1
        # In any minute: the burst of 60, and the 60 that flowed in meanwhile.
        assert last - first + 1 <= 121
    assert len(admitted) == pytest.approx(60 + now, abs=2)


@pytest.mark.promise("L-09")
def test_retry_after_is_exact() -> None:
    limiter, scope = Limiter(), key(rpm=30)
    for _ in range(30):
        limiter.reserve([scope], 0, 100.0).settle(0, 100.0)
    with pytest.raises(RateLimited) as refused:
        limiter.reserve([scope], 0, 100.0)
    wait = refused.value.retry_after
    assert wait is not None
    with pytest.raises(RateLimited):
        limiter.reserve([scope], 0, 100.0 + wait - 0.001)
    limiter.reserve([scope], 0, 100.0 + wait)


@pytest.mark.promise("L-10")
@pytest.mark.parametrize(("used", "left"), [(5, 995), (100, 900), (500, 500)])
def test_tokens_are_corrected_by_what_was_really_used(used: int, left: int) -> None:
    limiter, scope = Limiter(), key(tpm=1000)
    limiter.reserve([scope], 100, 0.0).settle(used, 0.0)
    _, tokens = limiter.views([scope], 0.0)
    assert tokens is not None
    assert tokens.remaining == left


@pytest.mark.promise("L-10")
def test_a_debt_is_at_most_one_bucket_deep() -> None:
    limiter, scope = Limiter(), key(tpm=600)
    limiter.reserve([scope], 1, 0.0).settle(10**9, 0.0)
    with pytest.raises(RateLimited) as refused:
        limiter.reserve([scope], 1, 0.0)
    assert refused.value.retry_after == pytest.approx(601 / 10)
    limiter.reserve([scope], 1, 60.2)


def test_a_refused_call_takes_nothing_from_any_bucket() -> None:
    limiter = Limiter()
    wide, narrow = key(rpm=100, tpm=1000), Scope("model", "m", Limits(rpm=1))
    limiter.reserve([wide, narrow], 10, 0.0).settle(10, 0.0)
    for _ in range(5):
        with pytest.raises(RateLimited, match="model"):
            limiter.reserve([wide, narrow], 10, 0.0)
    requests, tokens = limiter.views([wide], 0.0)
    assert requests is not None
    assert tokens is not None
    assert (requests.remaining, tokens.remaining) == (99, 990)
    assert limiter.running() == 0


@pytest.mark.promise("L-06")
def test_places_are_freed_once_and_only_once() -> None:
    limiter, scope = Limiter(), key(concurrency=1)
    held = limiter.reserve([scope], 0, 0.0)
    with pytest.raises(RateLimited) as refused:
        limiter.reserve([scope], 0, 0.0)
    assert refused.value.code == "concurrency_limit_exceeded"
    held.settle(0, 0.0)
    held.settle(0, 0.0)
    assert limiter.running() == 0
    limiter.reserve([scope], 0, 0.0)
    with pytest.raises(RateLimited):
        limiter.reserve([scope], 0, 0.0)


def test_a_request_over_the_whole_limit_is_told_so_and_not_to_retry() -> None:
    with pytest.raises(RateLimited) as refused:
        Limiter().reserve([key(tpm=100)], 101, 0.0)
    assert refused.value.code == "request_over_token_limit"
    assert refused.value.should_retry is False


@pytest.mark.promise("L-05")
def test_a_clock_that_goes_back_neither_refills_nor_starves() -> None:
    limiter, scope = Limiter(), key(rpm=60)
    for _ in range(60):
        limiter.reserve([scope], 0, 1000.0).settle(0, 1000.0)
    with pytest.raises(RateLimited):
        limiter.reserve([scope], 0, 10.0)
    limiter.reserve([scope], 0, 1001.0)


def test_a_changed_limit_counts_at_once_and_keeps_what_was_used() -> None:
    limiter = Limiter()
    for _ in range(10):
        limiter.reserve([key(rpm=100)], 0, 0.0).settle(0, 0.0)
    with pytest.raises(RateLimited):
        limiter.reserve([key(rpm=10)], 0, 0.0)
    limiter.reserve([key(rpm=12)], 0, 0.0)


@pytest.mark.promise("L-14")
def test_memory_follows_use() -> None:
    limiter = Limiter()
    for number in range(5000):
        scope = Scope("key", number, Limits(rpm=60))
        limiter.reserve([scope], 0, float(number)).settle(0, float(number))
    assert len(limiter) <= 2100


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 80), st.floats(0, 5)), max_size=60))
def test_nothing_is_held_once_every_call_has_ended(calls: list[tuple[int, int, float]]) -> None:
    limiter, scopes = Limiter(), [key(rpm=30, tpm=300, concurrency=4), Scope("model", "m", Limits(tpm=200))]
    now, held = 0.0, []
    for estimate, used, pause in calls:
        now += pause
        try:
            held.append((limiter.reserve(scopes, estimate, now), used))
        except RateLimited:
            if held:
                reservation, real = held.pop(0)
                reservation.settle(real, now)
    for reservation, real in held:
        reservation.settle(real, now)
    assert limiter.running() == 0
    requests, tokens = limiter.views(scopes, now + 3600)
    assert requests is not None
    assert tokens is not None
    assert (requests.remaining, tokens.remaining) == (30, 200)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0ms"), (0.0121, "13ms"), (1, "1s"), (1.5, "1.5s"), (60, "1m0s"), (90.25, "1m30.25s")]
)
def test_durations_read_as_in_rate_limit_headers(seconds: float, text: str) -> None:
    assert duration(seconds) == text
