from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.store import Limits, Store, StoreError
from relay.store.keys import SHORTEST, now_ms

Sql = Callable[..., list[tuple[Any, ...]]]


async def test_a_new_key_is_shown_once_and_stored_as_a_hash(store: Store, sql: Sql, path: Path) -> None:
    key, secret = await store.keys.create("laptop")
    assert secret.startswith("sk-relay-")
    assert len(secret) >= 9 + 43
    assert key.prefix == secret[:13] + "..."
    assert abs(key.created_at - now_ms()) < 5000
    assert sql("SELECT digest FROM keys") == [(hashlib.sha256(secret.encode()).digest(),)]
    await store.close()
    data = await asyncio.to_thread(path.read_bytes)
    assert secret.encode() not in data
    assert secret[14:].encode() not in data


async def test_secrets_never_reach_a_statement(store: Store) -> None:
    traced: list[str] = []
    for connection in (store.database.connection, store.database.reader._connection, store.ring._reader._connection):
        await connection.set_trace_callback(traced.append)
    _, secret = await store.keys.create("one")
    imported = "an-imported-secret-of-mine"
    await store.keys.create("two", token=imported)
    _, rotated = await store.keys.rotate("one", grace=1000)
    hostile = [
        "' OR 1=1 --",
        "%",
        "_",
        "x\0y",
        '"; DROP TABLE keys; --',
        "\udcff\udcfe",
        "🔑" * 2000,
        "sk-relay-" + "a" * 8192,
    ]
    for token in (secret, imported, rotated, *hostile):
        store.ring.get(token)
        await store.ring.lookup(token)
    assert len(traced) > 10, "statements were seen"
    text = "\n".join(traced)
    for token in (secret, imported, rotated, *(token for token in hostile if len(token) > 3)):
        assert token not in text
    assert len(await store.keys.all()) == 2


async def test_everything_that_is_set_is_read_again(store: Store) -> None:
    key, _ = await store.keys.create(
        "full",
        expires_at=now_ms() + 1000,
        models=["gpt-*", "claude"],
        rpm=5,
        tpm=0,
        concurrency=3,
        model_limits={"gpt-4o": Limits(rpm=1, tpm=2, concurrency=0), "b": Limits(tpm=7)},
        strict=True,
        metadata={"team": "süd", "n": [1, None]},
    )
    assert await store.keys.find(key.id) == key
    assert await store.keys.all() == [key]


async def test_names_are_unique_among_keys_that_are_not_revoked(store: Store) -> None:
    first, _ = await store.keys.create("laptop")
    with pytest.raises(StoreError, match="a key named 'laptop' already"):
        await store.keys.create("laptop")
    await store.keys.revoke("laptop")
    second, _ = await store.keys.create("laptop")
    assert (await store.keys.find("laptop")).id == second.id, "the live one is found by name"
    with pytest.raises(StoreError, match="already"):
        await store.keys.revoke(first.id)
    other, _ = await store.keys.create("other")
    with pytest.raises(StoreError, match="a key named 'laptop' already"):
        await store.keys.update(other.id, name="laptop")


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "12", "x" * 201, "\x1b[31m"])
async def test_names_that_would_confuse_are_refused(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="a key's name"):
        await store.keys.create(name)
    assert await store.keys.all() == []


@pytest.mark.parametrize("values", [{"rpm": -1}, {"tpm": 2**60}, {"model_limits": {"a": Limits(rpm=-5)}}])
async def test_limits_that_make_no_sense_are_refused(store: Store, values: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match=r"must be 0 \(no limit\) or a positive number"):
        await store.keys.create("x", **values)


@pytest.mark.parametrize("token", ["x" * (SHORTEST - 1), "ä" * 30, "a b" * 20, "abc\n" * 20, ""])
async def test_secrets_that_are_too_weak_or_cannot_be_sent_are_refused(store: Store, token: str) -> None:
    with pytest.raises(StoreError, match="20 or more visible ASCII"):
        await store.keys.create("x", token=token)


async def test_a_secret_belongs_to_one_key(store: Store) -> None:
    await store.keys.create("one", token="a" * 20)
    with pytest.raises(StoreError, match="belongs to a key already"):
        await store.keys.create("two", token="a" * 20)
    await store.keys.revoke("one")
    with pytest.raises(StoreError, match="belongs to a key already"):
        await store.keys.create("two", token="a" * 20)
    await store.keys.create("three", token="b" * 20)
    await store.keys.rotate("three", grace=60_000)
    with pytest.raises(StoreError, match="belongs to a key already"):
        await store.keys.create("four", token="b" * 20)


async def test_keys_are_found_by_id_name_and_beginning(store: Store) -> None:
    one, _ = await store.keys.create("one", token="aaaa1" + "x" * 20)
    two, _ = await store.keys.create("two", token="bbbb2" + "x" * 20)
    three, _ = await store.keys.create("three", token="bbbb3" + "x" * 20)
    assert await store.keys.find(one.id) == one
    assert await store.keys.find(str(two.id)) == two
    assert await store.keys.find("three") == three
    assert await store.keys.find("aaaa...") == one
    with pytest.raises(StoreError, match=r"fits several keys \(ids 2, 3\)"):
        await store.keys.find("bbbb")
    for nothing in ("nobody", "", "99", "%", "' OR 1=1 --", "9" * 30, "_" * 4):
        with pytest.raises(StoreError, match="there is no key"):
            await store.keys.find(nothing)


async def test_an_update_changes_what_is_given_and_leaves_the_rest(store: Store) -> None:
    key, secret = await store.keys.create("one", rpm=5, tpm=6, models=["a"])
    changed = await store.keys.update("one", name="uno", rpm=None, models=["a", "b"], strict=True)
    assert changed == replace(key, name="uno", rpm=None, models=("a", "b"), strict=True)
    assert await store.ring.lookup(secret) == changed
    assert await store.keys.update("uno") == changed
    with pytest.raises(StoreError, match="no field 'digest'"):
        await store.keys.update("uno", digest=b"")
    await store.keys.revoke("uno")
    with pytest.raises(StoreError, match="there is no key"):
        await store.keys.update("uno", rpm=1)


async def test_a_rotated_key_keeps_its_row_and_the_old_secret_is_dead(store: Store) -> None:
    key, old = await store.keys.create("one", rpm=5)
    rotated, new = await store.keys.rotate("one")
    assert new != old
    assert (rotated.id, rotated.rpm, rotated.created_at) == (key.id, 5, key.created_at)
    assert rotated.prefix == new[:13] + "..."
    assert await store.ring.lookup(old) is None
    assert await store.ring.lookup(new) == rotated


async def test_with_a_grace_period_both_secrets_work_until_it_is_over(store: Store) -> None:
    _, old = await store.keys.create("one")
    assert await store.ring.lookup(old) is not None
    rotated, new = await store.keys.rotate("one", grace=60_000)
    assert rotated.old_until is not None
    assert store.ring.get(old) == rotated, "seen at once in this process"
    assert await store.ring.lookup(new) == rotated
    store.ring._clock = lambda: rotated.old_until or 0
    assert store.ring.get(old) is None
    assert store.ring.get(new) == rotated
    again, newest = await store.keys.rotate("one")
    assert await store.ring.lookup(new) is None
    assert await store.ring.lookup(newest) == again


async def test_revoking_ends_the_old_secret_too(store: Store) -> None:
    _, old = await store.keys.create("one")
    await store.keys.rotate("one", grace=60_000)
    assert await store.ring.lookup(old) is not None
    await store.keys.revoke("one")
    assert store.ring.get(old) is None
    assert await store.ring.lookup(old) is None


async def test_keys_are_never_deleted(store: Store) -> None:
    await store.keys.create("one")
    with pytest.raises(Exception, match="revoked, never deleted"):
        await store.database.connection.execute_fetchall("DELETE FROM keys")


async def test_model_names_are_matched_exactly_or_by_pattern(store: Store) -> None:
    key, _ = await store.keys.create("one", models=["acme/*", "gpt-4o", "o[13]-mini"])
    assert [name for name in ("acme/m", "acme/x/y", "gpt-4o", "o1-mini") if not key.allows(name)] == []
    refused = ("acmez/m", "ACME/m", " acme/m", "gpt-4o-mini", "GPT-4o", "gpt-4o ", "o2-mini", "", "acme")
    assert [name for name in refused if key.allows(name)] == []
    everything, _ = await store.keys.create("two")
    assert everything.allows("anything")
    nothing, _ = await store.keys.create("three", models=[])
    assert not nothing.allows("anything")


async def test_states_are_told_apart(store: Store) -> None:
    key, _ = await store.keys.create("one", expires_at=1000)
    assert (key.state(999), key.state(1000)) == ("active", "expired")
    revoked = await store.keys.revoke("one")
    assert revoked.state(0) == "revoked"
    assert await store.keys.all() == []
    assert await store.keys.all(revoked=True) == [revoked]
