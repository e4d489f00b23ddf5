"""Fill a relay's database, so that a benchmark knows a key and finds as much stored as it wants.

python benchmarks/key.py DATABASE KEY [KEYS [ROWS]]
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import sys
import time
from pathlib import Path

from relay.ir import Usage
from relay.store import Store, UsageRow

SOME = 64
"""Usage rows that are stored as the relay does; the others are copies of them."""


async def main(database: str, key: str, keys: int = 1, rows: int = 0) -> None:
    store = await Store.open(Path(database))
    try:
        created, _ = await store.keys.create("benchmark", token=key)
        now = int(time.time() * 1000)
        for number in range(min(rows, SOME)):
            store.usage.put(
                UsageRow(
                    request_id=f"req_{number:016x}{number:08x}",
                    at=now - rows + number,
                    key_id=created.id,
                    operation="generate",
                    model="mock",
                    upstream="chat",
                    usage=Usage(20, 180),
                )
            )
    finally:
        await store.close()
    fill(database, keys, rows)


def fill(database: str, keys: int, rows: int) -> None:
    """Many keys and rows at once, past everything that looks at each of them."""
    with sqlite3.connect(database) as connection:
        connection.executemany(
            "INSERT INTO keys (digest, prefix, name, created_at) VALUES (?, 'sk-filler', ?, 0)",
            ((hashlib.sha256(f"filler {number}".encode()).digest(), f"filler {number}") for number in range(keys - 1)),
        )
        names = [row[1] for row in connection.execute("PRAGMA table_info(usage)") if row[1] != "id"]
        while (stored := connection.execute("SELECT count(*) FROM usage").fetchone()[0]) < rows:
            columns = ", ".join(names)
            connection.execute(
                f"INSERT INTO usage ({columns}) SELECT {columns} FROM usage LIMIT ?",
                (rows - stored,),
            )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3], *map(int, sys.argv[3:])))
