"""API keys: made, listed, changed, revoked. Only the SHA-256 of a key is stored, so the file opens no doors.

`Keys` is the management side, used by commands and dashboards. Serving looks keys up through `relay.store.ring`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Final

import aiosqlite

from relay.budget import WINDOWS
from relay.secret import Secret
from relay.store.database import Database, StoreError

__all__ = ["COLUMNS", "Key", "Keys", "Limits", "digest", "key_from_row", "now_ms"]

PREFIX = "sk-relay-"
SHOWN: Final = 4
"""Characters of a key's random part that lists show: enough to tell keys apart, too few to help guessing."""
SHORTEST = 20
"""Characters that an imported key must have."""
LONGEST_NAME = 200
LARGEST = 2**53
"""Limits above this are mistakes; up to here JSON keeps them exact."""

COLUMNS = (
    "id, prefix, name, created_at, expires_at, revoked_at, last_used_at, models, rpm, tpm, concurrency, model_limits,"
    " strict, metadata, old_until, budget, abort"
)


CHANGEABLE: Final = (
    "name",
    "expires_at",
    "models",
    "rpm",
    "tpm",
    "concurrency",
    "model_limits",
    "strict",
    "metadata",
    "budget",
    "abort",
)
ABORT: Final = (None, "cancel", "drain")


def now_ms() -> int:
    """Now, in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def digest(token: str) -> bytes:
    """What is stored and looked up instead of a key. Takes any header value, well-formed or not."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one key for one model. None: the configured default; 0: no limit."""

    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None

    def to_dict(self) -> dict[str, int]:
        """The limits that are set."""
        pairs = {"rpm": self.rpm, "tpm": self.tpm, "concurrency": self.concurrency}
        return {name: value for name, value in pairs.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its secret. Times are Unix milliseconds. Limits: None is the default, 0 is no limit."""

    id: int
    prefix: str
    """The first characters, for people to recognise it by: `sk-relay-AbCd...`."""
    name: str
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None
    """Within about a minute."""
    models: tuple[str, ...] | None = None
    """Model names or `fnmatch` patterns that the key may use; None: all."""
    rpm: int | None = None
    """Requests per minute."""
    tpm: int | None = None
    """Tokens per minute."""
    concurrency: int | None = None
    """Calls at the same time."""
    model_limits: Mapping[str, Limits] = field(default_factory=dict)
    """Further limits by model name; they apply as well as the key's own."""
    strict: bool = False
    """Refuse what a target cannot carry, instead of reporting it as a loss."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    old_until: int | None = None
    """After a rotation with a grace period: until when the old secret still works."""
    budget: Mapping[str, int] = field(default_factory=dict)
    """Nano-dollars for each `day`, `month` or in `total`. What is missing is as configured; 0 is no limit."""
    abort: str | None = None
    """`cancel` or `drain`: what becomes of its answers whose client has gone; None: as the upstream says."""
    secret: Secret | None = field(default=None, compare=False, repr=False)
    """The secret that it was found by, in a relay that serves. It opens what is kept for it, and is stored nowhere."""

    def live(self, now: int) -> bool:
        """Whether the key works at `now`, in Unix milliseconds."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def state(self, now: int) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "active" if self.live(now) else "expired"

    def allows(self, model: str) -> bool:
        """Whether the key may use a model of that exact name. Case counts, and nothing is trimmed or decoded."""
        if self.models is None:
            return True
        return model in self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def to_dict(self) -> dict[str, Any]:
        """The key for JSON: every field, in plain types."""
        return {
            "id": self.id,
            "prefix": self.prefix,
            "name": self.name,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "revoked_at": self.revoked_at,
            "last_used_at": self.last_used_at,
            "models": None if self.models is None else list(self.models),
            "rpm": self.rpm,
            "tpm": self.tpm,
            "concurrency": self.concurrency,
            "model_limits": {model: limits.to_dict() for model, limits in self.model_limits.items()},
            "strict": self.strict,
            "metadata": dict(self.metadata),
            "old_until": self.old_until,
            "budget": dict(self.budget),
            "abort": self.abort,
        }


def key_from_row(row: Sequence[Any]) -> Key:
    """A key of a row of `COLUMNS`."""
    models, limits, metadata = row[7], json.loads(row[11]), json.loads(row[13])
    return Key(
        id=row[0],
        prefix=row[1],
        name=row[2],
        created_at=row[3],
        expires_at=row[4],
        revoked_at=row[5],
        last_used_at=row[6],
        models=None if models is None else tuple(json.loads(models)),
        rpm=row[8],
        tpm=row[9],
        concurrency=row[10],
        model_limits={model: Limits(**values) for model, values in limits.items()},
        strict=bool(row[12]),
        metadata=metadata,
        old_until=row[14],
        budget=json.loads(row[15]),
        abort=row[16],
    )


def _checked(key: Key) -> Key:
    if not key.name or key.name != key.name.strip() or not key.name.isprintable() or len(key.name) > LONGEST_NAME:
        raise StoreError(f"a key's name is 1 to {LONGEST_NAME} printable characters without spaces around it")
    if key.name.isdigit():
        raise StoreError("a key's name may not be a number: keys are also found by their id")
    for limits in (key, *key.model_limits.values()):
        for name in ("rpm", "tpm", "concurrency"):
            value = getattr(limits, name)
            if value is not None and not 0 <= value <= LARGEST:
                raise StoreError(f"{name} must be 0 (no limit) or a positive number up to {LARGEST}, not {value}")
    for window, value in key.budget.items():
        if window not in WINDOWS:
            raise StoreError(f"there is no budget for {window!r}: choose from {', '.join(WINDOWS)}")
        if not 0 <= value <= LARGEST:
            raise StoreError(f"a budget must be 0 (no limit) or up to {LARGEST} nano-dollars, not {value}")
    if key.abort not in ABORT:
        raise StoreError(f"abort must be cancel or drain, not {key.abort!r}")
    if key.models is not None and not all(key.models):
        raise StoreError("the name of an allowed model is empty")
    return key


def _values(key: Key) -> dict[str, Any]:
    return {
        "prefix": key.prefix,
        "name": key.name,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "models": None if key.models is None else json.dumps(key.models),
        "rpm": key.rpm,
        "tpm": key.tpm,
        "concurrency": key.concurrency,
        "model_limits": json.dumps({model: limits.to_dict() for model, limits in key.model_limits.items()}),
        "strict": int(key.strict),
        "metadata": json.dumps(dict(key.metadata)),
        "budget": json.dumps(dict(key.budget)),
        "abort": key.abort,
    }


def _shown(token: str) -> str:
    return (token[: len(PREFIX) + SHOWN] if token.startswith(PREFIX) else token[:SHOWN]) + "..."


async def _nothing() -> None:
    """Stands for a listener where there is none."""


class Keys:
    """The table of keys. Every method raises StoreError with a message for people."""

    def __init__(self, database: Database, changed: Callable[[], Awaitable[None]] = _nothing) -> None:
        self._database = database
        self._changed = changed

    async def create(
        self,
        name: str,
        *,
        expires_at: int | None = None,
        models: Sequence[str] | None = None,
        rpm: int | None = None,
        tpm: int | None = None,
        concurrency: int | None = None,
        model_limits: Mapping[str, Limits] | None = None,
        strict: bool = False,
        metadata: Mapping[str, Any] | None = None,
        budget: Mapping[str, int] | None = None,
        abort: str | None = None,
        token: str | None = None,
    ) -> tuple[Key, str]:
        """A new key, and its secret, which can never be shown again.

        `token` imports a secret that exists already. The name must not be that of another key that is not revoked.
        """
        if token is None:
            token = PREFIX + secrets.token_urlsafe(32)
        elif len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
            # Only what a client can put into a header.
            raise StoreError(f"an imported key must be {SHORTEST} or more visible ASCII characters")
        key = _checked(
            Key(
                id=0,
                prefix=_shown(token),
                name=name,
                created_at=now_ms(),
                expires_at=expires_at,
                models=None if models is None else tuple(models),
                rpm=rpm,
                tpm=tpm,
                concurrency=concurrency,
                model_limits=dict(model_limits or {}),
                strict=strict,
                metadata=dict(metadata or {}),
                budget=dict(budget or {}),
                abort=abort,
            )
        )
        values = _values(key) | {"digest": digest(token)}

        async def insert(connection: aiosqlite.Connection) -> int:
            await _refuse_old(connection, values["digest"])
            columns = ", ".join(values)
            places = ", ".join(f":{column}" for column in values)
            async with connection.execute(f"INSERT INTO keys ({columns}) VALUES ({places})", values) as cursor:  # noqa: S608 - our own column names
                return cursor.lastrowid or 0

        number = await self._write(insert, name)
        return replace(key, id=number), token

    async def all(self, *, revoked: bool = False) -> list[Key]:
        """All keys, oldest first; revoked ones only if asked for."""
        condition = "" if revoked else "WHERE revoked_at IS NULL"
        return [key_from_row(row) for row in await self._fetch(f"SELECT {COLUMNS} FROM keys {condition} ORDER BY id")]  # noqa: S608 - constants

    async def find(self, which: str | int, *, revoked: bool = True) -> Key:
        """One key by its id, its name, or the beginning of its prefix.

        A key that is not revoked comes before revoked ones of the same name. Raises StoreError if there is none, or if
        several fit.
        """
        text = str(which).strip()
        keys = await self._matching(text)
        if not revoked:
            keys = [key for key in keys if key.revoked_at is None]
        live = [key for key in keys if key.revoked_at is None]
        candidates = live or keys
        if not candidates:
            raise StoreError(f"there is no key {text!r}: `relay keys list` shows them all")
        if len(candidates) > 1:
            ids = ", ".join(str(key.id) for key in candidates[:10])
            raise StoreError(f"{text!r} fits several keys (ids {ids}): give the id")
        return candidates[0]

    async def _matching(self, text: str) -> list[Key]:
        # An id, then a name, then a prefix: the first of these that finds anything decides.
        searches: list[tuple[str, Any]] = [("name = ?", text)]
        if text.isascii() and text.isdigit() and len(text) < 19:
            searches.insert(0, ("id = ?", int(text)))
        prefix = text.removesuffix("...")
        if len(prefix) >= SHOWN:
            searches.append(("substr(prefix, 1, length(?1)) = ?1", prefix))
        for condition, value in searches:
            rows = await self._fetch(f"SELECT {COLUMNS} FROM keys WHERE {condition} ORDER BY id LIMIT 100", (value,))  # noqa: S608 - constants
            if rows:
                return [key_from_row(row) for row in rows]
        return []

    async def update(self, which: str | int, **changes: Any) -> Key:
        """Change a key that is not revoked: name, expires_at, models, limits, strict, metadata, budget, abort.

        Takes the arguments of `create` except `token`. What is not given stays.
        """
        allowed = set(CHANGEABLE)
        unknown = sorted(changes.keys() - allowed)
        if unknown:
            raise StoreError(f"a key has no field {unknown[0]!r} that can be changed")
        if changes.get("models") is not None:
            changes["models"] = tuple(changes["models"])
        key = await self.find(which, revoked=False)
        changed = _checked(replace(key, **changes))
        values = _values(changed)
        # Only what was asked for: another process may change other fields at the same moment.
        columns = ", ".join(f"{name} = :{name}" for name in changes)
        if not columns:
            return key

        async def change(connection: aiosqlite.Connection) -> int:
            parameters = {name: values[name] for name in changes} | {"id": key.id}
            async with connection.execute(
                f"UPDATE keys SET {columns} WHERE id = :id AND revoked_at IS NULL",  # noqa: S608 - names checked above
                parameters,
            ) as cursor:
                return cursor.rowcount

        await self._one(change, key, changed.name)
        return await self.find(key.id)

    async def revoke(self, which: str | int) -> Key:
        """End a key for good. Its row stays, because usage rows name it; its name becomes free."""
        key = await self.find(which)
        if key.revoked_at is not None:
            raise StoreError(f"the key {key.name!r} (id {key.id}) is revoked already")

        async def change(connection: aiosqlite.Connection) -> int:
            sql = "UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL"
            async with connection.execute(sql, (now_ms(), key.id)) as cursor:
                return cursor.rowcount

        await self._one(change, key, key.name)
        return await self.find(key.id)

    async def rotate(self, which: str | int, *, grace: int = 0) -> tuple[Key, str]:
        """A new secret for the same key: id, limits and history stay.

        The old secret works for `grace` more milliseconds, but never longer than the key. One rotated away before that
        ends at once.
        """
        if grace < 0:
            raise StoreError("the grace period cannot be negative")
        key = await self.find(which, revoked=False)
        token = PREFIX + secrets.token_urlsafe(32)
        until = now_ms() + grace if grace else None

        async def change(connection: aiosqlite.Connection) -> int:
            sql = (
                "UPDATE keys SET old_digest = CASE WHEN :until IS NULL THEN NULL ELSE digest END, old_until = :until,"
                " digest = :digest, prefix = :prefix WHERE id = :id AND revoked_at IS NULL"
            )
            values = {"until": until, "digest": digest(token), "prefix": _shown(token), "id": key.id}
            async with connection.execute(sql, values) as cursor:
                return cursor.rowcount

        await self._one(change, key, key.name)
        return await self.find(key.id), token

    async def _fetch(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return await self._database.reader.fetch(sql, parameters)
        except sqlite3.Error as error:
            raise StoreError(f"the keys cannot be read: {error}") from error

    async def _one(self, change: Callable[[aiosqlite.Connection], Awaitable[int]], key: Key, name: str) -> None:
        if not await self._write(change, name):
            raise StoreError(f"the key {key.name!r} (id {key.id}) was revoked by someone else meanwhile")

    async def _write(self, work: Callable[[aiosqlite.Connection], Awaitable[int]], name: str) -> int:
        try:
            result = await self._database.write(work)
        except sqlite3.IntegrityError as error:
            if "keys.name" in str(error):
                raise StoreError(f"there is a key named {name!r} already: revoke it or choose another name") from error
            raise StoreError("this secret belongs to a key already") from error
        except sqlite3.Error as error:
            raise StoreError(f"the key cannot be stored: {error}") from error
        await self._changed()
        return result


async def _refuse_old(connection: aiosqlite.Connection, value: bytes) -> None:
    """A secret that was rotated away may not be imported as another key while it still works."""
    async with connection.execute("SELECT 1 FROM keys WHERE old_digest = ?", (value,)) as cursor:
        if await cursor.fetchone():
            raise StoreError("this secret belongs to a key already")
