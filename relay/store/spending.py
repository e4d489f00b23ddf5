"""What keys have spent, as their usage rows say: the truth that the accounts of `relay.budget` are opened with."""

from __future__ import annotations

from relay.budget import DAY, Spent, opening
from relay.store.database import Reader

__all__ = ["Spending"]

SUM = (
    "SELECT (SELECT coalesce(sum(cost), 0) FROM usage WHERE key_id = ?1 AND at >= ?2 AND at < ?3)"
    " + (SELECT coalesce(sum(cost), 0) FROM hours WHERE key_id = ?1 AND at >= ?2 AND at < ?3)"
)
EVER = (
    "SELECT (SELECT coalesce(sum(cost), 0) FROM usage WHERE key_id = ?1)"
    " + (SELECT coalesce(sum(cost), 0) FROM hours WHERE key_id = ?1)"
)


class Spending:
    """Reads sums through a connection of its own: a call waits for it, and should not wait for a report."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def of(self, key: int, at: int) -> Spent:
        """The sums of one key for the day and the month of `at`, in Unix milliseconds. Raises sqlite3.Error."""
        day, month = opening("day", at), opening("month", at)
        # Whatever the month, the first of the next one is at most 31 days later, and 32 days later is in that one.
        after = opening("month", month + 32 * DAY)
        ((today,),) = await self._reader.fetch(SUM, (key, day, day + DAY))
        ((monthly,),) = await self._reader.fetch(SUM, (key, month, after))
        ((ever,),) = await self._reader.fetch(EVER, (key,))
        return Spent(today, monthly, ever)
