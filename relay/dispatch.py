"""Which target now? One answer for every call: the model's order, its shares, its keys, its health, its policies.

`Dispatch` is what all calls share. A call whose first target has nothing against it asks `first`, and no more: that is
a look at an empty dictionary. Everything else is a `Course`: one call's way through its targets, from which each next
step is asked after each failure. Neither does I/O; a course says how long to wait, and whoever runs it waits.

What a course does after a failure:

* The next target that is not cooling down, at once. Nothing limits that: it is another place.
* Where no other is left, the same one again, after a pause, if its answer was one of those that pass, if it was asked
  less than `max_attempts` times, and if the retry budget has a place. The pause is never shorter than what it asked
  for. Another key of an upstream that could not be reached is no other place either.
* The end, if the fault is the request's, if it may have been carried out, or if the call's time is up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from relay.bound import Ordering
from relay.errors import (
    CoolingDown,
    NoSuchOperation,
    PluginError,
    RelayError,
    Unavailable,
    UpstreamError,
    UpstreamHungUp,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from relay.family import Target
from relay.health import Circuit, Health, Pace
from relay.limits import duration
from relay.retry import LONGEST_PAUSE, RetryBudget, backoff
from relay.routing import Group, PublicModel
from relay.settings import RoutingSettings

if TYPE_CHECKING:
    from asyncio import Timeout

__all__ = ["Course", "Dispatch"]

LEAST_RETRIES = 3
"""Retries that may be under way however few calls there are."""

log = logging.getLogger("relay.dispatch")


class Dispatch:
    """What all calls of a process know of its targets."""

    def __init__(
        self,
        settings: RoutingSettings,
        orderings: Sequence[Ordering],
        *,
        clock: Callable[[], float],
        luck: Callable[[], float],
        in_flight: Callable[[], int],
    ) -> None:
        self.orderings = orderings
        self.clock = clock
        self.luck = luck
        self.open = 0
        """Courses under way."""
        self._in_flight = in_flight
        self._turns: dict[object, int] = {}
        self.configure(settings)

    def configure(self, settings: RoutingSettings) -> None:
        """Route by these settings from now on, and hold nothing against anybody."""
        self.settings = settings
        self.health = Health(
            Pace(
                failures=settings.failures,
                first=settings.cool_down_seconds,
                longest=settings.max_cool_down_seconds,
                least=min(settings.backoff_seconds, settings.max_cool_down_seconds),
            ),
            self.luck,
        )
        self.budget = RetryBudget(settings.retry_budget, LEAST_RETRIES)

    def in_flight(self) -> int:
        """Calls under way, as far as that is known without counting them one by one."""
        return max(self.open, self._in_flight())

    def first(self, model: PublicModel, stream: bool) -> Target | None:
        """The target that a call asks first. None if something is known against it: a course tells what to do then."""
        target = model.first
        if target is None or self.orderings:
            target = next(self.order(model, stream), None)
        if target is not None and self.health.circuits and not self.health.spotless(target):
            return None
        return target

    def course(self, model: PublicModel, stream: bool, begun: float, asked: Target | None = None) -> Course:
        """A call's way. `asked`: the target that it asked already, without a course. `begun`: when the call came."""
        return Course(self, model, stream, begun, asked)

    def order(self, model: PublicModel, stream: bool) -> Iterator[Target]:
        """The model's targets in the order in which this call tries them, whatever their health."""
        if not self.orderings:
            return self._usual(model)
        found: Sequence[Target] = list(self._usual(model))
        for ordering in self.orderings:
            try:
                found = ordering.order(model.id, found, stream, self.clock())
            except PluginError:
                # It is in the log. The order that there was before is a good one.
                continue
        return iter(found)

    def likely(self, model: PublicModel) -> Sequence[Target]:
        """The targets one of which a call asks first now; each with the first of its keys, whichever it would get."""
        found: list[Target] = []
        for group in model.groups:
            found += [member[0] for member in group.members if self._ready(member)]
            # A policy may put any of them first.
            if found and not self.orderings:
                break
        return found

    def late(self) -> UpstreamTimeout:
        """The error of a call whose time is up."""
        seconds = self.settings.deadline_seconds
        return UpstreamTimeout(f"no upstream has answered within the {seconds:g} seconds that a call has")

    def seen(self, target: Target, stream: bool, seconds: float) -> None:
        """Tell the policies how long an answer took."""
        now = self.clock()
        for ordering in self.orderings:
            ordering.seen(target, stream, seconds, now)

    def _usual(self, model: PublicModel) -> Iterator[Target]:
        for number, group in enumerate(model.groups):
            for member in self._round(model, number, group):
                yield from self._rotated(member)

    def _round(self, model: PublicModel, number: int, group: Group) -> Iterator[tuple[Target, ...]]:
        """The group's members, beginning with the one whose turn it is."""
        wheel = group.wheel
        if len(wheel) == 1:
            yield group.members[0]
            return
        ready = wheel
        if self.health.circuits:
            well = {place for place, member in enumerate(group.members) if self._ready(member)}
            ready = tuple(place for place in wheel if place in well) or wheel
        turn = self._turn((model.id, number), len(ready))
        for place in dict.fromkeys((*ready[turn:], *ready[:turn], *wheel)):
            yield group.members[place]

    def _rotated(self, variants: tuple[Target, ...]) -> Iterable[Target]:
        """A target with each of its upstream's keys, beginning with the one whose turn it is."""
        if len(variants) == 1:
            return variants
        # Turns are taken by those that may be asked: else whoever stands behind one that cools down gets its calls,
        # too, all of them, and is the next to reach its limit.
        ready = self._ready(variants) or variants
        turn = self._turn(variants[0].upstream.name, len(ready))
        return dict.fromkeys((*ready[turn:], *ready[:turn], *variants))

    def _ready(self, variants: tuple[Target, ...]) -> tuple[Target, ...]:
        if not self.health.circuits:
            return variants
        now = self.clock()
        return tuple(target for target in variants if not self.health.wait(target, now))

    def _turn(self, place: object, length: int) -> int:
        turn = self._turns.get(place, 0) % length
        self._turns[place] = turn + 1
        return turn


class Course:
    """One call's way through its model's targets. `close` it in any case."""

    __slots__ = (
        "_budget",
        "_closed",
        "_counts",
        "_dispatch",
        "_due",
        "_faulty",
        "_later",
        "_model",
        "_pauses",
        "_probes",
        "_refused",
        "_rest",
        "_skipped",
        "_told",
        "deadline",
        "target",
        "timeout",
    )

    def __init__(
        self, dispatch: Dispatch, model: PublicModel, stream: bool, begun: float, asked: Target | None
    ) -> None:
        self._dispatch = dispatch
        self._model = model
        self._rest = dispatch.order(model, stream)
        self._counts: dict[Target, int] = {} if asked is None else {asked: 1}
        self._faulty: set[object] = set()
        """Addresses, and models at addresses, that another key would not help."""
        self._later: list[Target] = []
        """What may be asked again, or has not been asked because it is as good as asked."""
        self._skipped: list[Target] = []
        """What was cooling down when its turn came."""
        self._told: dict[Target, float] = {}
        """Until when targets have asked this call to wait. That holds whatever is held against them, or not."""
        self._probes: Sequence[Circuit] = ()
        self._due: Target | None = None
        self._refused: RelayError | None = None
        self._budget: RetryBudget | None = None
        """What this course has a place of."""
        self._pauses = 0
        self._closed = False
        self.deadline = begun + dispatch.settings.deadline_seconds
        """Until when the answer, or the first output of a stream, must be there; in monotonic seconds."""
        self.target = asked
        """The target that is being asked."""
        self.timeout: Timeout | None = None
        """What ends the attempt at the deadline."""
        dispatch.open += 1

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - self._dispatch.clock()

    def next(self) -> Target | float:
        """The target to ask now, or how many seconds to wait before asking this again.

        Raises what there is to tell the client if there is no other: the last refusal, or CoolingDown.
        """
        now = self._dispatch.clock()
        health = self._dispatch.health
        due, self._due = self._due, None
        if due is not None:
            if now < self.deadline and not health.wait(due, now):
                return self._go(due, now)
            raise self._end(now)
        if now >= self.deadline:
            raise self._end(now)
        for target in self._rest:
            if target in self._counts:
                continue
            if not self._faulty.isdisjoint(_places(target)):
                self._later.append(target)
            elif health.wait(target, now):
                self._skipped.append(target)
            else:
                return self._go(target, now)
        return self._again(now)

    def _again(self, now: float) -> float:
        """The pause before the same place is asked once more. Raises if it is not to be."""
        dispatch = self._dispatch
        most = dispatch.settings.max_attempts
        waits = [
            (self._wait(target, now), number, target)
            for number, target in enumerate(self._later)
            if self._counts.get(target, 0) < most
        ]
        if self._pauses >= most - 1 or not waits:
            raise self._end(now)
        wait, number, target = min(waits)
        pause = max(wait, backoff(self._pauses + 1, dispatch.settings.backoff_seconds, dispatch.luck()))
        if pause > LONGEST_PAUSE or now + pause >= self.deadline or not dispatch.budget.take(dispatch.in_flight()):
            raise self._end(now)
        self._budget = dispatch.budget
        self._pauses += 1
        self._due = target
        del self._later[number]
        return pause

    def _wait(self, target: Target, now: float) -> float:
        """Seconds until this call may ask a target again."""
        return max(self._dispatch.health.wait(target, now), self._told.get(target, now) - now)

    def _go(self, target: Target, now: float) -> Target:
        self.target = target
        self._counts[target] = self._counts.get(target, 0) + 1
        self._probes = self._dispatch.health.enter(target, now)
        return target

    def failed(self, error: RelayError) -> None:
        """The target that was asked did not answer, or with an error. Raises it if no other may be asked."""
        target = self.target
        if target is None:
            raise AssertionError("nothing fails before it was asked")
        probes, self._probes = self._probes, ()
        self._dispatch.health.failed(target, error, self._dispatch.clock(), probes)
        self._repay()
        if isinstance(error, NoSuchOperation):
            # What another target had to say of the request counts more than that this one cannot be asked.
            self._refused = self._refused or error
            return
        resent = isinstance(error, UpstreamHungUp) and target.upstream.resend
        if not isinstance(error, UpstreamError) or not (error.retryable or resent):
            raise error
        self._refused = error
        if error.retry_after is not None:
            self._told[target] = self._dispatch.clock() + error.retry_after
        address, model, _ = _places(target)
        status = error.upstream_status
        if isinstance(error, UpstreamUnreachable):
            self._faulty.add(address)
        elif resent or status in target.upstream.retried:
            # A rate limit is a key's own; what else is wrong with a model is so whoever asks.
            self._faulty.add(target if status == 429 else model)
        else:
            return
        self._later.append(target)

    def answered(self) -> None:
        """The target has answered: its circuits close, and the deadline is met. May be told more than once.

        Raises UpstreamTimeout if that comes too late: the attempt is being ended already.
        """
        if self.timeout is not None:
            if self.timeout.expired():
                raise self.late()
            self.timeout.reschedule(None)
            self.timeout = None
        self._repay()
        if self.target is not None:
            probes, self._probes = self._probes, ()
            self._dispatch.health.succeeded(self.target, probes)

    def late(self) -> UpstreamTimeout:
        """The error of an attempt that the deadline has ended."""
        error = self._dispatch.late()
        # It is only the target's fault if it had all of the time for itself.
        error.blames = sum(self._counts.values()) == 1
        return error

    def close(self) -> None:
        """The call goes no further, whatever became of it."""
        if self._closed:
            return
        self._closed = True
        self._dispatch.open -= 1
        probes, self._probes = self._probes, ()
        self._dispatch.health.released(probes)
        self._repay()

    def _repay(self) -> None:
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.give()

    def _end(self, now: float) -> RelayError:
        """What the client is told."""
        health = self._dispatch.health
        known = [*self._counts, *self._skipped, *self._later]
        waits = [wait for target in known if (wait := health.wait(target, now))]
        soonest = min(waits, default=0.0)
        refused = self._refused
        if refused is None and not self._skipped:
            return Unavailable(f"the model {self._model.id!r} has no target")
        if refused is None:
            reasons = [circuit for target in self._skipped if (circuit := health.why(target, now)) is not None]
            codes = ", ".join(dict.fromkeys(circuit.code for circuit in reasons))
            return CoolingDown(
                f"every target of the model {self._model.id!r} has failed a moment ago ({codes}); "
                f"the first is asked again in {duration(soonest)}",
                retry_after=soonest,
                limited=all(circuit.limited for circuit in reasons),
            )
        if refused.status in (429, 503) and len(waits) == len(known):
            refused.retry_after = soonest
        elif refused.status in (429, 503) and refused.retry_after is None:
            refused.retry_after = self._dispatch.settings.backoff_seconds
        return refused


def _places(target: Target) -> tuple[object, object, object]:
    """What a fault may be of: the address, the model there, the model there with this key."""
    name = target.upstream.name
    return name, (name, target.model), target
