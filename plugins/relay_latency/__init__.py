"""Ask the quickest target first: an order by the time to the first output that was seen of each, of late.

Off unless the configuration names models:

    [plugins.options.latency]
    models = ["smart", "fast-*"]   # the models whose targets are ordered so
    again_seconds = 60             # a target that was not measured for so long is given a call now and then

Streams and complete answers are measured apart: of a stream it is the time to the first output, of a complete answer
all of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from relay import Target, TargetOrder, hookimpl

__all__ = ["ByLatency"]

FRESH = 0.3
"""How much of a new measurement goes into the mean; the rest is what was known before."""
EXPLORED = 20
"""One call of so many may go to a target of which nothing is known, or nothing new."""
KEPT = 4096


class ByLatency:
    """The order, and the means it is made of."""

    def __init__(self, models: Sequence[str], again_seconds: float) -> None:
        self._again = again_seconds
        self._known: dict[tuple[Target, bool], tuple[float, float]] = {}
        """The mean in seconds and when it was last measured, of each target, streamed and not."""
        self._calls = 0
        self._wanted = lru_cache(maxsize=1024)(lambda model: any(fnmatchcase(model, pattern) for pattern in models))

    def order(self, model: str, targets: Sequence[Target], stream: bool, now: float) -> Sequence[Target]:
        """The quickest first; those of which nothing is known last, but for every twentieth call."""
        if len(targets) < 2 or not self._wanted(model):
            return targets
        known = [self._known.get((target, stream)) for target in targets]
        ranked = [target for _, target in sorted(zip(known, targets, strict=True), key=_mean)]
        self._calls += 1
        if self._calls % EXPLORED == 0:
            # The one that was not measured for longest.
            at, place = min((-1.0 if one is None else one[1], place) for place, one in enumerate(known))
            if at < now - self._again or known[place] is None:
                ranked.remove(targets[place])
                ranked.insert(0, targets[place])
        return ranked

    def seen(self, target: Target, stream: bool, seconds: float, now: float) -> None:
        """Move the mean towards what was measured."""
        place = (target, stream)
        before = self._known.pop(place, None)
        mean = seconds if before is None else before[0] + FRESH * (seconds - before[0])
        if len(self._known) >= KEPT:
            # What was measured longest ago stands first.
            del self._known[next(iter(self._known))]
        self._known[place] = (mean, now)


def _mean(pair: tuple[tuple[float, float] | None, Target]) -> float:
    return float("inf") if pair[0] is None else pair[0][0]


@hookimpl
def order_targets(options: Mapping[str, Any]) -> TargetOrder | None:
    """By latency, for the models that the configuration names."""
    if not options:
        return None
    unknown = sorted(set(options) - {"models", "again_seconds"})
    if unknown:
        raise ValueError(f"there is no option {unknown[0]!r}; there are: models, again_seconds")
    models, again = options.get("models", []), options.get("again_seconds", 60.0)
    if not isinstance(models, list) or not all(isinstance(name, str) for name in models):
        raise ValueError("models must be a list of names or patterns")
    if isinstance(again, bool) or not isinstance(again, int | float) or again < 0:
        raise ValueError("again_seconds must be a number of seconds")
    return ByLatency(models, float(again)) if models else None
