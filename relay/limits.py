"""Token buckets: requests a minute, tokens a minute, calls at a time. Sans-IO; `now` is always an argument.

Before a call, `Limiter.reserve` takes one request and the estimated tokens from every bucket that applies, or from
none of them. After it, `Reservation.settle` corrects the tokens by what was really used. Buckets refill continuously,
so there is no edge of a minute at which everybody may burst twice.

A bucket holds one minute's worth. Real usage above the estimate makes it negative (a debt, at most one bucket deep)
that later calls wait for; usage below it comes back at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from relay.errors import RateLimited

__all__ = ["Limiter", "Limits", "Reservation", "Scope", "View", "duration"]


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


class Bucket:
    """Holds up to `capacity`, refills by `capacity` a minute."""

    __slots__ = ("at", "capacity", "level", "rate")

    def __init__(self, capacity: int, now: float) -> None:
        self.capacity = float(capacity)
        self.rate = capacity / 60.0
        self.level = float(capacity)
        self.at = now

    def resize(self, capacity: int, now: float) -> None:
        """Change the limit; what was used stays used."""
        self.refill(now)
        used = self.capacity - self.level
        self.capacity = float(capacity)
        self.rate = capacity / 60.0
        self.level = max(self.capacity - used, -self.capacity)

    def refill(self, now: float) -> None:
        """Bring the level up to date. A clock that went back refills nothing and takes nothing."""
        elapsed = now - self.at
        if elapsed > 0:
            self.level = min(self.capacity, self.level + elapsed * self.rate)
            self.at = now

    def wait(self, amount: float) -> float:
        """Seconds until `amount` is there; 0 if it is now. `refill` first."""
        missing = amount - self.level
        # A hair of slack: a caller who waits exactly as told must not be refused for a rounding error.
        return missing / self.rate if missing > 1e-6 else 0.0

    def take(self, amount: float) -> None:
        """Take (or, if negative, give back) `amount`. Debt ends at one full bucket."""
        self.level = min(self.capacity, max(-self.capacity, self.level - amount))


@dataclass(slots=True)
class State:
    """What a scope has used so far."""

    requests: Bucket | None = None
    tokens: Bucket | None = None
    running: int = 0


class View(NamedTuple):
    """The tightest of several buckets as a caller may know it: whole units, and seconds until it is full."""

    limit: int
    remaining: int
    reset: float


_new_view = tuple.__new__


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
            bucket = state.tokens
            if bucket is not None and missing:
                # `refill` and `take`, written out.
                level = bucket.level - missing
                if now > bucket.at:
                    level += (now - bucket.at) * bucket.rate
                    bucket.at = now
                capacity = bucket.capacity
                bucket.level = capacity if level > capacity else level if level > -capacity else -capacity
        self._limiter.ended(now)

    def views(self) -> tuple[View | None, View | None]:
        """The tightest request bucket and the tightest token bucket, as of the reservation."""
        return _views(self._states)


def _views(states: Sequence[State]) -> tuple[View | None, View | None]:
    if len(states) == 1:
        state = states[0]
        return _view(state.requests), _view(state.tokens)
    return _view(_tightest(state.requests for state in states)), _view(_tightest(state.tokens for state in states))


def _view(bucket: Bucket | None) -> View | None:
    if bucket is None:
        return None
    level, capacity = bucket.level, bucket.capacity
    # As `View(...)`, which is a Python function.
    return _new_view(View, (int(capacity), int(level + 1e-6) if level > 0 else 0, (capacity - level) / bucket.rate))


def _tightest(buckets: Iterable[Bucket | None]) -> Bucket | None:
    return min((bucket for bucket in buckets if bucket is not None), key=lambda bucket: bucket.level, default=None)


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
            state = self._state(scope, now)
            states.append(state)
            requests, bucket, most = state.requests, state.tokens, scope.limits.concurrency
            if (
                (requests is not None and requests.level < 1)
                or (bucket is not None and bucket.level < tokens)
                or (most and state.running >= most)
            ):
                states = [self._state(scope, now) for scope in scopes]
                self._refuse(scopes, states, tokens)
                break
        for state in states:
            state.running += 1
            if (requests := state.requests) is not None:
                requests.level -= 1
            if (bucket := state.tokens) is not None:
                bucket.level -= tokens
        return Reservation(self, states, tokens)

    def _refuse(self, scopes: Sequence[Scope], states: Sequence[State], tokens: int) -> None:
        """Raise the refusal with the longest wait, if any scope really refuses."""
        refusals = [_refusal(scope, state, tokens) for scope, state in zip(scopes, states, strict=True)]
        refused = [refusal for refusal in refusals if refusal is not None]
        if refused:
            raise max(refused, key=lambda refusal: refusal.retry_after or 0)

    def views(self, scopes: Sequence[Scope], now: float) -> tuple[View | None, View | None]:
        """The tightest request bucket and the tightest token bucket of these scopes, for the rate-limit headers."""
        return _views([self._state(scope, now) for scope in scopes])

    def _state(self, scope: Scope, now: float) -> State:
        """The scope's state with its buckets up to date."""
        state = self._states.get(scope.place)
        if state is None:
            state = self._states[scope.place] = State()
        limits = scope.limits
        requests, tokens = state.requests, state.tokens
        if (
            requests is None
            or tokens is None
            or requests.capacity != limits.rpm
            or tokens.capacity != limits.tpm
            or now < requests.at
            or now < tokens.at
        ):
            state.requests = _current(requests, limits.rpm, now)
            state.tokens = _current(tokens, limits.tpm, now)
            return state
        # `refill` of both, written out: this runs for every call.
        level = requests.level + (now - requests.at) * requests.rate
        requests.level = level if level < requests.capacity else requests.capacity
        requests.at = now
        level = tokens.level + (now - tokens.at) * tokens.rate
        tokens.level = level if level < tokens.capacity else tokens.capacity
        tokens.at = now
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
            buckets = [bucket for bucket in (state.requests, state.tokens) if bucket is not None]
            for bucket in buckets:
                bucket.refill(now)
            if state.running == 0 and all(bucket.level >= bucket.capacity for bucket in buckets):
                del self._states[place]
        # Growing with the table, so that the look through all of it costs each call the same little bit.
        self._sweep = SWEEP + len(self._states) // 2
        self._due = self._sweep if self._listener is None else 0

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Who is told of each call that ends, as soon as its places are free. None: nobody, which costs nothing."""
        self._listener = listener
        self._due = self._sweep if listener is None else 0


def _current(bucket: Bucket | None, capacity: int, now: float) -> Bucket | None:
    """The bucket as the configuration has it now; None if that has no such limit."""
    if not capacity:
        return None
    if bucket is None:
        return Bucket(capacity, now)
    if bucket.capacity != capacity:
        bucket.resize(capacity, now)
    else:
        bucket.refill(now)
    return bucket


def _refusal(scope: Scope, state: State, tokens: int) -> RateLimited | None:
    limits = scope.limits
    if limits.concurrency and state.running >= limits.concurrency:
        return RateLimited(
            f"{scope.name} limit reached: {limits.concurrency} calls at a time",
            limit=f"{scope.name} concurrency",
            retry_after=1.0,
            code="concurrency_limit_exceeded",
        )
    if state.requests is not None and (wait := state.requests.wait(1)):
        return RateLimited(
            f"{scope.name} limit reached: {limits.rpm} requests a minute; try again in {duration(wait)}",
            limit=f"{scope.name} requests per minute",
            retry_after=wait,
        )
    if state.tokens is not None and tokens > limits.tpm:
        too_large = RateLimited(
            f"this request alone is estimated at {tokens} tokens, over the {scope.name} limit of {limits.tpm} a minute",
            limit=f"{scope.name} tokens per minute",
            retry_after=60.0,
            code="request_over_token_limit",
        )
        too_large.should_retry = False
        return too_large
    if state.tokens is not None and (wait := state.tokens.wait(tokens)):
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
