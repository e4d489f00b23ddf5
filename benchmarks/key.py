"""Put a key into a relay's database, so that a benchmark knows it: python benchmarks/key.py DATABASE KEY."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from relay.store import Store


async def main(database: str, key: str) -> None:
    store = await Store.open(Path(database))
    try:
        await store.keys.create("benchmark", token=key)
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
