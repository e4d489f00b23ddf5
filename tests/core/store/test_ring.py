from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from relay.store import Store
from relay.store.keys import digest, now_ms
from relay.store.ring import KeyRing

ROOT = Path(__file__).parents[3]


async def elsewhere(path: Path, code: str) -> str:
    """Do something to the keys in another process."""
    program = (
        "import asyncio, sys\nfrom relay.store import Store\n"
        "async def main():\n    async with await Store.open(sys.argv[1]) as store:\n"
        f"        print({code})\nasyncio.run(main())"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


async def within_a_second(condition: Callable[[], Awaitable[bool]]) -> bool:
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        if await condition():
            return True
        await asyncio.sleep(0.02)
    return False


@pytest.mark.promise("A-14")
@pytest.mark.promise("M-06")
async def test_what_another_process_changes_is_seen_within_a_second(path: Path) -> None:
    async with await Store.open(path, watch=True) as store:
        _, secret = await store.keys.create("one", rpm=5)
        assert await store.ring.lookup(secret) is not None

        await elsewhere(path, "await store.keys.update('one', rpm=7)")

        async def limited() -> bool:
            key = store.ring.get(secret)
            return key is not None and key.rpm == 7

        assert await within_a_second(limited)

        await elsewhere(path, "await store.keys.revoke('one')")

        async def refused() -> bool:
            return store.ring.get(secret) is None and await store.ring.lookup(secret) is None

        assert await within_a_second(refused)

        unknown = "sk-relay-made-in-another-process"
        assert await store.ring.lookup(unknown) is None, "and is remembered as nobody's"
        await elsewhere(path, f"await store.keys.create('two', token={unknown!r})")

        async def known() -> bool:
            return await store.ring.lookup(unknown) is not None

        assert await within_a_second(known)


async def test_an_expired_key_is_refused_at_its_time(store: Store) -> None:
    end = now_ms() + 60_000
    _, secret = await store.keys.create("one", expires_at=end)
    assert await store.ring.lookup(secret) is not None
    store.ring._clock = lambda: end - 1
    assert store.ring.get(secret) is not None
    store.ring._clock = lambda: end
    assert store.ring.get(secret) is None
    assert await store.ring.lookup(secret) is None


async def test_a_known_key_costs_no_query(store: Store) -> None:
    _, secret = await store.keys.create("one")
    assert store.ring.get(secret) is None, "not read yet"
    key = await store.ring.lookup(secret)
    await store.ring.refresh()
    traced: list[str] = []
    await store.ring._reader._connection.set_trace_callback(traced.append)
    for _ in range(100):
        assert store.ring.get(secret) is key
        assert await store.ring.lookup("sk-relay-nobody") is None
    assert len(traced) == 1, "one query for the unknown key, then it is remembered"


async def test_being_used_is_no_change(store: Store, make: Callable[..., Any]) -> None:
    key, _ = await store.keys.create("one")
    ((before,),) = await store.database.reader.fetch("SELECT version FROM keys_version")
    at = now_ms()
    store.usage.put(make(1, key_id=key.id, at=at))
    assert await store.usage.flush(5)
    ((after,),) = await store.database.reader.fetch("SELECT version FROM keys_version")
    assert before == after
    assert (await store.keys.find("one")).last_used_at == at


async def test_memory_is_bounded_for_keys_and_for_strangers(store: Store) -> None:
    ring = KeyRing(store.database.reader, capacity=10)
    secrets = [(await store.keys.create(f"key {number}"))[1] for number in range(25)]
    for secret in secrets:
        assert await ring.lookup(secret) is not None
    for number in range(25):
        assert await ring.lookup(f"nobody {number}") is None
    assert len(ring) == 10
    assert len(ring._misses) == 10
    assert sum(map(len, ring._digests.values())) == 10
    assert ring.get(secrets[0]) is None
    assert await ring.lookup(secrets[0]) is not None, "what was forgotten is read again"
    assert ring.get(secrets[-1]) is not None
    assert ring.get(secrets[15]) is None, "the least recently used went first"


async def test_a_change_reads_only_what_changed(store: Store) -> None:
    secrets = [(await store.keys.create(f"key {number}"))[1] for number in range(30)]
    for secret in secrets[:20]:
        await store.ring.lookup(secret)
    await store.ring.refresh()
    traced: list[str] = []
    await store.ring._reader._connection.set_trace_callback(traced.append)
    await store.keys.update("key 3", rpm=1)
    await store.keys.update("key 29", rpm=1)
    assert [sql for sql in traced if "json_each('[4]')" in sql], "only the one in memory is read again"
    assert not [sql for sql in traced if "30]" in sql]
    changed = store.ring.get(secrets[3])
    assert changed is not None
    assert changed.rpm == 1


@pytest.mark.promise("A-15")
@pytest.mark.parametrize("token", ["", "\udcff\udcfe", "x" * 100_000, "é", "\0", "' OR '1'='1", "sk-relay-"])
async def test_any_header_value_is_judged_without_an_error(store: Store, token: str) -> None:
    await store.keys.create("one")
    assert store.ring.get(token) is None
    assert await store.ring.lookup(token) is None


async def test_a_change_is_never_overwritten_by_an_older_row(store: Store) -> None:
    """Look-ups and changes race: after both are done, the ring must know the change."""
    for number in range(20):
        key, secret = await store.keys.create(f"key {number}")
        await asyncio.gather(store.ring.lookup(secret), store.keys.revoke(key.id), store.ring.lookup(secret))
        await store.ring.refresh()
        assert store.ring.get(secret) is None
        assert await store.ring.lookup(secret) is None


async def test_a_lock_or_fault_leaves_known_keys_working(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    async with await Store.open(path) as store:
        _, secret = await store.keys.create("one")
        ring = KeyRing(await store.database.new_reader(), poll=0.01)
        await ring.start()
        assert await ring.lookup(secret) is not None

        async def broken(*_: object) -> list[tuple[Any, ...]]:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(ring._reader, "fetch", broken)
            await asyncio.sleep(0.1)
            assert ring.get(secret) is not None
        assert caplog.text.count("changes to the keys cannot be read") == 1
        await store.keys.revoke("one")

        async def refused() -> bool:
            return ring.get(secret) is None

        assert await within_a_second(refused), "it goes on watching"
        await ring.close()


def test_the_digest_takes_every_string() -> None:
    assert digest("\udcff") != digest("\udcfe")
    assert len(digest("")) == 32
