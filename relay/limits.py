"""Token buckets: requests a minute, tokens a minute, calls at a time. Sans-IO; `now` is always an argument.

Before a call, `Limiter.reserve` takes one request and the estimated tokens from every bucket that applies, or from
none of them. After it, `Reservation.settle` corrects the tokens by what was really used. Buckets refill continuously,
so there is no edge of a minute at which everybody may burst twice.

A bucket holds one minute's worth. Real usage above the estimate makes it negative (a debt, at most one bucket deep)
that later calls wait for; usage below it comes back at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from relay.errors import RateLimited

__all__ = ["Level", "Limiter", "Limits", "Reservation", "Scope", "View", "duration"]


ENDLESS = math.inf
SWEEP = 1024
"""Calls that end between two looks for states that say nothing any more, at least."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests a minute, tokens a minute, calls at a time. 0 means that there is no such limit."""

    rpm: int = 0
    tpm: int = 0
    concurrency: int = 0

    def __bool__(self) -> bool:
        return bool(self.rpm or self.tpm or self.concurrency)


class Scope:
    """Whom limits apply to: a key, a model, or a key's use of a model. `name` is what an error calls it."""

    __slots__ = ("limits", "name", "place")

    def __init__(self, name: str, id: Hashable, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.place = (name, id)
        """Where its state is kept: equal for equal names and ids."""


class State:
    """What a scope has used so far: its two buckets, and its calls under way.

    Where there is no limit, there is no end to what the bucket holds, and it refills by nothing: so nobody need ask.
    """

    __slots__ = ("at", "limits", "most", "request_rate", "requests", "rpm", "running", "token_rate", "tokens", "tpm")

    def __init__(self, limits: Limits, now: float) -> None:
        self.running = 0
        self.at = now
        """When both buckets were refilled last."""
        self.requests = self.tokens = self.rpm = self.tpm = ENDLESS
        """What is in them, and what there is room for."""
        self.limit(limits)

    def limit(self, limits: Limits) -> None:
        """Set what there may be; what was used stays used."""
        self.limits = limits
        rpm, tpm = limits.rpm or ENDLESS, limits.tpm or ENDLESS
        self.requests, self.tokens = _level(self.requests, self.rpm, rpm), _level(self.tokens, self.tpm, tpm)
        self.rpm, self.tpm = rpm, tpm
        self.request_rate, self.token_rate = limits.rpm / 60.0, limits.tpm / 60.0
        self.most = limits.concurrency or ENDLESS

    def refill(self, now: float) -> None:
        """Bring the buckets up to date. A clock that went back refills nothing and takes nothing."""
        elapsed = now - self.at
        if elapsed > 0:
            self.requests = min(self.rpm, self.requests + elapsed * self.request_rate)
            self.tokens = min(self.tpm, self.tokens + elapsed * self.token_rate)
            self.at = now


def _level(level: float, before: float, after: float) -> float:
    """What is in a bucket that had room for `before` and has room for `after` now. Debt ends at one full bucket."""
    if before == ENDLESS or after == ENDLESS:
        return after
    return max(after - (before - level), -after)


def _wait(missing: float, rate: float) -> float:
    """Seconds until what is missing is there; 0 if nothing is."""
    # A hair of slack: a caller who waits exactly as told must not be refused for a rounding error.
    return missing / rate if missing > 1e-6 else 0.0


Level = tuple[int, int, float]
"""What a `View` holds. To make one of those takes as long as all else that is told of limits."""


class View(NamedTuple):
    """The tightest of several buckets as a caller may know it: whole units, and seconds until it is full."""

    limit: int
    remaining: int
    reset: float


class Reservation:
    """What one call holds. Settle it exactly once; later calls of `settle` do nothing."""

    __slots__ = ("_limiter", "_open", "_states", "_tokens")

    def __init__(self, limiter: Limiter, states: list[State], tokens: int) -> None:
        self._limiter = limiter
        self._states = states
        self._tokens = tokens
        self._open = True

    def settle(self, tokens: int, now: float) -> None:
        """The call is over and used `tokens`: correct the buckets and free the place."""
        if not self._open:
            return
        self._open = False
        missing = tokens - self._tokens
        for state in self._states:
            state.running -= 1
            if missing:
                # `refill` and what was missing, written out: this runs for every call.
                level, most, elapsed = state.tokens - missing, state.tpm, now - state.at
                if elapsed > 0:
                    level += elapsed * state.token_rate
                    requests = state.requests + elapsed * state.request_rate
                    state.requests = requests if requests < state.rpm else state.rpm
                    state.at = now
                state.tokens = most if level > most else level if level > -most else -most
        self._limiter.ended(now)

    def views(self) -> tuple[View | None, View | None]:
        """The tightest request bucket and the tightest token bucket, as of the reservation."""
        return _views(self._states)

    def levels(self) -> tuple[Level | None, Level | None]:
        """The same, as plain tuples."""
        return _levels(self._states)


def _views(states: Sequence[State]) -> tuple[View | None, View | None]:
    requests, tokens = _levels(states)
    return None if requests is None else View(*requests), None if tokens is None else View(*tokens)


def _levels(states: Sequence[State]) -> tuple[Level | None, Level | None]:
    if not states:
        return None, None
    one = two = states[0]
    if len(states) > 1:
        one, two = min(states, key=lambda state: state.requests), min(states, key=lambda state: state.tokens)
    requests = tokens = None
    if rate := one.request_rate:
        level = one.requests
        requests = one.limits.rpm, int(level + 1e-6) if level > 0 else 0, (one.rpm - level) / rate
    if rate := two.token_rate:
        level = two.tokens
        tokens = two.limits.tpm, int(level + 1e-6) if level > 0 else 0, (two.tpm - level) / rate
    return requests, tokens


class Limiter:
    """All buckets of one process. States of scopes that are full and idle are dropped, so memory follows use."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, Hashable], State] = {}
        self._ended = 0
        self._sweep = self._due = SWEEP
        self._listener: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self._states)

    def running(self) -> int:
        """Places taken over all scopes: 0 when nothing is in flight."""
        return sum(state.running for state in self._states.values())

    def reserve(self, scopes: Sequence[Scope], tokens: int, now: float) -> Reservation:
        """Take one request, `tokens` tokens and one place from every scope, or raise RateLimited and take nothing."""
        states = []
        for scope in scopes:
            state = self._states.get(scope.place)
            if state is None or state.limits is not scope.limits:
                state = self._state(scope, now)
            states.append(state)
            # `refill`, written out: this runs for every call.
            elapsed = now - state.at
            if elapsed > 0:
                level = state.requests + elapsed * state.request_rate
                state.requests = level if level < state.rpm else state.rpm
                level = state.tokens + elapsed * state.token_rate
                state.tokens = level if level < state.tpm else state.tpm
                state.at = now
            if state.requests < 1 or state.tokens < tokens or state.running >= state.most:
                states = self._all(scopes, now)
                _refuse(scopes, states, tokens)
                break
        for state in states:
            state.running += 1
            state.requests -= 1
            state.tokens -= tokens
        return Reservation(self, states, tokens)

    def views(self, scopes: Sequence[Scope], now: float) -> tuple[View | None, View | None]:
        """The tightest request bucket and the tightest token bucket of these scopes, for the rate-limit headers."""
        return _views(self._all(scopes, now))

    def _all(self, scopes: Sequence[Scope], now: float) -> list[State]:
        """The states of these scopes, up to date."""
        states = [self._state(scope, now) for scope in scopes]
        for state in states:
            state.refill(now)
        return states

    def _state(self, scope: Scope, now: float) -> State:
        """The scope's state, with the limits that it has now."""
        state = self._states.get(scope.place)
        if state is None:
            state = self._states[scope.place] = State(scope.limits, now)
        elif state.limits is not scope.limits:
            state.refill(now)
            state.limit(scope.limits)
        return state

    def ended(self, now: float) -> None:
        """A call has ended. Now and then, drop every state that says nothing any more."""
        self._ended += 1
        if self._ended < self._due:
            return
        if self._listener is not None:
            self._listener()
            if self._ended < self._sweep:
                return
        self._ended = 0
        for place, state in list(self._states.items()):
            state.refill(now)
            if state.running == 0 and state.requests >= state.rpm and state.tokens >= state.tpm:
                del self._states[place]
        # Growing with the table, so that the look through all of it costs each call the same little bit.
        self._sweep = SWEEP + len(self._states) // 2
        self._due = self._sweep if self._listener is None else 0

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Who is told of each call that ends, as soon as its places are free. None: nobody, which costs nothing."""
        self._listener = listener
        self._due = self._sweep if listener is None else 0


def _refuse(scopes: Sequence[Scope], states: Sequence[State], tokens: int) -> None:
    """Raise the refusal with the longest wait, if any scope really refuses."""
    refusals = [_refusal(scope, state, tokens) for scope, state in zip(scopes, states, strict=True)]
    refused = [refusal for refusal in refusals if refusal is not None]
    if refused:
        raise max(refused, key=lambda refusal: refusal.retry_after or 0)


def _refusal(scope: Scope, state: State, tokens: int) -> RateLimited | None:
    limits = scope.limits
    if state.running >= state.most:
        return RateLimited(
            f"{scope.name} limit reached: {limits.concurrency} calls at a time",
            limit=f"{scope.name} concurrency",
            retry_after=1.0,
            code="concurrency_limit_exceeded",
        )
    if wait := _wait(1 - state.requests, state.request_rate):
        return RateLimited(
            f"{scope.name} limit reached: {limits.rpm} requests a minute; try again in {duration(wait)}",
            limit=f"{scope.name} requests per minute",
            retry_after=wait,
        )
    if tokens > state.tpm:
        too_large = RateLimited(
            f"this request alone is estimated at {tokens} tokens, over the {scope.name} limit of {limits.tpm} a minute",
            limit=f"{scope.name} tokens per minute",
            retry_after=60.0,
            code="request_over_token_limit",
        )
        too_large.should_retry = False
        return too_large
    if wait := _wait(tokens - state.tokens, state.token_rate):
        return RateLimited(
            f"{scope.name} limit reached: {limits.tpm} tokens a minute; try again in {duration(wait)}",
            limit=f"{scope.name} tokens per minute",
            retry_after=wait,
        )
    return None


def duration(seconds: float) -> str:
    """A time as rate-limit headers write it: `12ms`, `1.5s`, `6m0s`. Rounded up, so that waiting it out is enough.

    >>> duration(0.0121), duration(1.5), duration(360)
    ('13ms', '1.5s', '6m0s')
    """
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    tail = f"{rest / 1000:g}s"
    return f"{minutes}m{tail}" if minutes else tail
