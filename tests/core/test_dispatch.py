from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from relay import Target, Upstream
from relay.bound import Ordering
from relay.dispatch import Course, Dispatch
from relay.errors import (
    CoolingDown,
    NoSuchOperation,
    RelayError,
    Unavailable,
    UpstreamBusy,
    UpstreamError,
    UpstreamHungUp,
    UpstreamProtocol,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from relay.routing import PublicModel
from relay.secret import Secret
from relay.settings import RoutingSettings

A, B, C = (Upstream(name, "x", f"http://{name}") for name in "abc")


def pooled(name: str, keys: int) -> Upstream:
    """An upstream with several keys."""
    pool = tuple(Upstream(name, "x", f"http://{name}", Secret(f"k{n}"), key_number=n) for n in range(1, keys + 1))
    return replace(pool[0], pool=pool[1:])


def model(*upstreams: Upstream, weights: tuple[int, ...] = ()) -> PublicModel:
    return PublicModel("m", tuple(Target(upstream, "x") for upstream in upstreams), weights=weights)


class Bench:
    """A dispatch whose time stands still until it is moved."""

    def __init__(self, orderings: Sequence[Ordering] = (), *, in_flight: int = 0, **settings: Any) -> None:
        self.now = 1000.0
        self.dispatch = Dispatch(
            RoutingSettings(**settings),
            orderings,
            clock=lambda: self.now,
            luck=lambda: 0.0,
            in_flight=lambda: in_flight,
        )

    def course(self, model: PublicModel, asked: Target | None = None) -> Course:
        return self.dispatch.course(model, False, self.now, asked)

    def go(
        self, model: PublicModel, answer: Callable[[Target], RelayError | None], asked: Target | None = None
    ) -> tuple[list[str], RelayError | None]:
        """One call to its end: whom it asked, and what is left to say."""
        course, trail = self.course(model, asked), []
        try:
            while True:
                step = course.next()
                if not isinstance(step, Target):
                    trail.append("...")
                    self.now += step
                    continue
                trail.append(shown(step))
                error = answer(step)
                if error is None:
                    course.answered()
                    return trail, None
                course.failed(error)
        except RelayError as error:
            return trail, error
        finally:
            course.close()


def shown(target: Target) -> str:
    number = target.upstream.key_number
    return f"{target.upstream.name}{number}" if number else target.upstream.name


def always(error: RelayError | None) -> Callable[[Target], RelayError | None]:
    return lambda target: error


def only(*names: str, error: RelayError) -> Callable[[Target], RelayError | None]:
    """All targets answer but these."""
    return lambda target: error if shown(target) in names else None


def broken(status: int = 500) -> UpstreamError:
    return UpstreamError("broken", upstream_status=status)


def limited(seconds: float | None = None) -> UpstreamBusy:
    return UpstreamBusy("slow down", retry_after=seconds, upstream_status=429)


# The order.


def test_targets_are_asked_in_their_order_and_each_at_once() -> None:
    assert Bench().go(model(A, B, C), only("a", "b", error=broken())) == (["a", "b", "c"], None)


def test_neighbours_share_by_their_weights_exactly_and_the_others_follow() -> None:
    bench, shared = Bench(), model(A, B, C, weights=(3, 1, 0))
    firsts = Counter(bench.go(shared, always(None))[0][0] for _ in range(400))
    assert firsts == {"a": 300, "b": 100}
    trails = {tuple(bench.go(shared, only("a", "b", error=limited()))[0]) for _ in range(2)}
    assert trails <= {("a", "b", "c"), ("b", "a", "c")}


def test_the_share_of_what_cools_down_goes_to_all_of_its_neighbours_alike() -> None:
    bench, shared = Bench(), model(A, B, C, weights=(1, 1, 1))
    bench.go(shared, only("a", error=limited(30)))
    firsts = Counter(bench.go(shared, always(None))[0][0] for _ in range(300))
    assert firsts == {"b": 150, "c": 150}


def test_the_share_of_a_key_that_cools_down_goes_to_all_others_alike() -> None:
    bench, up = Bench(), pooled("up", 4)
    bench.go(model(up), only("up1", error=limited(30)))
    firsts = Counter(bench.go(model(up), always(None))[0][0] for _ in range(300))
    assert firsts == {"up2": 100, "up3": 100, "up4": 100}


def test_an_upstreams_keys_take_turns_over_all_of_its_models() -> None:
    bench, up = Bench(), pooled("up", 3)
    models = [PublicModel(name, (Target(up, name),)) for name in ("x", "y")]
    asked = [bench.go(models[number % 2], always(None))[0][0] for number in range(6)]
    assert asked == ["up1", "up2", "up3", "up1", "up2", "up3"]


def test_nothing_of_that_is_asked_where_there_is_one_target() -> None:
    bench, plain = Bench(), model(A)
    first = bench.dispatch.first(plain, False)
    assert first is plain.targets[0]
    assert plain._groups == ()


def test_first_is_what_a_course_would_ask_and_none_once_anything_is_known_against_it() -> None:
    bench, shared = Bench(), model(A, B, weights=(1, 1))
    firsts = [bench.dispatch.first(shared, False) for _ in range(4)]
    assert [shown(first) for first in firsts if first] == ["a", "b", "a", "b"]
    bench.go(model(A), always(UpstreamRefused("no", upstream_status=400)))
    assert bench.dispatch.first(model(A), False) is not None
    bench.go(model(A), always(broken()))
    assert bench.dispatch.first(model(A), False) is None
    assert bench.dispatch.first(model(B), False) is not None


class Backwards:
    def order(self, model: str, targets: Sequence[Target], stream: bool, now: float) -> Sequence[Target]:
        return targets[::-1]

    def seen(self, target: Target, stream: bool, seconds: float, now: float) -> None:
        raise RuntimeError("a policy's bug")


class Wrong(Backwards):
    def __init__(self, found: Callable[[Sequence[Target]], Any]) -> None:
        self.found = found

    def order(self, model: str, targets: Sequence[Target], stream: bool, now: float) -> Sequence[Target]:
        found: Sequence[Target] = self.found(targets)
        return found


def test_policies_order_one_after_the_other_and_may_leave_targets_out() -> None:
    once = [Ordering("one", Backwards())]
    assert Bench(once).go(model(A, B, C), always(limited(60)))[0] == ["c", "b", "a"]
    assert Bench([*once, *once]).go(model(A, B, C), always(limited(60)))[0] == ["a", "b", "c"]
    fewer = Ordering("fewer", Wrong(lambda targets: targets[1:]))
    assert Bench([fewer]).go(model(A, B, C), always(limited(60)))[0] == ["b", "c"]
    assert shown(Bench(once).dispatch.first(model(A, B), False) or Target(C, "")) == "b"


@pytest.mark.promise("A-09")
@pytest.mark.parametrize(
    "found",
    [
        lambda targets: [Target(C, "forbidden"), *targets],
        lambda targets: [Target(A, "x"), Target(A, "x")],
        lambda targets: 1 / 0,
        lambda targets: None,
        lambda targets: "ab",
    ],
    ids=["foreign", "twice", "raises", "nothing", "no targets"],
)
def test_a_policy_that_leaves_the_models_targets_is_not_followed(found: Callable[[Sequence[Target]], Any]) -> None:
    bench = Bench([Ordering("wrong", Wrong(found))])
    assert bench.go(model(A, B), always(limited(60)))[0] == ["a", "b"]
    bench.dispatch.seen(Target(A, "x"), False, 1.0)


# After a failure.


@pytest.mark.promise("F-07")
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_a_refusal_that_passes_is_asked_again_after_a_pause_and_only_so_often(status: int) -> None:
    bench = Bench(max_attempts=3, failures=9)
    assert bench.go(model(A), always(broken(status)))[0] == ["a", "...", "a", "...", "a"]
    assert bench.now == pytest.approx(1000 + 0.125 + 0.25)
    assert Bench(max_attempts=1).go(model(A), always(broken(status)))[0] == ["a"]


@pytest.mark.promise("F-07")
def test_another_target_comes_before_the_same_one_again() -> None:
    bench = Bench()
    assert bench.go(model(A, B), always(broken()))[0] == ["a", "b", "...", "a"]


@pytest.mark.parametrize("status", [401, 402, 403, 405, 409, 501, 505, 200])
def test_other_refusals_are_for_another_target_and_not_asked_again(status: int) -> None:
    assert Bench().go(model(A, B), always(broken(status)))[0] == ["a", "b"]


def test_the_statuses_that_are_asked_again_can_be_listed() -> None:
    picky = replace(A, retried=frozenset({501}))
    assert Bench().go(model(picky), always(broken(501)))[0] == ["a", "...", "a"]
    assert Bench().go(model(picky), always(broken(500)))[0] == ["a"]


FINAL = {
    "400": UpstreamRefused("wrong", upstream_status=400),
    "404": UpstreamRefused("what?", status=404, upstream_status=404),
    "422": UpstreamRefused("wrong", status=422, upstream_status=422),
    "timeout": UpstreamTimeout("silence"),
    "cut": UpstreamProtocol("half of it"),
    "hung up": UpstreamHungUp("nothing"),
}


@pytest.mark.promise("F-06")
@pytest.mark.parametrize("case", FINAL)
def test_what_is_wrong_with_the_request_or_may_have_run_is_never_asked_again_of_anybody(case: str) -> None:
    assert Bench().go(model(A, B), always(FINAL[case])) == (["a"], FINAL[case])


@pytest.mark.promise("F-04")
@pytest.mark.promise("F-05")
def test_only_an_upstream_that_says_so_is_sent_again_what_it_hung_up_on() -> None:
    again = replace(A, resend=True)
    assert Bench().go(model(again, B), always(UpstreamHungUp("nothing")))[0] == ["a", "b"]
    assert Bench().go(model(again), always(UpstreamHungUp("nothing")))[0] == ["a", "...", "a"]
    assert Bench().go(model(again), always(UpstreamProtocol("half of it")))[0] == ["a"]


def test_nothing_was_sent_so_it_is_asked_again() -> None:
    assert Bench().go(model(A), always(UpstreamUnreachable("no")))[0] == ["a", "...", "a"]


def test_another_key_is_another_place_for_a_limit_and_not_for_an_address_or_a_broken_model() -> None:
    up = pooled("up", 3)
    assert Bench().go(model(up), always(limited()))[0] == ["up1", "up2", "up3", "...", "up1"]
    assert Bench().go(model(up), always(broken(401)))[0] == ["up1", "up2", "up3"]
    assert Bench().go(model(up, B), always(UpstreamUnreachable("no")))[0] == ["up1", "b", "...", "up1"]
    assert Bench().go(model(up, B), always(broken()))[0] == ["up1", "b", "...", "up1"]


def test_an_operation_that_a_target_lacks_is_asked_of_the_next_and_told_only_if_nothing_else_is() -> None:
    lacking = NoSuchOperation("it makes none")
    assert Bench().go(model(A, B), only("a", error=lacking)) == (["a", "b"], None)
    assert Bench().go(model(A), always(lacking)) == (["a"], lacking)
    busy = limited()
    bench = Bench(max_attempts=1)
    assert bench.go(model(A, B), lambda target: busy if shown(target) == "a" else lacking) == (["a", "b"], busy)


def test_the_call_that_comes_from_the_lane_goes_on_where_it_was() -> None:
    bench, shared = Bench(), model(A, B, C)
    course = bench.course(shared, shared.targets[0])
    course.failed(broken())
    step = course.next()
    assert isinstance(step, Target)
    assert shown(step) == "b"
    course.close()
    assert bench.dispatch.open == 0


# Time and budget.


def test_no_pause_goes_over_the_deadline_and_no_attempt_begins_behind_it() -> None:
    assert Bench(deadline_seconds=0.1).go(model(A), always(broken()))[0] == ["a"]
    bench = Bench(deadline_seconds=10)

    def slow(target: Target) -> RelayError:
        bench.now += 11
        return broken()

    assert bench.go(model(A, B), slow)[0] == ["a"]


def test_a_short_wait_is_waited_for_and_a_long_one_is_left_to_the_client() -> None:
    bench = Bench()
    trail, error = bench.go(model(A), lambda target: limited(2.0) if bench.now < 1001 else None)
    assert (trail, error) == (["a", "...", "a"], None)
    assert bench.now == pytest.approx(1002)
    trail, error = Bench().go(model(A), always(limited(6.0)))
    assert trail == ["a"]
    assert error is not None
    assert error.retry_after == pytest.approx(6.0)


@pytest.mark.promise("F-08")
def test_of_a_hundred_calls_that_fail_at_once_a_fifth_is_asked_again() -> None:
    bench, down = Bench(in_flight=100, failures=1000), model(A)
    courses = [bench.course(down) for _ in range(100)]
    attempts, waiting = 0, []
    for course in courses:
        assert isinstance(course.next(), Target)
        attempts += 1
    for course in courses:
        course.failed(UpstreamUnreachable("no"))
        try:
            assert isinstance(course.next(), float)
            waiting.append(course)
        except UpstreamUnreachable:
            course.close()
    bench.now += 1
    for course in waiting:
        assert isinstance(course.next(), Target)
        attempts += 1
        course.failed(UpstreamUnreachable("no"))
        with pytest.raises(UpstreamUnreachable):
            course.next()
        course.close()
    assert attempts == 120
    assert (bench.dispatch.budget.taken, bench.dispatch.open) == (0, 0)


def test_a_place_in_the_budget_comes_back_however_the_call_ends() -> None:
    for end in ("answered", "failed", "left", "left while waiting"):
        bench = Bench()
        course = bench.course(model(A))
        course.next()
        course.failed(broken())
        assert isinstance(course.next(), float)
        assert bench.dispatch.budget.taken == 1
        bench.now += 1
        if end != "left while waiting":
            course.next()
        if end == "answered":
            course.answered()
        if end == "failed":
            course.failed(broken())
        course.close()
        course.close()
        assert (bench.dispatch.budget.taken, bench.dispatch.open) == (0, 0), end


def test_the_deadlines_own_error_blames_only_a_target_that_had_all_of_the_time() -> None:
    bench = Bench(failures=1)
    course = bench.course(model(A, B))
    course.next()
    assert course.late().blames
    course.failed(limited())
    course.next()
    assert not course.late().blames


# Cooling down.


@pytest.mark.promise("F-10")
def test_if_all_cool_down_the_answer_comes_at_once_with_the_soonest_time() -> None:
    bench, three = Bench(), model(A, B, C)
    waits = {"a": 30.0, "b": 20.0, "c": 40.0}
    trail, error = bench.go(three, lambda target: limited(waits[shown(target)]))
    assert trail == ["a", "b", "c"]
    assert error is not None
    assert (error.status, error.retry_after) == (429, pytest.approx(20.0))
    bench.now += 5
    trail, error = bench.go(three, always(None))
    assert trail == []
    assert isinstance(error, CoolingDown)
    assert (error.status, error.type, error.retry_after) == (429, "rate_limit_exceeded", pytest.approx(15.0))
    assert "15s" in error.message


@pytest.mark.promise("F-10")
def test_if_not_all_are_over_their_limits_it_is_a_503() -> None:
    bench = Bench(failures=1, cool_down_seconds=6)
    bench.go(model(A, B), lambda target: limited(30.0) if shown(target) == "a" else broken())
    trail, error = bench.go(model(A, B), always(None))
    assert trail == []
    assert isinstance(error, CoolingDown)
    assert (error.status, error.retry_after) == (503, pytest.approx(6.0))
    assert "upstream_rate_limited, upstream_error" in error.message


def test_what_is_told_to_wait_always_says_how_long() -> None:
    for error in (limited(), UpstreamBusy("later", status=503, upstream_status=503)):
        _, said = Bench(max_attempts=1).go(model(A), always(error))
        assert said is error
        assert error.retry_after == 0.25


@pytest.mark.promise("F-11")
def test_of_200_callers_exactly_one_finds_out_whether_a_target_is_back() -> None:
    bench, one = Bench(), model(A)
    bench.go(one, always(limited(10.0)))
    for wait in (10.0, 20.0, 40.0):
        bench.now += wait
        probe = bench.course(one)
        assert isinstance(probe.next(), Target)
        refusals = [bench.go(one, always(None)) for _ in range(199)]
        assert all(trail == [] and isinstance(error, CoolingDown) for trail, error in refusals)
        probe.failed(limited(1.0))
        with pytest.raises(UpstreamBusy):
            probe.next()
        probe.close()
        _, error = bench.go(one, always(None))
        assert error is not None
        assert error.retry_after == pytest.approx(2 * wait)
    bench.now += 80.0
    assert bench.go(one, always(None)) == (["a"], None)
    assert [bench.go(one, always(None)) for _ in range(200)] == [(["a"], None)] * 200
    assert not bench.dispatch.health.circuits


@pytest.mark.promise("F-12")
def test_what_has_cooled_down_in_the_middle_of_a_call_is_not_asked_again() -> None:
    bench = Bench()
    assert bench.go(model(A, B, C), only("a", "b", error=limited(1.0)))[0] == ["a", "b", "c"]
    bench = Bench()
    course = bench.course(model(A, B, C))
    assert shown(step(course)) == "a"
    # Somebody else finds that B is over its limits, while this call waits for A.
    bench.go(model(B), always(limited(30.0)))
    course.failed(broken())
    assert shown(step(course)) == "c"
    course.close()


@pytest.mark.promise("F-12")
def test_health_is_looked_at_again_after_each_pause() -> None:
    bench = Bench()
    course = bench.course(model(A))
    step(course)
    course.failed(broken())
    pause = course.next()
    assert isinstance(pause, float)
    bench.go(model(A), always(limited(30.0)))
    bench.now += pause
    with pytest.raises(UpstreamError, match="broken"):
        course.next()
    course.close()


@pytest.mark.promise("F-06")
def test_a_refused_key_cools_down_and_its_neighbours_go_on() -> None:
    bench, up = Bench(), pooled("up", 2)
    other = PublicModel("n", (Target(up, "y"),))
    refused = UpstreamError("no", code="upstream_credentials", upstream_status=401)
    assert bench.go(model(up), only("up1", error=refused)) == (["up1", "up2"], None)
    assert [bench.go(other, always(None))[0] for _ in range(4)] == [["up2"]] * 4
    trail, error = bench.go(model(up), always(refused))
    assert (trail, error) == (["up2"], refused)
    _, error = bench.go(model(up), always(None))
    assert isinstance(error, CoolingDown)
    assert (error.status, error.retry_after) == (503, pytest.approx(5.0))


def test_a_probe_is_given_back_when_its_client_leaves() -> None:
    bench, one = Bench(), model(A)
    bench.go(one, always(limited(10.0)))
    bench.now += 10
    probe = bench.course(one)
    step(probe)
    probe.close()
    assert bench.go(one, always(None)) == (["a"], None)


def test_new_settings_hold_nothing_against_anybody_and_leave_running_calls_whole() -> None:
    bench, one = Bench(), model(A)
    course = bench.course(one)
    step(course)
    course.failed(broken())
    assert isinstance(course.next(), float)
    bench.go(model(B), always(limited(60.0)))
    bench.dispatch.configure(RoutingSettings(max_attempts=1))
    course.close()
    assert bench.dispatch.budget.taken == 0
    assert bench.go(model(B), always(broken()))[0] == ["b"]


def test_a_model_without_targets_is_not_available() -> None:
    trail, error = Bench().go(PublicModel("m", ()), always(None))
    assert trail == []
    assert type(error) is Unavailable


def step(course: Course) -> Target:
    found = course.next()
    assert isinstance(found, Target)
    return found


# What a target asks for.


@pytest.mark.promise("F-09")
@pytest.mark.parametrize("settings", [{}, {"max_cool_down_seconds": 0}, {"max_cool_down_seconds": 0.1}])
def test_the_same_target_is_not_asked_again_before_it_wants_to_be(settings: dict[str, Any]) -> None:
    for wait in (0.0, 0.3, 2.0, 4.9):
        bench = Bench(**settings)
        answers = iter([limited(wait), None])
        began = bench.now
        assert bench.go(model(A), lambda _: next(answers)) == (["a", "...", "a"], None)  # noqa: B023
        assert bench.now - began >= wait - 1e-9
    # Another one has not asked for anything.
    bench = Bench(**settings)
    assert bench.go(model(A, B), only("a", error=limited(60.0))) == (["a", "b"], None)
    assert bench.now == 1000.0
    # What would take too long is left to the client, who is told.
    bench = Bench(**settings)
    trail, error = bench.go(model(A), always(limited(5.1)))
    assert trail == ["a"]
    assert error is not None
    assert error.retry_after is not None
    assert error.retry_after > 0


@pytest.mark.promise("F-09")
def test_that_somebody_else_was_served_meanwhile_does_not_shorten_the_wait() -> None:
    bench, one = Bench(), model(A)
    course = bench.course(one)
    target = course.next()
    assert isinstance(target, Target)
    course.failed(limited(2.0))
    pause = course.next()
    assert isinstance(pause, float)
    bench.dispatch.health.circuits.clear()
    assert pause >= 2.0
    course.close()
    second = bench.course(one)
    assert isinstance(second.next(), Target)
    second.failed(limited(2.0))
    bench.dispatch.health.circuits.clear()
    pause = second.next()
    assert isinstance(pause, float)
    assert pause >= 2.0
    second.close()
