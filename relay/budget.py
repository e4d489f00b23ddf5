"""Budgets of keys in money: what is set aside before a call, and what it cost in the end. No I/O, no clock of its own.

The database is the truth: what a key has spent is what its usage rows say. An account is opened with their sums and
follows every call from then on, so that a decision needs no look at the disk, and nothing can come between it and what
it decided. Amounts are integer nano-dollars; times are Unix milliseconds; days and months are those of UTC.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice

from relay.errors import OutOfBudget
from relay.pricing import MILLION, Price, Rates, usd

__all__ = ["DAY", "WINDOWS", "Account", "Budget", "Hold", "Ledger", "NotOpen", "Spent", "dearest", "opening"]

DAY = 86_400_000
ACCOUNTS = 10_000
"""Accounts kept; one that nothing is set aside in is dropped beyond that, and opened again from the database."""
KEPT = 8
"""Days, and months, whose sums an account remembers: a clock that is set back finds them as they were."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Nano-dollars a day, a month, and ever. 0: no such limit."""

    day: int = 0
    month: int = 0
    total: int = 0

    def __bool__(self) -> bool:
        return bool(self.day or self.month or self.total)


@dataclass(frozen=True, slots=True)
class Spent:
    """What the usage rows of one key cost in the day and the month of a moment, and ever."""

    day: int = 0
    month: int = 0
    total: int = 0


class NotOpen(LookupError):
    """The account has to be opened, or opened again, from the database first."""


def _day(at: int) -> int:
    return at - at % DAY


@lru_cache(maxsize=64)
def _month_of_day(day: int) -> int:
    moment = datetime.fromtimestamp(day // 1000, UTC).replace(day=1)
    return int(moment.timestamp()) * 1000


def _month(at: int) -> int:
    return _month_of_day(_day(at))


def _ever(at: int) -> int:
    return 0


WINDOWS: Mapping[str, Callable[[int], int]] = {"day": _day, "month": _month, "total": _ever}
"""The spans of time that have a budget: for a moment in one, when it began."""
ENDS: Mapping[str, str] = {
    "day": "; the next day begins at midnight UTC",
    "month": "; the next month begins on its first day at midnight UTC",
    "total": "",
}


def opening(window: str, at: int) -> int:
    """When the day or month of `at` began; 0 for the total.

    >>> opening("month", 1_709_164_800_000)   # 2024-02-29
    1706745600000
    """
    return WINDOWS[window](at)


class Account:
    """What one key has spent, by day and month, and what is set aside for calls in flight."""

    __slots__ = ("changes", "held", "open", "spent")

    def __init__(self) -> None:
        self.open = False
        self.held = 0
        self.changes = 0
        """Counts every change to what was spent: whoever reads the sums sees whether they still hold."""
        self.spent: dict[str, dict[int, int]] = {window: {} for window in WINDOWS}

    def take_in(self, spent: Spent, at: int) -> None:
        """Begin with what the database says of the day and the month of `at`."""
        for window, start in WINDOWS.items():
            sums, begun = self.spent[window], start(at)
            sums.pop(begun, None)
            sums[begun] = getattr(spent, window)
            while len(sums) > KEPT:
                del sums[next(iter(sums))]
        self.open = True

    def knows(self, at: int) -> bool:
        """Whether the sums of that moment are known. Those of each day and month are read as it begins."""
        return self.open and all(start(at) in self.spent[window] for window, start in WINDOWS.items())

    def of(self, window: str, at: int) -> int:
        """What was spent in the day or month of `at`."""
        return self.spent[window].get(WINDOWS[window](at), 0)

    def hold(self, amount: int, at: int) -> Hold:
        """Set `amount` aside for a call that came at `at`; `Ledger.check` has just said that it is there."""
        self.held += amount
        return Hold(self, amount, at)

    def charge(self, amount: int, at: int) -> None:
        """A call that came at `at` cost that much."""
        self.changes += 1
        for window, start in WINDOWS.items():
            sums, begun = self.spent[window], start(at)
            if begun in sums:
                sums[begun] += amount


class Hold:
    """Money set aside for one call. Settle it exactly once; later calls of `settle` do nothing."""

    __slots__ = ("_account", "_at", "_open", "amount")

    def __init__(self, account: Account, amount: int, at: int) -> None:
        self._account = account
        self._at = at
        self._open = True
        self.amount = amount

    def settle(self, amount: int) -> None:
        """The call is over and cost that much. Upstreams' numbers never give anything back."""
        if not self._open:
            return
        self._open = False
        self._account.held -= self.amount
        if amount > 0:
            self._account.charge(amount, self._at)


class Ledger:
    """The accounts of all keys that have a budget."""

    def __init__(self) -> None:
        self.accounts: OrderedDict[int, Account] = OrderedDict()

    def held(self) -> int:
        """Set aside over all accounts: 0 when nothing is in flight."""
        return sum(account.held for account in self.accounts.values())

    def account(self, key: int) -> Account:
        """The account of a key, which may have to be opened yet."""
        account = self.accounts.get(key)
        if account is None:
            account = self.accounts[key] = Account()
            for other in list(islice(self.accounts, max(0, len(self.accounts) - ACCOUNTS))):
                if not self.accounts[other].held and other != key:
                    del self.accounts[other]
        return account

    def check(self, key: int, budget: Budget, amount: int, at: int) -> Account:
        """The account of a key that can pay `amount`. Raises OutOfBudget, or NotOpen. Sets nothing aside."""
        account = self.accounts.get(key)
        if account is None or not account.knows(at):
            raise NotOpen
        for window in WINDOWS:
            limit = getattr(budget, window)
            if limit and account.of(window, at) + account.held + amount > limit:
                raise _refusal(window, limit, account.of(window, at), account.held, amount)
        self.accounts.move_to_end(key)
        return account

    def charge(self, key: int, amount: int, at: int) -> None:
        """A call for which nothing was set aside has cost something, all the same."""
        account = self.accounts.get(key)
        if account is not None:
            account.charge(amount, at)


def _refusal(window: str, limit: int, spent: int, held: int, amount: int) -> OutOfBudget:
    of = "budget" if window == "total" else f"budget for the {window}"
    parts = f"${usd(spent)} are spent"
    if held:
        parts += f", ${usd(held)} are set aside for calls in flight"
    return OutOfBudget(
        f"the key's {of} of ${usd(limit)} does not suffice: {parts},"
        f" and this call may cost ${usd(amount)}{ENDS[window]}"
    )


def dearest(price: Price, tokens_in: int, tokens_out: int) -> int:
    """What a call of so many tokens can cost at most, in whichever tier and kind they are counted."""
    rate_in, rate_out = _highest(price)
    return price.request + (tokens_in * rate_in + tokens_out * rate_out + MILLION - 1) // MILLION


@lru_cache(maxsize=4096)
def _highest(price: Price) -> tuple[int, int]:
    rates = (price.rates, *(tier.rates for tier in price.tiers))
    return max(map(_highest_in, rates)), max(map(_highest_out, rates))


def _highest_in(rates: Rates) -> int:
    kinds = (rates.cache_read, rates.cache_write_5m, rates.cache_write_1h, rates.audio_in)
    return max(rates.input, *(rate or 0 for rate in kinds))


def _highest_out(rates: Rates) -> int:
    return max(rates.output, rates.reasoning or 0, rates.audio_out or 0)
