"""Makes the price file: `python -m relay_prices.snapshot FILE`, always in a process of its own.

The data comes from the installed package genai-prices. Importing that costs 23 MB and a quarter of a second, so the
serving process reads this file instead: plain JSON with integer rates (nano-dollars per million tokens), of the form

    {"schema": 1, "source": "genai-prices 0.2.3", "providers": [
        {"id": ..., "name": ..., "api": regex, "fallback": [provider ids],
         "models": [[id, match, context_window, prices], ...]}]}

    match   ["equals" | "starts_with" | "ends_with" | "contains" | "regex", text] | ["or" | "and", match...]
    prices  [[when, price], ...]   the last one whose `when` holds counts, else the first
    when    null | ["from", Unix second] | ["daily", second of the UTC day, second of the UTC day]
    price   null (not known) | {"rates": {...}, "tiers": [[above, rates], ...], "request": nano-dollars}
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

__all__ = ["SCHEMA", "convert", "linear", "write"]

SCHEMA = 1
"""Goes up with every change of the form above: files of other forms are not read."""

NANO = 1_000_000_000

RATES = {
    "input": ("input_mtok",),
    "output": ("output_mtok",),
    "cache_read": ("cache_read_mtok",),
    "cache_write_5m": ("cache_write_5m_mtok", "cache_write_mtok"),
    "cache_write_1h": ("cache_write_1h_mtok", "cache_write_mtok"),
    "reasoning": ("output_reasoning_mtok",),
    "audio_in": ("input_audio_mtok",),
    "audio_out": ("output_audio_mtok",),
}
"""Our rates, and where each is found there: the first of these that is set."""

LEAVES = ("equals", "starts_with", "ends_with", "contains")


def linear(pattern: str) -> bool:
    """Whether a regular expression is safe on text from clients: at most one part of it repeats without bound."""
    plain = re.sub(r"\\.", "x", pattern)
    plain = re.sub(r"\[\^?\]?[^\]]*\]", "x", plain)
    return len(re.findall(r"[*+]|\{\d*,\}", plain)) <= 1


def convert() -> dict[str, Any]:
    """All of genai-prices in our form."""
    from importlib.metadata import version

    from genai_prices.data import providers

    return {
        "schema": SCHEMA,
        "source": f"genai-prices {version('genai-prices')}",
        "providers": [
            {
                "id": provider.id,
                "name": provider.name,
                "api": provider.api_pattern if linear(provider.api_pattern) else None,
                "fallback": provider.fallback_model_providers or [],
                "models": [
                    [model.id, _match(model.match), model.context_window, _prices(model)] for model in provider.models
                ],
            }
            for provider in providers
        ],
    }


def _match(clause: Any) -> list[Any]:
    for kind in LEAVES:
        if hasattr(clause, kind):
            return [kind, getattr(clause, kind).lower()]
    if hasattr(clause, "regex"):
        # One that could run for long on a hostile name matches nothing: no price is better than no relay.
        return ["regex", clause.regex] if linear(clause.regex) else ["or"]
    if hasattr(clause, "or_"):
        return ["or", *map(_match, clause.or_)]
    return ["and", *map(_match, clause.and_)]


def _prices(model: ModelInfo) -> list[list[Any]]:
    if isinstance(model.prices, list):
        return [[_when(item.constraint), _price(model, item.prices)] for item in model.prices]
    return [[None, _price(model, model.prices)]]


def _when(constraint: Any) -> list[Any] | None:
    if constraint is None:
        return None
    if hasattr(constraint, "start_date"):
        start: date = constraint.start_date
        return ["from", int(datetime(start.year, start.month, start.day, tzinfo=UTC).timestamp())]
    return ["daily", _second(constraint.start_time), _second(constraint.end_time)]


def _second(moment: time) -> int:
    """Of the UTC day. Times without a zone are UTC."""
    offset = moment.utcoffset()
    seconds = moment.hour * 3600 + moment.minute * 60 + moment.second
    return (seconds - int(offset.total_seconds() if offset else 0)) % 86400


def _price(model: ModelInfo, price: ModelPrice) -> dict[str, Any] | None:
    """None if tokens alone do not say what a call costs, or nobody said what they cost."""
    values = {key: value for key, value in vars(price).items() if value is not None}
    if not values:
        text = f"{model.price_comments} {model.description}".lower()
        free = ":free" in model.id or "free of charge" in text
        return {"rates": {"input": 0, "output": 0}, "tiers": [], "request": 0} if free else None
    if "input_mtok" not in values and "output_mtok" not in values:
        return None
    starts = sorted({tier.start for value in values.values() for tier in getattr(value, "tiers", ())})
    request = values.get("requests_kcount")
    return {
        "rates": _rates(values, -1),
        "tiers": [[start, _rates(values, start)] for start in starts],
        "request": 0 if request is None else _nano(_at(request, -1) / 1000),
    }


def _rates(values: dict[str, Decimal | TieredPrices], above: int) -> dict[str, int]:
    rates = {"input": 0, "output": 0}
    for name, keys in RATES.items():
        key = next((key for key in keys if key in values), None)
        if key is not None:
            rates[name] = _nano(_at(values[key], above))
    return rates


def _at(value: Decimal | TieredPrices, above: int) -> Decimal:
    """The rate once the prompt holds more than `above` tokens."""
    if isinstance(value, Decimal):
        return value
    rate = value.base
    for tier in value.tiers:
        if tier.start <= above:
            rate = tier.price
    return rate


def _nano(dollars: Decimal) -> int:
    return int((dollars * NANO).to_integral_value())


def write(path: Path) -> None:
    """Make the file, whole or not at all, readable by its owner alone. Raises OSError or ImportError."""
    data = json.dumps(convert(), separators=(",", ":"), ensure_ascii=False).encode()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m relay_prices.snapshot FILE")
    try:
        write(Path(sys.argv[1]))
    except (OSError, ImportError) as error:
        sys.exit(f"the price file cannot be made: {error}")
