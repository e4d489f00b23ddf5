"""Waiting for a place: calls beyond a limit of calls at a time, where the configuration lets some wait.

A line is fair between keys: whenever a place is free, it is the turn of the key that has waited longest since its last
turn, whatever the others have waiting. It is bounded: in a full line the newest call of the key that has most in it
makes room for one of a key that has less, and everybody else is refused at once. `Line` is sans-IO; `Lines` is what
calls wait in.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Container, Hashable
from dataclasses import dataclass, field

from relay.errors import RateLimited
from relay.limits import Limiter, Scope

__all__ = ["Line", "Lines", "Waiting"]


REMEMBERED = 4096
"""Keys whose last turn a line knows."""


@dataclass(eq=False, slots=True)
class Waiting:
    """One who waits. `take` takes the place, or raises why not; `told` is called once, with what was raised."""

    key: int
    take: Callable[[], None]
    told: Callable[[Exception | None], None]
    over: bool = field(default=False, init=False)


class Line:
    """Those who wait for one place. `limit` is what refusals call it, as in `model concurrency`."""

    def __init__(self, limit: str) -> None:
        self.limit = limit
        self._keys: dict[int, deque[Waiting]] = {}
        self._length = 0
        self._turns = 0
        self._last: OrderedDict[int, int] = OrderedDict()
        """The last turn of each key, of those that had one of late."""

    def __len__(self) -> int:
        return self._length

    def join(self, waiting: Waiting, most: int) -> None:
        """Stand in line. Raises RateLimited if there are `most` already."""
        mine = self._keys.get(waiting.key)
        if self._length >= most:
            longest = max(self._keys.values(), key=len, default=None)
            if longest is None or len(longest) <= (0 if mine is None else len(mine)) + 1:
                raise self.full(most)
            self._end(longest[-1], self.full(most))
        self._keys.setdefault(waiting.key, deque()).append(waiting)
        self._length += 1

    def full(self, most: int) -> RateLimited:
        """The refusal of one for whom there is no room."""
        return RateLimited(
            f"{self.limit} limit reached, and {most} calls wait already",
            limit=self.limit,
            retry_after=1.0,
            code="queue_full",
        )

    def leave(self, waiting: Waiting) -> None:
        """Wait no more. Whoever has been told already stands in no line."""
        if waiting.over:
            return
        waiting.over = True
        line = self._keys[waiting.key]
        line.remove(waiting)
        self._length -= 1
        if not line:
            del self._keys[waiting.key]

    def call(self) -> None:
        """A place may be free: let those whose turn it is take what there is."""
        passed: set[int] = set()
        while (waiting := self._next(passed)) is not None:
            try:
                waiting.take()
            except RateLimited as error:
                if error.limit == self.limit:
                    return
                if error.limit.endswith(" concurrency"):
                    # Its key has no place of its own just now, and others may have.
                    passed.add(waiting.key)
                else:
                    self._end(waiting, error)
            except Exception as error:
                self._end(waiting, error)
            else:
                self._end(waiting, None)

    def _next(self, passed: Container[int]) -> Waiting | None:
        keys = [key for key in self._keys if key not in passed]
        return self._keys[min(keys, key=lambda key: self._last.get(key, 0))][0] if keys else None

    def _end(self, waiting: Waiting, error: Exception | None) -> None:
        self.leave(waiting)
        if error is None:
            self._turns += 1
            self._last.pop(waiting.key, None)
            self._last[waiting.key] = self._turns
            if len(self._last) > REMEMBERED:
                self._last.popitem(last=False)
        waiting.told(error)


class Lines:
    """The lines of one process, by what they are for. They move whenever a call ends."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter
        self._lines: dict[Hashable, Line] = {}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    async def wait(self, scope: Scope, key: int, take: Callable[[], None], most: int, seconds: float) -> None:
        """Wait until `take` has taken a place of the scope. Raises RateLimited, or what else it raises."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Exception | None] = loop.create_future()
        line = self._lines.get(scope.place)
        if line is None:
            line = self._lines[scope.place] = Line(f"{scope.name} concurrency")
        waiting = Waiting(key, take, lambda error: None if done.done() else done.set_result(error))
        line.join(waiting, most)
        self._limiter.listen(self._ended)
        try:
            async with asyncio.timeout(seconds):
                error = await done
        except TimeoutError:
            raise RateLimited(
                f"{line.limit} limit reached, and no place was free within {seconds:g} seconds",
                limit=line.limit,
                retry_after=1.0,
                code="queue_timeout",
            ) from None
        finally:
            line.leave(waiting)
            if not line and self._lines.get(scope.place) is line:
                del self._lines[scope.place]
            if not self._lines:
                self._limiter.listen(None)
        if error is not None:
            raise error

    def _ended(self) -> None:
        for line in list(self._lines.values()):
            line.call()
