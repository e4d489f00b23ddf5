from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import UpstreamBusy
from relay.kit import error_for_status
from relay.retry import LONGEST_PAUSE, LONGEST_WAIT, RetryBudget, backoff, retry_after

NOW = 1_795_341_600.0
"""2026-11-22 10:00:00 UTC."""

SAID: dict[str, float | None] = {
    "2": 2.0,
    " 2 ": 2.0,
    "0": 0.0,
    "1.5": 1.5,
    ".5": 0.5,
    "-1": 0.0,
    "+3": 3.0,
    "1000000000": LONGEST_WAIT,
    "9" * 99: LONGEST_WAIT,
    "1m30s": 90.0,
    "34s": 34.0,
    "34.4s": 34.4,
    "250ms": 0.25,
    "2h": 7200.0,
    "1d1s": LONGEST_WAIT,
    "Sun, 22 Nov 2026 10:00:30 GMT": 30.0,
    "Sun, 22 Nov 2026 12:00:30 +0200": 30.0,
    "Sun, 22 Nov 2026 10:00:30 -0000": 30.0,
    "Sun, 22 Nov 2026 09:00:00 GMT": 0.0,
    "2026-11-22T10:00:30Z": 30.0,
    "2026-11-22T10:00:30": 30.0,
    "": None,
    "soon": None,
    "NaN": None,
    "inf": None,
    "1e3": None,
    "1_0": None,
    "2, 5": None,
    "٣": None,
    "s": None,
    ".": None,
    "1.2.3s": None,
    "Sun, 99 Nov 2026 10:00:30 GMT": None,
    "1" * 101: None,
}


@pytest.mark.promise("F-09")
@pytest.mark.parametrize("text", SAID)
def test_a_wait_is_read_in_every_form_and_nothing_else_is(text: str) -> None:
    assert retry_after({"retry-after": text}, NOW) == SAID[text]


@pytest.mark.promise("F-09")
def test_milliseconds_come_first_unless_they_cannot_be_read() -> None:
    assert retry_after({"retry-after-ms": "250", "retry-after": "1"}, NOW) == 0.25
    assert retry_after({"retry-after-ms": "-250"}, NOW) == 0.0
    assert retry_after({"retry-after-ms": "soon", "retry-after": "1"}, NOW) == 1.0
    assert retry_after({}, NOW) is None


LIMITS: list[tuple[dict[str, str], float | None]] = [
    ({"x-ratelimit-reset-requests": "1m30s"}, 90.0),
    ({"x-ratelimit-reset-requests": "1m30s", "x-ratelimit-remaining-requests": "0"}, 90.0),
    ({"x-ratelimit-reset-requests": "1m30s", "x-ratelimit-remaining-requests": "7"}, None),
    ({"x-ratelimit-reset-requests": "1m30s", "x-ratelimit-remaining-requests": "many"}, 90.0),
    (
        {
            "x-ratelimit-reset-requests": "12ms",
            "x-ratelimit-remaining-requests": "99",
            "x-ratelimit-reset-tokens": "6m0s",
            "x-ratelimit-remaining-tokens": "0",
        },
        360.0,
    ),
    ({"x-ratelimit-reset": "1795341630"}, 30.0),
    ({"x-ratelimit-reset": "1795341630000"}, 30.0),
    ({"ratelimit-reset": "20"}, 20.0),
    ({"vendor-ratelimit-tokens-reset": "2026-11-22T10:00:30Z", "vendor-ratelimit-tokens-remaining": "0"}, 30.0),
    ({"vendor-ratelimit-tokens-reset": "2026-11-22T10:00:30Z", "vendor-ratelimit-tokens-remaining": "5"}, None),
    ({"x-ratelimit-reset-requests": "1m30s", "retry-after": "2"}, 2.0),
    ({"x-ratelimit-reset-requests": "soon"}, None),
    ({"x-unrelated-reset": "30"}, None),
]


@pytest.mark.promise("F-09")
@pytest.mark.parametrize(("headers", "seconds"), LIMITS)
def test_of_a_used_up_limit_the_reset_is_the_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW, limited=True) == seconds
    assert retry_after({"x-ratelimit-reset-requests": "1m30s"}, NOW) is None


@pytest.mark.promise("F-09")
def test_resets_count_for_rate_limits_only_and_waits_for_every_refusal() -> None:
    for status in (429, 503, 529, 500):
        error = error_for_status(status, "no", {"retry-after": "7"})
        assert error.retry_after == 7.0
        wait = error_for_status(status, "no", {"x-ratelimit-reset-requests": "9s"}).retry_after
        assert wait == (9.0 if status == 429 else None)
    assert isinstance(error_for_status(429, "no", {}), UpstreamBusy)


@given(st.text(max_size=200))
def test_whatever_is_said_the_wait_is_none_or_bounded(text: str) -> None:
    for headers in ({"retry-after": text}, {"retry-after-ms": text}, {"x-ratelimit-reset-tokens": text}):
        wait = retry_after(headers, NOW, limited=True)
        assert wait is None or (0 <= wait <= LONGEST_WAIT and math.isfinite(wait))


@given(st.integers(1, 10_000), st.floats(0.001, 86_400), st.floats(0, 1, exclude_max=True))
def test_a_pause_doubles_up_to_its_bound_and_is_never_less_than_half(number: int, base: float, luck: float) -> None:
    pause = backoff(number, base, luck)
    whole = min(base * 2.0 ** min(number - 1, 30), LONGEST_PAUSE)
    assert whole / 2 <= pause <= whole


def test_a_budget_is_a_share_of_what_is_under_way_and_a_few_in_any_case() -> None:
    budget = RetryBudget(0.2, 3)
    assert [budget.take(1) for _ in range(4)] == [True, True, True, False]
    assert budget.take(20) is True
    assert budget.take(20) is False
    budget.give()
    assert budget.take(20) is True
    assert budget.taken == 4
