from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from relay import Target, Upstream
from relay.manager import Plugins
from relay_latency import EXPLORED, ByLatency, order_targets

A, B, C = (Target(Upstream(name, "x", f"http://{name}"), "m") for name in "abc")


def firsts(policy: ByLatency, calls: int, now: float = 0.0, *, stream: bool = True) -> Counter[str]:
    found: Counter[str] = Counter()
    for _ in range(calls):
        found[policy.order("m", (A, B, C), stream, now)[0].upstream.name] += 1
    return found


def test_the_quickest_is_asked_first_and_what_is_unknown_last() -> None:
    policy = ByLatency(["m"], 60.0)
    policy.seen(C, True, 0.2, 0.0)
    policy.seen(B, True, 0.1, 0.0)
    assert policy.order("m", (A, B, C), True, 0.0) == [B, C, A]


def test_now_and_then_what_is_unknown_or_long_ago_gets_a_call() -> None:
    policy = ByLatency(["m"], 60.0)
    policy.seen(B, True, 0.1, 0.0)
    policy.seen(C, True, 0.2, 0.0)
    assert firsts(policy, 2 * EXPLORED) == {"b": 2 * EXPLORED - 2, "a": 2}
    policy.seen(A, True, 0.3, 100.0)
    policy.seen(B, True, 0.1, 100.0)
    assert firsts(policy, 2 * EXPLORED, 100.0) == {"b": 2 * EXPLORED - 2, "c": 2}
    policy.seen(C, True, 0.2, 100.0)
    assert firsts(policy, 2 * EXPLORED, 100.0) == {"b": 2 * EXPLORED}


def test_what_changes_is_followed_within_a_few_calls() -> None:
    policy = ByLatency(["m"], 60.0)
    for target, seconds in ((A, 0.1), (B, 0.2), (C, 0.3)):
        policy.seen(target, True, seconds, 0.0)
    assert firsts(policy, 1) == {"a": 1}
    for _ in range(3):
        policy.seen(A, True, 1.0, 0.0)
    assert firsts(policy, 1) == {"b": 1}


def test_streams_and_complete_answers_are_measured_apart() -> None:
    policy = ByLatency(["m"], 60.0)
    for stream, quick in ((True, A), (False, B)):
        for target in (A, B, C):
            policy.seen(target, stream, 0.1 if target is quick else 5.0, 0.0)
    assert firsts(policy, 1, stream=True) == {"a": 1}
    assert firsts(policy, 1, stream=False) == {"b": 1}


def test_models_that_are_not_named_keep_their_order() -> None:
    policy = ByLatency(["fast-*"], 60.0)
    policy.seen(B, True, 0.1, 0.0)
    assert policy.order("m", (A, B), True, 0.0) == (A, B)
    assert policy.order("fast-1", (A, B), True, 0.0) == [B, A]
    assert policy.order("fast-1", (A,), True, 0.0) == (A,)


def test_memory_is_bounded() -> None:
    policy = ByLatency(["*"], 60.0)
    for number in range(10_000):
        policy.seen(Target(A.upstream, str(number)), True, 0.1, float(number))
    assert len(policy._known) <= 4096


@pytest.mark.parametrize("options", [{}, {"models": []}])
def test_it_is_off_until_models_are_named(options: dict[str, Any]) -> None:
    assert order_targets(options) is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"model": ["m"]}, "no option 'model'"),
        ({"models": "m"}, "list of names"),
        ({"models": [1]}, "list of names"),
        ({"models": ["m"], "again_seconds": "1"}, "number of seconds"),
        ({"models": ["m"], "again_seconds": -1}, "number of seconds"),
        ({"models": ["m"], "again_seconds": True}, "number of seconds"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        order_targets(options)


def test_the_relay_has_its_policy_only_if_it_is_wanted() -> None:
    assert Plugins.load().orderings() == []
    (ordering,) = Plugins.load(options={"latency": {"models": ["m"]}}).orderings()
    assert ordering.plugin == "latency"
    wrong = Plugins.load(options={"latency": {"models": 5}})
    assert wrong.orderings() == []
    (record,) = [record for record in wrong.records if record.name == "latency"]
    assert record.error is not None
