"""The ledger of budgets by itself: what it lets through, and that it never disagrees with the rows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from relay.budget import DAY, KEPT, WINDOWS, Budget, Hold, Ledger, NotOpen, Spent, dearest, opening
from relay.errors import OutOfBudget
from relay.pricing import Price, Rates, Tier
from tests.effort import times

NOON = int(datetime(2028, 2, 29, 12, tzinfo=UTC).timestamp()) * 1000


def at(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type, misc]


def opened(ledger: Ledger, key: int = 1, now: int = NOON, **spent: int) -> Any:
    account = ledger.account(key)
    account.take_in(Spent(**spent), now)
    return account


@pytest.mark.promise("L-05")
def test_days_and_months_begin_at_midnight_utc_in_leap_years_too() -> None:
    assert opening("day", NOON) == at(2028, 2, 29)
    assert opening("month", NOON) == at(2028, 2, 1)
    assert opening("day", at(2028, 2, 29) - 1) == at(2028, 2, 28)
    assert opening("month", at(2028, 3, 1)) == at(2028, 3, 1)
    assert opening("month", at(2028, 3, 1) - 1) == at(2028, 2, 1)
    assert opening("month", at(2027, 1, 1) - 1) == at(2026, 12, 1)
    # The day on which clocks in Europe are put forward has 24 hours here.
    assert opening("day", at(2026, 3, 29, 23, 59)) == at(2026, 3, 29)
    assert opening("total", NOON) == 0


@pytest.mark.promise("L-05")
def test_a_day_and_a_month_begin_anew_once_and_the_total_never() -> None:
    ledger = Ledger()
    account = opened(ledger)
    limits = {"day": Budget(day=10), "month": Budget(month=10), "total": Budget(total=10)}
    account.hold(10, NOON).settle(10)
    for budget in limits.values():
        with pytest.raises(OutOfBudget):
            ledger.check(1, budget, 1, at(2028, 2, 29, 23, 59, 59))
    tomorrow = at(2028, 3, 1)
    with pytest.raises(NotOpen):
        ledger.check(1, limits["day"], 10, tomorrow)
    opened(ledger, now=tomorrow, total=10)
    ledger.check(1, limits["day"], 10, tomorrow).hold(10, tomorrow).settle(10)
    with pytest.raises(OutOfBudget, match="next day"):
        ledger.check(1, limits["day"], 1, tomorrow + DAY - 1)
    with pytest.raises(OutOfBudget, match="next month"):
        ledger.check(1, limits["month"], 1, tomorrow)
    opened(ledger, now=at(2040, 1, 1), total=20)
    with pytest.raises(OutOfBudget):
        ledger.check(1, limits["total"], 1, at(2040, 1, 1))


@pytest.mark.promise("L-05")
def test_a_call_that_ends_in_the_next_day_counts_for_the_one_in_which_it_came() -> None:
    ledger = Ledger()
    hold = opened(ledger).hold(10, NOON)
    tomorrow = NOON + DAY
    opened(ledger, now=tomorrow)
    with pytest.raises(OutOfBudget, match="set aside"):
        ledger.check(1, Budget(day=10), 1, tomorrow)
    hold.settle(8)
    account = ledger.check(1, Budget(day=10), 10, tomorrow)
    assert [account.of("day", moment) for moment in (NOON, tomorrow)] == [8, 0]


def test_an_account_remembers_few_days_and_says_when_it_has_forgotten_one() -> None:
    ledger = Ledger()
    account = opened(ledger)
    for day in range(1, 40):
        opened(ledger, now=NOON + day * DAY)
    assert len(account.spent["day"]) == KEPT
    assert not account.knows(NOON)
    assert account.knows(NOON + 39 * DAY)
    account.charge(5, NOON)
    assert account.of("day", NOON + 39 * DAY) == 0
    opened(ledger, day=5, month=6, total=39)
    assert account.knows(NOON)
    assert account.of("day", NOON) == 5


def test_who_never_opened_an_account_is_told_to() -> None:
    ledger = Ledger()
    with pytest.raises(NotOpen):
        ledger.check(1, Budget(day=1), 0, NOON)
    ledger.account(1).charge(5, NOON)
    with pytest.raises(NotOpen):
        ledger.check(1, Budget(day=1), 0, NOON)


def test_accounts_are_few_and_those_in_use_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.budget.ACCOUNTS", 10)
    ledger = Ledger()
    opened(ledger, 0).hold(5, NOON)
    for key in range(1, 100):
        opened(ledger, key)
    assert len(ledger.accounts) <= 11
    assert 0 in ledger.accounts
    assert ledger.held() == 5


def test_a_call_is_reserved_at_the_highest_rates_that_its_price_has() -> None:
    price = Price(
        Rates(input=1_000_000, output=2_000_000, cache_write_1h=4_000_000, reasoning=3_000_000),
        (Tier(1000, Rates(input=5_000_000, output=1_000_000)),),
        request=100,
    )
    assert dearest(price, 10, 20) == 100 + 10 * 5 + 20 * 3
    assert dearest(Price(Rates(input=1, output=0)), 1, 0) == 1, "rounded up"
    huge = dearest(price, 10**9, 2**63 * 128)
    assert huge == 100 + 10**9 * 5 + 2**63 * 128 * 3


class Books(RuleBasedStateMachine):
    """Calls that are admitted, settled, given up, refused; crashes; other budgets. `rows` is the database."""

    holds = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.budget = Budget(day=1000, month=3000, total=5000)
        self.rows: list[tuple[int, int]] = []
        self.live: dict[Hold, int] = {}
        self.ledger = Ledger()
        self.reopen()

    def sum(self, window: str) -> int:
        begun = opening(window, self.now)
        return sum(amount for moment, amount in self.rows if opening(window, moment) == begun)

    def reopen(self) -> None:
        self.ledger.account(1).take_in(Spent(*map(self.sum, WINDOWS)), self.now)

    @rule(target=holds, amount=st.integers(0, 600))
    def admit(self, amount: int) -> Hold | None:
        try:
            account = self.ledger.check(1, self.budget, amount, self.now)
        except NotOpen:
            self.reopen()
            account = self.ledger.account(1)
            try:
                self.ledger.check(1, self.budget, amount, self.now)
            except OutOfBudget:
                return None
        except OutOfBudget:
            held = sum(hold.amount for hold in self.live)
            limits = [(self.sum(window), getattr(self.budget, window)) for window in WINDOWS]
            assert any(limit and spent + held + amount > limit for spent, limit in limits), "it was affordable"
            return None
        hold = account.hold(amount, self.now)
        self.live[hold] = self.now
        return hold

    @rule(hold=consumes(holds), part=st.integers(0, 100), twice=st.booleans())
    def settle(self, hold: Hold | None, part: int, twice: bool) -> None:
        if hold is None or hold not in self.live:
            return
        amount = hold.amount * part // 100
        hold.settle(amount)
        self.rows.append((self.live.pop(hold), amount))
        if twice:
            hold.settle(hold.amount)

    @rule(hold=consumes(holds), credit=st.integers(-1000, 0))
    def release(self, hold: Hold | None, credit: int) -> None:
        if hold is not None and self.live.pop(hold, None) is not None:
            hold.settle(credit)

    @rule(hours=st.integers(-30, 60))
    def pass_time(self, hours: int) -> None:
        self.now += hours * 3_600_000

    @precondition(lambda self: not self.live)
    @rule(day=st.integers(0, 2000), month=st.integers(0, 4000), total=st.integers(0, 9000))
    def change_budget(self, day: int, month: int, total: int) -> None:
        self.budget = Budget(day, month, total)

    @rule()
    def crash(self) -> None:
        # What was in flight is charged as it was set aside.
        self.rows += [(moment, hold.amount) for hold, moment in self.live.items()]
        self.live.clear()
        self.ledger = Ledger()
        self.reopen()

    @invariant()
    def the_books_agree(self) -> None:
        account = self.ledger.account(1)
        assert account.held == sum(hold.amount for hold in self.live) >= 0
        assert account.of("total", self.now) == sum(amount for _, amount in self.rows)
        if account.knows(self.now):
            for window in WINDOWS:
                assert account.of(window, self.now) == self.sum(window) >= 0

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        # A budget that was lowered below what is spent lets nothing more through, and that is all it can do.
        for hold in self.live:
            assert hold.amount >= 0
        held = sum(hold.amount for hold in self.live)
        if held and self.budget.total:
            assert sum(amount for _, amount in self.rows) + held <= max(self.budget.total, held)


TestBooks = pytest.mark.promise("L-03")(Books.TestCase)
TestBooks.settings = settings(max_examples=times(80), stateful_step_count=40, deadline=None)
