"""What a call costs: tokens and a price in, integer nano-dollars out. Pure arithmetic, no look-ups.

Money is counted in nano-dollars (10**-9 USD) and rates in nano-dollars per million tokens, both integers: a rate of
$0.0375 per million tokens is exact, and sums of costs never drift.
"""

from __future__ import annotations

from dataclasses import dataclass

from relay.ir import Usage

__all__ = ["NANO", "Price", "Rates", "Tier", "cost", "rate", "usd"]

NANO = 1_000_000_000
"""Nano-dollars in a dollar."""
MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-dollars per million tokens. None: billed like the whole that it is part of (`input` or `output`)."""

    input: int
    output: int
    cache_read: int | None = None
    cache_write_5m: int | None = None
    cache_write_1h: int | None = None
    reasoning: int | None = None
    audio_in: int | None = None
    audio_out: int | None = None


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates for the whole call once its prompt holds more than `above` tokens."""

    above: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs at one vendor, and who says so.

    Equal prices are one row in the store; each usage row names the row that it was priced with.
    """

    rates: Rates
    tiers: tuple[Tier, ...] = ()
    request: int = 0
    """Nano-dollars per call, whatever its tokens."""
    source: str = "config"
    """Where it comes from: `config`, or the name and version of a catalogue."""

    def at(self, prompt_tokens: int) -> Rates:
        """The rates for a prompt of that size."""
        rates = self.rates
        for tier in self.tiers:
            if prompt_tokens > tier.above:
                rates = tier.rates
        return rates


def cost(usage: Usage, price: Price) -> int:
    """Nano-dollars of one call, rounded half up. What the upstream did not report counts as nothing."""
    total_in = usage.input or 0
    total_out = usage.output or 0
    rates = price.at(total_in) if price.tiers else price.rates
    if not (
        usage.cache_read
        or usage.cache_write_5m
        or usage.cache_write_1h
        or usage.audio_in
        or usage.reasoning
        or usage.audio_out
    ):
        return price.request + (total_in * rates.input + total_out * rates.output + MILLION // 2) // MILLION
    parts_in = (
        (usage.cache_read, rates.cache_read),
        (usage.cache_write_5m, rates.cache_write_5m),
        (usage.cache_write_1h, rates.cache_write_1h),
        (usage.audio_in, rates.audio_in),
    )
    parts_out = ((usage.reasoning, rates.reasoning), (usage.audio_out, rates.audio_out))
    scaled = _side(total_in, rates.input, parts_in) + _side(total_out, rates.output, parts_out)
    return price.request + (scaled + MILLION // 2) // MILLION


def _side(total: int, whole: int, parts: tuple[tuple[int | None, int | None], ...]) -> int:
    """Tokens times rate for one direction. A part never counts for more than what is left of its whole."""
    left = total
    scaled = 0
    for tokens, rate_ in parts:
        if tokens and rate_ is not None:
            counted = min(tokens, left)
            scaled += counted * rate_
            left -= counted
    return scaled + left * whole


def rate(usd_per_million: float | str) -> int:
    """A rate as people write it (USD per million tokens) in nano-dollars per million tokens.

    >>> rate("0.0375")
    37500000
    """
    from decimal import Decimal

    return int((Decimal(str(usd_per_million)) * NANO).to_integral_value())


def usd(nano: int) -> str:
    """Nano-dollars as a decimal dollar amount, exact and without trailing zeros.

    >>> usd(1_234_500_000)
    '1.2345'
    """
    whole, rest = divmod(abs(nano), NANO)
    text = f"{whole}.{rest:09d}".rstrip("0").rstrip(".")
    return f"-{text}" if nano < 0 else text
