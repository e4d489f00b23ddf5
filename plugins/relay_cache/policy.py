"""The cache as a policy: what is given again, what is kept, and who waits for whom."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from functools import lru_cache

from relay import Asking, Given, Question
from relay.errors import RelayError
from relay_cache.question import place, question_digest
from relay_cache.settings import CacheSettings
from relay_cache.shelf import Answers

__all__ = ["HEADER", "AnswerCache", "Wishes"]

HEADER = "x-relay-cache"
"""The header that says where an answer comes from: `hit` or `miss`."""
COMPLETE = frozenset({"stop", "tool_calls"})
"""Reasons to stop after which an answer is whole."""
_MAX_AGE = re.compile(r"max-age=(\d{1,9})")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a client wants of caches."""

    store: bool = True
    """Whether its question and answer may be kept at all."""
    youngest: float | None = None
    """Seconds that an answer may be old; None: as old as any that is kept."""

    @classmethod
    def read(cls, text: str) -> Wishes:
        """From its `Cache-Control`. What is not understood is no wish.

        >>> Wishes.read("No-Cache"), Wishes.read("no-store").store
        (Wishes(store=True, youngest=0.0), False)
        """
        words = [word.strip().lower() for word in text.split(",")]
        ages = [float(match[1]) for word in words if (match := _MAX_AGE.fullmatch(word))]
        if "no-cache" in words:
            ages.append(0.0)
        return cls("no-store" not in words, min(ages, default=None))

    @property
    def anew(self) -> bool:
        """Whether only a new answer will do."""
        return self.youngest is not None and self.youngest <= 0


class Lost(Enum):
    """The one who asked has gone, and nobody knows the answer."""

    LOST = 0


class Flight:
    """A question that is being asked, and those who wait for its answer."""

    __slots__ = ("asking", "done", "waiting")

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self.done: asyncio.Future[Given | Lost | None] = asyncio.get_running_loop().create_future()
        self.waiting = 0

    async def answer(self, seconds: float) -> Given | Lost | None:
        """Its answer; None if it has none that can be shared, or not in time."""
        self.waiting += 1
        self.asking.awaited = True
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self.done)
        except TimeoutError:
            return None
        finally:
            self.waiting -= 1
            self.asking.awaited = self.waiting > 0


class AnswerCache:
    """A `CallPolicy`. Sound for any use of it by one event loop."""

    def __init__(self, settings: CacheSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self.answers = Answers(settings.most, settings.seconds)
        self.room, self.largest = settings.most, settings.largest
        self._flights: dict[bytes, Flight] = {}
        self._named = lru_cache(maxsize=4096)(self._judged)

    def wants(self, key_name: str, model: str) -> bool:
        """Whether answers to this key, of this model, are kept."""
        return self._named(key_name, model)

    def _judged(self, key_name: str, model: str) -> bool:
        return _fits(model, self._settings.models) and _fits(key_name, self._settings.keys)

    async def on_call(self, question: Question, asking: Asking) -> Given | None:
        """The answer that is kept, or somebody else is just getting; else have it asked, and keep what comes."""
        wishes = Wishes.read(question.wishes)
        if not question.repeatable or not wishes.store:
            return None
        digest = question_digest(question, shared=self._settings.shared)
        places = [place(digest, source) for source in question.sources]
        flight_place = b"".join([digest, *places])
        while not wishes.anew:
            found = self._find(places, wishes)
            if found is not None:
                return found
            flight = self._flights.get(flight_place) if self._settings.coalesce else None
            if flight is None:
                break
            given = await flight.answer(self._settings.wait_seconds)
            if isinstance(given, Given):
                return _again(given, 0.0)
            if given is None:
                await self._ask(digest, asking)
                return None
        if self._settings.coalesce and not wishes.anew:
            await self._lead(flight_place, digest, asking)
        else:
            await self._ask(digest, asking)
        return None

    def _find(self, places: Sequence[bytes], wishes: Wishes) -> Given | None:
        now = self._clock()
        found = [one for one in (self.answers.get(here, now, wishes.youngest) for here in places) if one is not None]
        return _again(*min(found, key=lambda one: one[1])) if found else None

    async def _lead(self, flight_place: bytes, digest: bytes, asking: Asking) -> None:
        """Ask for all who want to know."""
        flight = self._flights[flight_place] = Flight(asking)
        given: Given | Lost | None = Lost.LOST
        try:
            given = await self._ask(digest, asking)
        except RelayError:
            # Whoever waits asks for itself: its own turn may do better.
            given = None
            raise
        finally:
            del self._flights[flight_place]
            flight.done.set_result(given)

    async def _ask(self, digest: bytes, asking: Asking) -> Given | None:
        """Have it asked, and keep the answer if it may be kept."""
        given = await asking.ask({HEADER: "miss"})
        if given is None or given.tools == "invalid" or not COMPLETE.issuperset(given.stops):
            return None
        self.answers.put(place(digest, given.source), given, self._clock())
        return given


def _fits(name: str, patterns: Sequence[str] | None) -> bool:
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)


def _again(given: Given, age: float) -> Given:
    return replace(given, headers={**given.headers, HEADER: "hit", "Age": str(int(age))})
