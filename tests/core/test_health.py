from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relay import Target, Upstream
from relay.call import bad_arguments
from relay.errors import (
    RelayError,
    UpstreamBusy,
    UpstreamError,
    UpstreamHungUp,
    UpstreamProtocol,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from relay.health import CIRCUITS_KEPT, FORGET_SECONDS, PROBE_SECONDS, Circuit, Health, Pace

PACE = Pace(failures=3, first=5.0, longest=60.0, least=0.25)
KEYS = tuple(Upstream("up", "x", "http://up", key_number=number) for number in (1, 2))
ONE, TWO = (Target(upstream, "m") for upstream in KEYS)
OTHER = Target(KEYS[0], "n")
BROKEN = UpstreamError("broken", upstream_status=500)


def health(luck: float = 0.0, pace: Pace = PACE) -> Health:
    return Health(pace, lambda: luck)


def limited(seconds: float | None) -> UpstreamBusy:
    return UpstreamBusy("slow down", retry_after=seconds, upstream_status=429)


def fail(health: Health, error: RelayError, now: float, target: Target = ONE) -> None:
    """One attempt that fails at once."""
    health.failed(target, error, now, health.enter(target, now))


def test_a_target_is_left_alone_after_failures_in_a_row_and_nobody_else_is() -> None:
    state = health()
    for now in (0.0, 1.0):
        fail(state, BROKEN, now)
        assert state.wait(ONE, now) == 0.0
    fail(state, BROKEN, 2.0)
    assert state.wait(ONE, 2.0) == 5.0
    assert state.wait(ONE, 6.0) == 1.0
    assert state.wait(ONE, 7.0) == 0.0
    assert (state.wait(TWO, 2.0), state.wait(OTHER, 2.0)) == (0.0, 0.0)


def test_a_success_in_between_begins_the_row_anew() -> None:
    state = health()
    for _ in range(10):
        fail(state, BROKEN, 0.0)
        fail(state, BROKEN, 0.0)
        state.succeeded(ONE, state.enter(ONE, 0.0))
    assert not state.circuits


@pytest.mark.promise("F-09")
@pytest.mark.parametrize(
    ("asked", "seconds"), [(2.0, 2.0), (1.5, 1.5), (0.25, 0.25), (0.0, 0.25), (60.0, 60.0), (86_400.0, 60.0)]
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_is_asked_for_holds_at_once_and_exactly_within_bounds(
    asked: float, seconds: float, status: int
) -> None:
    state = health(luck=0.9)
    fail(state, UpstreamBusy("later", retry_after=asked, upstream_status=status), 100.0)
    assert state.wait(ONE, 100.0) == seconds
    why = state.why(ONE, 100.0)
    assert why is not None
    assert why.limited is (status == 429)
    assert state.wait(ONE, 100.0 + seconds) == 0.0


@pytest.mark.promise("F-11")
def test_when_the_time_is_over_one_call_tries_and_a_failure_doubles_the_time() -> None:
    state, now = health(), 0.0
    fail(state, limited(5.0), now)
    for seconds in (10.0, 20.0, 40.0, 60.0, 60.0):
        now += state.wait(ONE, now)
        probe = state.enter(ONE, now)
        assert len(probe) == 1
        assert [state.wait(ONE, now) for _ in range(200)] == [PROBE_SECONDS] * 200
        state.failed(ONE, BROKEN, now, probe)
        assert state.wait(ONE, now) == seconds
    now += 60.0
    state.succeeded(ONE, state.enter(ONE, now))
    assert not state.circuits
    fail(state, limited(5.0), now)
    assert state.wait(ONE, now) == 5.0


@pytest.mark.promise("F-11")
def test_a_probe_that_is_told_of_a_longer_wait_believes_it() -> None:
    state = health()
    fail(state, limited(1.0), 0.0)
    state.failed(ONE, limited(30.0), 1.0, state.enter(ONE, 1.0))
    assert state.wait(ONE, 1.0) == 30.0


@pytest.mark.promise("F-11")
def test_a_probe_whose_client_leaves_lets_the_next_one_try() -> None:
    state = health()
    fail(state, limited(1.0), 0.0)
    probe = state.enter(ONE, 1.0)
    assert state.wait(ONE, 1.0) == PROBE_SECONDS
    state.released(probe)
    assert state.wait(ONE, 1.0) == 0.0
    assert len(state.enter(ONE, 1.0)) == 1


def test_calls_from_before_neither_end_a_cool_down_nor_double_it() -> None:
    state = health()
    old: Sequence[Circuit] = state.enter(ONE, 0.0)
    fail(state, limited(10.0), 0.0)
    state.succeeded(ONE, old)
    assert state.wait(ONE, 1.0) == 9.0
    for _ in range(50):
        state.failed(ONE, BROKEN, 1.0, old)
    assert state.wait(ONE, 1.0) == 9.0
    state.failed(ONE, limited(20.0), 1.0, old)
    assert state.wait(ONE, 1.0) == 20.0
    state.failed(ONE, limited(2.0), 1.0, old)
    assert state.wait(ONE, 1.0) == 20.0


@pytest.mark.promise("F-06")
def test_a_refused_key_is_left_alone_for_all_models_and_other_keys_are_not() -> None:
    state = health()
    fail(state, UpstreamError("no", code="upstream_credentials", upstream_status=401), 0.0)
    assert (state.wait(ONE, 0.0), state.wait(OTHER, 0.0), state.wait(TWO, 0.0)) == (5.0, 5.0, 0.0)


def test_an_address_is_left_alone_with_all_of_its_keys() -> None:
    state = health()
    for target in (ONE, TWO, OTHER):
        assert state.wait(target, 0.0) == 0.0
        fail(state, UpstreamUnreachable("no"), 0.0, target)
    assert [state.wait(target, 0.0) for target in (ONE, TWO, OTHER)] == [5.0] * 3


def test_an_address_is_never_left_alone_for_long() -> None:
    state, now, waits = health(), 0.0, []
    for _ in range(8):
        while not (wait := state.wait(ONE, now)):
            fail(state, UpstreamUnreachable("no"), now)
        waits.append(wait)
        now += wait
    assert waits == pytest.approx([5.0, 10.0, 20.0, 30.0, 30.0, 30.0, 30.0, 30.0])


def test_a_refusal_by_a_model_shows_that_its_address_and_its_key_are_well() -> None:
    state = health()
    for _ in range(2):
        fail(state, UpstreamUnreachable("no"), 0.0)
    fail(state, limited(None), 0.0)
    assert list(state.circuits) == [ONE]


def test_a_probe_of_the_address_that_meets_a_broken_model_finds_the_address_well() -> None:
    state = health()
    for _ in range(3):
        fail(state, UpstreamUnreachable("no"), 0.0)
    assert state.wait(TWO, 5.0) == 0.0
    probe = state.enter(ONE, 5.0)
    assert state.wait(TWO, 5.0) == PROBE_SECONDS
    state.failed(ONE, BROKEN, 5.0, probe)
    assert state.wait(TWO, 5.0) == 0.0


BLAMELESS: list[RelayError] = [
    UpstreamRefused("your fault", upstream_status=400),
    UpstreamRefused("no such thing", status=404, upstream_status=404),
    UpstreamError("no account is configured", code="upstream_unconfigured"),
    bad_arguments("calls[0]: x is missing"),
]
FAULTS: list[RelayError] = [
    BROKEN,
    UpstreamError("error in the stream", upstream_status=200),
    UpstreamError("not for you", code="upstream_credentials", upstream_status=403),
    UpstreamError("pay", code="upstream_credit", upstream_status=402),
    UpstreamTimeout("silence"),
    UpstreamProtocol("nonsense"),
    UpstreamHungUp("nothing"),
    limited(None),
]


@pytest.mark.parametrize("error", BLAMELESS, ids=lambda error: error.message)
def test_what_callers_can_bring_about_is_held_against_nobody(error: RelayError) -> None:
    state = health()
    for _ in range(100):
        fail(state, error, 0.0)
    assert not state.circuits


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: error.message)
def test_one_fault_shuts_nobody_and_several_in_a_row_do(error: RelayError) -> None:
    state = health()
    for wait in (0.0, 0.0, 5.0):
        fail(state, error, 0.0)
        assert state.wait(ONE, 0.0) == wait


def test_a_request_that_is_called_wrong_ends_a_cool_down_as_well_as_any_answer() -> None:
    state = health()
    fail(state, limited(1.0), 0.0)
    fail(state, BLAMELESS[0], 1.0)
    assert not state.circuits


def test_without_a_longest_time_nothing_is_left_alone() -> None:
    state = health(pace=Pace(failures=1, first=5.0, longest=0.0, least=0.0))
    for _ in range(20):
        fail(state, limited(30.0), 0.0)
        fail(state, UpstreamUnreachable("no"), 0.0)
        assert state.wait(ONE, 0.0) == 0.0


def test_what_failed_together_does_not_come_back_together() -> None:
    waits = set()
    for luck in (0.0, 0.5, 0.9):
        state = health(luck)
        for _ in range(3):
            fail(state, BROKEN, 0.0)
        waits.add(state.wait(ONE, 0.0))
    assert len(waits) == 3
    assert all(5.0 <= wait <= 5.5 for wait in waits)


def test_the_table_is_bounded_and_forgets() -> None:
    state = health()
    for number in range(CIRCUITS_KEPT + 100):
        fail(state, BROKEN, 0.0, Target(KEYS[0], str(number)))
    assert len(state.circuits) == CIRCUITS_KEPT
    fail(state, BROKEN, 2 * FORGET_SECONDS)
    assert list(state.circuits) == [ONE]


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from([*FAULTS, limited(7.0), limited(1e6)])), max_size=40))
def test_no_cool_down_is_longer_than_the_longest(steps: list[tuple[float, RelayError]]) -> None:
    state, now = health(luck=0.99), 0.0
    for pause, error in steps:
        now += pause
        if not state.wait(ONE, now):
            fail(state, error, now)
        assert 0 <= state.wait(ONE, now) <= PACE.longest + 1e-6


class Callers(RuleBasedStateMachine):
    """Many callers of one target, in any order: never two of them at a time find out whether it works again."""

    def __init__(self) -> None:
        super().__init__()
        self.state = health()
        self.now = 0.0
        self.running: list[Sequence[Circuit]] = []

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        if not self.state.wait(ONE, self.now):
            self.running.append(self.state.enter(ONE, self.now))

    @precondition(lambda self: self.running)
    @rule(
        place=st.integers(0, 5),
        end=st.sampled_from(["ok", "left", BROKEN, limited(3.0), UpstreamUnreachable("no"), BLAMELESS[0]]),
    )
    def end(self, place: int, end: str | RelayError) -> None:
        probes = self.running.pop(place % len(self.running))
        if isinstance(end, RelayError):
            self.state.failed(ONE, end, self.now, probes)
        elif end == "ok":
            self.state.succeeded(ONE, probes)
        else:
            self.state.released(probes)

    @invariant()
    def one_at_a_time(self) -> None:
        for circuit in self.state.circuits.values():
            held = sum(any(one is circuit for one in probes) for probes in self.running)
            assert held <= 1
            assert circuit.probing is (held == 1)
            if circuit.probing:
                assert circuit.seconds
        assert self.state.wait(ONE, self.now) <= PACE.longest + 1e-6


class TestCallers(Callers.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=60, stateful_step_count=40)
