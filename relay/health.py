"""Which targets are in trouble, and when each may be asked again. Pure: the time and the luck are arguments.

While everything works there is nothing here: `Health.circuits` is empty, and that is all a call looks at. A fault makes
a `Circuit` for what is at fault, a success takes it away again. Three things can be at fault, from the outside in:

* an upstream's address (it cannot be reached): known by the upstream's name, because all of its keys lead there;
* a credential (it was refused with 401): known by the `Upstream` that holds it;
* a target (a model behind one credential: rate limits, server errors, silence).

What a caller can bring about at will must not shut a target for others at once: an upstream's 403 and 402 may be about
one request, so they count like server errors, in a row. Only a 401, which is about the relay's key, and a wait that the
upstream asks for open a circuit at the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from relay.errors import RelayError, UpstreamError, UpstreamProtocol, UpstreamTimeout, UpstreamUnreachable
from relay.family import Target, Upstream

__all__ = ["Circuit", "Health", "Pace", "Scope"]

Scope: TypeAlias = "str | Upstream | Target"
"""What can be at fault: an address, a credential, a target."""

ADDRESS, CREDENTIAL, TARGET = range(3)
CIRCUITS_KEPT = 4096
"""Callers may name targets themselves, so there can be more faults than anybody configured."""
PROBE_SECONDS = 1.0
"""What callers are told to wait while somebody else finds out whether a target is back."""
FORGET_SECONDS = 900.0
"""How long a fault is remembered that nobody comes back to."""
ADDRESS_SECONDS = 30.0
"""The longest cool-down of an address: to ask whether anybody is there costs nothing, and a restart takes no longer."""
JITTER = 0.1
"""Cool-downs that nobody asked for are longer by up to this share: what failed together must not come back together."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long faults are held against a target."""

    failures: int = 5
    """In a row, until it is left alone."""
    first: float = 5.0
    """Seconds of the first cool-down; each failed probe doubles it."""
    longest: float = 300.0
    """Seconds of a cool-down at most, whatever an upstream asks for; 0: there are none."""
    least: float = 0.25
    """Seconds of a cool-down at least: an upstream that asks for no wait at all gets this one."""


class Circuit:
    """One thing's faults. Closed it counts them, open it lets nobody through, then one at a time until one succeeds."""

    __slots__ = ("code", "failures", "limited", "probing", "seconds", "until")

    def __init__(self) -> None:
        self.failures = 0
        """In a row."""
        self.seconds = 0.0
        """Length of the last cool-down; 0 while there was none."""
        self.until = 0.0
        """When the last cool-down ends, or ended; while there was none, when the last fault was."""
        self.probing = False
        """Whether somebody is finding out if it works again."""
        self.limited = False
        """Whether it cools because of a rate limit."""
        self.code = ""
        """The last fault's."""

    def wait(self, now: float) -> float:
        """Seconds until it may be asked; 0: now."""
        if not self.seconds:
            return 0.0
        if now < self.until:
            return self.until - now
        return PROBE_SECONDS if self.probing else 0.0

    def enter(self, now: float) -> bool:
        """Ask it; True for the one call that finds out whether it works again. Follows a `wait` of 0."""
        if not self.seconds:
            return False
        self.probing = True
        return True

    def failed(self, now: float, pace: Pace, luck: float, *, probe: bool, told: float | None, grave: bool) -> None:
        """It failed. `told` is the wait that it asked for; a `grave` fault needs no repetition. `luck` is in [0, 1)."""
        self.failures += 1
        if probe:
            self.probing = False
            doubled = 2 * self.seconds * (1 + JITTER * luck)
            self._cool(now, pace, max(doubled, told or 0.0))
        elif self.seconds:
            # A call from before the cool-down: it knows no more, but it may have been told of a longer wait.
            if told is not None:
                self.until = max(self.until, now + min(told, pace.longest))
        elif told is not None:
            self._cool(now, pace, told)
        elif grave or self.failures >= pace.failures:
            self._cool(now, pace, pace.first * (1 + JITTER * luck))
        else:
            self.until = now

    def _cool(self, now: float, pace: Pace, seconds: float) -> None:
        self.seconds = min(max(seconds, pace.least), pace.longest)
        self.until = now + self.seconds

    def released(self) -> None:
        """The probe ended without a verdict: its client left. The next one may try."""
        self.probing = False


class Health:
    """The circuits of one process."""

    def __init__(self, pace: Pace, luck: Callable[[], float]) -> None:
        self.paces = (replace(pace, longest=min(pace.longest, ADDRESS_SECONDS)), pace, pace)
        self.luck = luck
        self.circuits: dict[Scope, Circuit] = {}
        """Of everything that failed last; empty while all is well."""
        self._looked = 0.0

    def spotless(self, target: Target) -> bool:
        """Whether nothing at all is known against a target."""
        circuits = self.circuits
        return target.upstream.name not in circuits and target.upstream not in circuits and target not in circuits

    def wait(self, target: Target, now: float) -> float:
        """Seconds until a target may be asked; 0: now."""
        if not self.circuits:
            return 0.0
        return max((circuit.wait(now) for circuit in self._of(target)), default=0.0)

    def why(self, target: Target, now: float) -> Circuit | None:
        """What keeps a target from being asked, the longest wait of all; None if nothing does."""
        waits = [circuit for circuit in self._of(target) if circuit.wait(now)]
        return max(waits, key=lambda circuit: circuit.wait(now), default=None)

    def enter(self, target: Target, now: float) -> Sequence[Circuit]:
        """Ask a target; the circuits of which this is the probe. Each must be ended by one of the three below."""
        if not self.circuits:
            return ()
        return [circuit for circuit in self._of(target) if circuit.enter(now)]

    def succeeded(self, target: Target, probes: Sequence[Circuit]) -> None:
        """It answered."""
        if self.circuits:
            self._well(_scopes(target), probes)

    def released(self, probes: Sequence[Circuit]) -> None:
        """Nobody knows."""
        for circuit in probes:
            circuit.released()

    def failed(self, target: Target, error: RelayError, now: float, probes: Sequence[Circuit]) -> None:
        """It answered with an error, or not at all. What that says is judged here."""
        place = _fault(error)
        if place is None:
            # The request was at fault, or nothing was asked.
            if isinstance(error, UpstreamError) and error.upstream_status is not None:
                self.succeeded(target, probes)
            else:
                self.released(probes)
            return
        scopes = _scopes(target)
        # Whoever was refused by a model got past the key, and whoever was refused by the key got past the address.
        self._well(scopes[:place], probes)
        circuit = self.circuits.get(scopes[place])
        if circuit is None:
            circuit = self._add(scopes[place], now)
        for other in probes:
            if other is not circuit:
                other.released()
        status = error.upstream_status if isinstance(error, UpstreamError) else None
        circuit.limited = status == 429
        circuit.code = error.code
        circuit.failed(
            now,
            self.paces[place],
            self.luck(),
            probe=any(one is circuit for one in probes),
            told=error.retry_after,
            grave=place == CREDENTIAL,
        )

    def _of(self, target: Target) -> list[Circuit]:
        return [circuit for scope in _scopes(target) if (circuit := self.circuits.get(scope)) is not None]

    def _well(self, scopes: Sequence[Scope], probes: Sequence[Circuit]) -> None:
        for scope in scopes:
            circuit = self.circuits.get(scope)
            # An answer to a call from before a cool-down does not end it.
            if circuit is not None and (not circuit.seconds or any(one is circuit for one in probes)):
                del self.circuits[scope]
                circuit.released()

    def _add(self, scope: Scope, now: float) -> Circuit:
        if now >= self._looked + FORGET_SECONDS or len(self.circuits) >= CIRCUITS_KEPT:
            self._looked = now
            for old, circuit in list(self.circuits.items()):
                if circuit.until < now - FORGET_SECONDS and not circuit.probing:
                    del self.circuits[old]
        if len(self.circuits) >= CIRCUITS_KEPT:
            del self.circuits[next(iter(self.circuits))]
        circuit = self.circuits[scope] = Circuit()
        return circuit


def _scopes(target: Target) -> tuple[Scope, Scope, Scope]:
    return (target.upstream.name, target.upstream, target)


def _fault(error: RelayError) -> int | None:
    """What an error is held against; None if it says nothing against anybody."""
    if not isinstance(error, UpstreamError) or not error.blames:
        return None
    if isinstance(error, UpstreamUnreachable):
        return ADDRESS
    if isinstance(error, UpstreamTimeout | UpstreamProtocol):
        return TARGET
    if error.upstream_status is None or not error.retryable:
        return None
    return CREDENTIAL if error.upstream_status == 401 else TARGET
