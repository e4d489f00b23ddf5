"""How often and how soon something is tried again. Pure: the luck is an argument, and the time can be."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["LONGEST_PAUSE", "RetryBudget", "backoff", "retry_after"]

LONGEST_WAIT = 86_400.0
"""Seconds that an upstream can ask for: a wrong clock there must not silence a model for a year."""
EARLIEST_EPOCH = 1e9
"""A limit that is free again in so many seconds tells a Unix time; in a thousand times as many, one in milliseconds."""

LONGEST_PAUSE = 5.0
"""Seconds between two attempts of one call at most. Longer waits are left to the client, who is told of them."""


def backoff(number: int, base: float, luck: float) -> float:
    """Seconds before the retry of that number (from 1): twice as long each time, of which a random half is left out.

    `luck` is in [0, 1).
    """
    # Bounded before it is a power: nobody waits for the hundredth retry, and no float holds it.
    return min(base * 2.0 ** min(number - 1, 30), LONGEST_PAUSE) * (0.5 + luck / 2)


class RetryBudget:
    """How many retries may be under way at a time: a share of the calls in flight, and a few in any case.

    What limits each call alone does not limit all of them together: with every call failing, every call's one retry
    doubles the load on an upstream that fails because of its load.
    """

    def __init__(self, share: float, least: int) -> None:
        self.share = share
        self.least = least
        self.taken = 0

    def take(self, in_flight: int) -> bool:
        """Take a place, if there is one. Who has it gives it back."""
        if self.taken >= max(self.least, int(self.share * in_flight)):
            return False
        self.taken += 1
        return True

    def give(self) -> None:
        """Give a place back."""
        self.taken -= 1


_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\Z")
_DURATION = re.compile(
    r"(?=[0-9.])(?:([0-9.]+)d)?(?:([0-9.]+)h)?(?:([0-9.]+)m(?!s))?(?:([0-9.]+)s)?(?:([0-9.]+)ms)?\Z", re.IGNORECASE
)
_UNITS = (86_400.0, 3600.0, 60.0, 1.0, 0.001)
_RESET = re.compile(r"(?:.*-)?ratelimit-(?:.*-)?reset(?:-.*)?\Z")


def retry_after(headers: Mapping[str, str], now: float | None = None, *, limited: bool = False) -> float | None:
    """Seconds an upstream asks to wait: `retry-after-ms`, else `Retry-After` as a number, a duration or a date.

    With `limited`, which is for a 429, else when the limits that are used up are free again, as headers such as
    `x-ratelimit-reset-tokens: 1m30s` tell. None if nothing of that is there or can be read. Never negative, and a day
    at most. `now` is the Unix time, for tests. Header names are in lower case.
    """
    if now is None:
        now = time.time()
    waits = (_milliseconds(headers.get("retry-after-ms")), _wait(headers.get("retry-after"), now))
    wait = next((wait for wait in waits if wait is not None), None)
    if wait is None and limited:
        wait = max(_resets(headers, now), default=None)
    return None if wait is None else min(max(wait, 0.0), LONGEST_WAIT)


def _milliseconds(text: str | None) -> float | None:
    return float(text) / 1000 if text is not None and _NUMBER.match(text := text.strip()) else None


def _wait(text: str | None, now: float) -> float | None:
    if text is None or not (text := text.strip()) or len(text) > 100:
        return None
    if _NUMBER.match(text):
        return float(text)
    duration = _DURATION.match(text)
    try:
        if duration is not None:
            return sum(float(part) * unit for part, unit in zip(duration.groups("0"), _UNITS, strict=True))
        return _moment(text) - now
    except (TypeError, ValueError, OverflowError):
        return None


def _moment(text: str) -> float:
    """The Unix time of a date as HTTP or as JSON writes it. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = parsedate_to_datetime(text)
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _resets(headers: Mapping[str, str], now: float) -> Iterator[float]:
    """The waits for the limits that are used up. One of which nothing is left is; of which it is not told may be."""
    for name, text in headers.items():
        if not _RESET.match(name):
            continue
        remaining = headers.get(name.replace("reset", "remaining"), "0").strip()
        wait = _wait(text, now)
        if wait is not None and wait >= EARLIEST_EPOCH:
            wait = (wait / 1000 if wait >= 1000 * EARLIEST_EPOCH else wait) - now
        if wait is not None and not (_NUMBER.match(remaining) and float(remaining) > 0):
            yield wait
