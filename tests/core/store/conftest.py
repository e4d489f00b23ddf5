from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from relay.ir import Usage
from relay.pricing import Price, Rates
from relay.store import Store, UsageRow

PRICE = Price(Rates(input=1_000_000_000, output=4_000_000_000, cache_read=100_000_000), source="test 1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "relay.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with await Store.open(path) as store:
        yield store


@pytest.fixture
def sql(path: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """Ask the file through a connection of its own."""

    def ask(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            return connection.execute(statement, parameters).fetchall()
        finally:
            connection.close()

    return ask


@pytest.fixture
def make() -> Callable[..., UsageRow]:
    """A usage row like a finished call's; `number` makes it another one."""

    def make(number: int = 0, **changes: Any) -> UsageRow:
        values: dict[str, Any] = {
            "request_id": f"req_{number * 2654435761 % 2**128:032x}",
            "at": 1_790_000_000_000 + number * 37,
            "key_id": 1,
            "operation": "generate",
            "model": "small",
            "upstream": "one",
            "target_model": "small-2026",
            "family": "openai",
            "dialect": "openai-chat",
            "stream": bool(number % 2),
            "status": 200,
            "outcome": "ok",
            "usage_source": "provider",
            "usage": Usage(input=1000 + number % 500, output=200, cache_read=number % 100, reasoning=0),
            "price": PRICE,
            "cost": 1_800_000 + number,
            "first_byte_ms": 300,
            "duration_ms": 2500,
            "attempts": 1,
        }
        return UsageRow(**values | changes)

    return make
