"""`relay keys`: create, list, change and revoke API keys. A running relay sees every change within a second."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click

from relay.budget import WINDOWS
from relay.cli.database import database_option, json_option, with_store
from relay.cli.moment import DURATION, FUTURE, shown
from relay.cli.options import fail
from relay.pricing import rate, usd
from relay.table import table

if TYPE_CHECKING:
    from relay.store import Key, Store

__all__ = ["keys"]

COLUMNS: Final = ("ID", "NAME", "KEY", "STATE", "CREATED", "EXPIRES", "LAST USED", "MODELS", "RPM", "TPM", "CALLS")
DEFAULT: Final = "default"
NEVER: Final = "never"
LIMITS: Final = ("rpm", "tpm", "concurrency")

Command: TypeAlias = Callable[..., None]


class Limit(click.ParamType[int | str]):
    """A limit: a number, 0 for none, or `default` for what the configuration says."""

    name = "number"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read it, or tell how it is written."""
        text = str(value).strip().lower().replace("_", "")
        if text == DEFAULT:
            return DEFAULT
        if not text.isascii() or not text.isdigit() or len(text) > 15:
            self.fail(f"{value!r} is not a limit: write a number, 0 for no limit, or `{DEFAULT}`", param, ctx)
        return int(text)


class Expiry(click.ParamType[int | str]):
    """When a key ends: a time, a duration from now, or `never`."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read it, or tell how it is written."""
        if str(value).strip().lower() == NEVER:
            return NEVER
        return FUTURE.convert(value, param, ctx)


class ModelLimit(click.ParamType[tuple[str, dict[str, int]]]):
    """`MODEL=rpm:10,tpm:1000,concurrency:2`, as (model, limits). Nothing after the `=` takes the limits away."""

    name = "model=limits"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, dict[str, int]]:
        """Read it, or tell how it is written."""
        # Model names may hold a `=` themselves; limits never do.
        model, equals, text = str(value).rpartition("=")
        limits: dict[str, int] = {}
        for part in filter(None, text.split(",")):
            name, colon, number = (piece.strip() for piece in part.partition(":"))
            if name not in LIMITS or not colon or not number.isascii() or not number.isdigit() or name in limits:
                self.fail(f"{value!r}: write MODEL=rpm:10,tpm:1000,concurrency:2", param, ctx)
            limits[name] = int(number)
        if not equals or not model.strip():
            self.fail(f"{value!r}: write MODEL=rpm:10,tpm:1000,concurrency:2", param, ctx)
        return model.strip(), limits


class BudgetOption(click.ParamType[tuple[str, int | None]]):
    """`day=5`, as (window, nano-dollars); None stands for what the configuration says."""

    name = "window=usd"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int | None]:
        """Read it, or tell how it is written."""
        window, equals, text = (piece.strip().lower() for piece in str(value).partition("="))
        amount = text.removeprefix("$")
        if window not in WINDOWS or not equals:
            self.fail(f"{value!r}: write day=5, month=50 or total=500, in dollars", param, ctx)
        if amount == DEFAULT:
            return window, None
        if not re.fullmatch(r"\d{1,6}(\.\d{1,9})?", amount, re.ASCII):
            self.fail(f"{value!r}: write dollars as in 5 or 0.25, 0 for no limit, or `{DEFAULT}`", param, ctx)
        return window, rate(amount)


def _settings(command: Command) -> Command:
    """The options that `create` and `update` have in common."""
    options = (
        click.option(
            "--expires", type=Expiry(), help="When it ends: 30d, 12h, 2026-12-31 (UTC), or `never`. [default: never]"
        ),
        click.option(
            "--model", "models", multiple=True, help="A model it may use, or a pattern as in `gpt-*`; repeat."
        ),
        click.option("--rpm", type=Limit(), help="Requests per minute; 0: no limit. [default: as configured]"),
        click.option("--tpm", type=Limit(), help="Tokens per minute; 0: no limit. [default: as configured]"),
        click.option("--concurrency", type=Limit(), help="Calls at once; 0: no limit. [default: as configured]"),
        click.option(
            "--model-limit",
            "model_limits",
            type=ModelLimit(),
            multiple=True,
            help="Limits for one model, as in `gpt-4o=rpm:10,tpm:1000`; repeat.",
        ),
        click.option(
            "--budget",
            "budgets",
            type=BudgetOption(),
            multiple=True,
            help="Dollars it may spend, as in `day=5`, `month=50` or `total=500`; 0: no limit; repeat."
            " [default: as configured]",
        ),
        click.option(
            "--abort",
            type=click.Choice(["cancel", "drain", DEFAULT]),
            help="Answers whose client has gone: give them up, or read them to their end to know what they cost."
            " [default: as the upstream says]",
        ),
        click.option("--strict/--no-strict", default=None, help="Refuse what a target cannot carry or check."),
        click.option("--metadata", help="Anything to remember with it, as a JSON object."),
    )
    return reduce(lambda inner, option: option(inner), reversed(options), command)


def _changes(
    expires: int | str | None,
    models: Sequence[str],
    model_limits: Sequence[tuple[str, dict[str, int]]],
    strict: bool | None,
    metadata: str | None,
    limits: dict[str, int | str | None],
    budgets: Sequence[tuple[str, int | None]],
    abort: str | None,
    current: Key | None,
) -> dict[str, Any]:
    """What was asked for, as the store takes it."""
    from relay.store import Limits
    from relay.store.keys import now_ms

    changes: dict[str, Any] = {
        name: None if value == DEFAULT else value for name, value in limits.items() if value is not None
    }
    if expires is not None:
        if expires != NEVER and int(expires) <= now_ms():
            fail("--expires is in the past")
        changes["expires_at"] = None if expires == NEVER else expires
    if models:
        changes["models"] = list(dict.fromkeys(models))
    if model_limits:
        merged = {} if current is None else dict(current.model_limits)
        for model, values in model_limits:
            if values:
                merged[model] = Limits(**values)
            elif merged.pop(model, None) is None:
                fail(f"--model-limit {model}=: the key has no limits for that model")
        changes["model_limits"] = merged
    if budgets:
        amounts = ({} if current is None else dict(current.budget)) | dict(budgets)
        changes["budget"] = {window: amount for window, amount in amounts.items() if amount is not None}
    if abort is not None:
        changes["abort"] = None if abort == DEFAULT else abort
    if strict is not None:
        changes["strict"] = strict
    if metadata is not None:
        changes["metadata"] = _object(metadata)
    return changes


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        fail(f"--metadata is not JSON: {error}")
    if not isinstance(value, dict):
        fail('--metadata is not a JSON object, as in {"team": "search"}')
    return value


@click.group()
def keys() -> None:
    """Create, list, change and revoke API keys.

    WHICH is a key's id, its name, or the beginning of the key as lists show it. A running relay sees changes at once.
    """


@keys.command()
@click.argument("name")
@_settings
@click.option("--import", "imported", is_flag=True, help="Take over a key you have: its first line on stdin.")
@json_option
@database_option
def create(
    name: str,
    expires: int | str | None,
    models: tuple[str, ...],
    rpm: int | str | None,
    tpm: int | str | None,
    concurrency: int | str | None,
    model_limits: tuple[tuple[str, dict[str, int]], ...],
    budgets: tuple[tuple[str, int | None], ...],
    abort: str | None,
    strict: bool | None,
    metadata: str | None,
    imported: bool,
    as_json: bool,
    db: Path | None,
) -> None:
    """Make a key called NAME and print it. It cannot be printed again."""
    limits = {"rpm": rpm, "tpm": tpm, "concurrency": concurrency}
    values = _changes(expires, models, model_limits, strict, metadata, limits, budgets, abort, None)
    token = sys.stdin.readline().strip() if imported else None

    async def work(store: Store) -> tuple[Key, str]:
        return await store.keys.create(name, token=token, **values)

    key, secret = with_store(db, work, create=True)
    _print_secret(key, secret, as_json=as_json, note=f"Key {key.name!r} (id {key.id}) was made.")


@keys.command("list")
@click.option("--all", "everything", is_flag=True, help="Revoked keys too.")
@json_option
@database_option
def list_(everything: bool, as_json: bool, db: Path | None) -> None:
    """List the keys; of each key only its first characters are known."""

    async def work(store: Store) -> list[Key]:
        return await store.keys.all(revoked=everything)

    found = with_store(db, work)
    if as_json:
        _print_json([_dict(key) for key in found])
    elif found:
        click.echo(table(COLUMNS, [_row(key) for key in found]))
    else:
        click.echo("there are no keys: `relay keys create NAME` makes one", err=True)


@keys.command()
@click.argument("which")
@json_option
@database_option
def show(which: str, as_json: bool, db: Path | None) -> None:
    """Show one key in full."""

    async def work(store: Store) -> Key:
        return await store.keys.find(which)

    _print_key(with_store(db, work), as_json=as_json)


@keys.command()
@click.argument("which")
@click.option("--name", help="A new name.")
@_settings
@click.option("--all-models", is_flag=True, help="Let it use every model.")
@json_option
@database_option
def update(
    which: str,
    name: str | None,
    expires: int | str | None,
    models: tuple[str, ...],
    rpm: int | str | None,
    tpm: int | str | None,
    concurrency: int | str | None,
    model_limits: tuple[tuple[str, dict[str, int]], ...],
    budgets: tuple[tuple[str, int | None], ...],
    abort: str | None,
    strict: bool | None,
    metadata: str | None,
    all_models: bool,
    as_json: bool,
    db: Path | None,
) -> None:
    """Change what is given, and leave the rest.

    --model replaces the list; --model-limit changes that model only, and --budget that span of time.
    """
    if all_models and models:
        fail("--model and --all-models contradict each other")

    async def work(store: Store) -> Key:
        limits = {"rpm": rpm, "tpm": tpm, "concurrency": concurrency}
        current = await store.keys.find(which, revoked=False) if model_limits or budgets else None
        changes = _changes(expires, models, model_limits, strict, metadata, limits, budgets, abort, current)
        if name is not None:
            changes["name"] = name
        if all_models:
            changes["models"] = None
        if not changes:
            fail("nothing to change: see `relay keys update --help`")
        return await store.keys.update(which, **changes)

    _print_key(with_store(db, work), as_json=as_json)


@keys.command()
@click.argument("which", nargs=-1, required=True)
@json_option
@database_option
def revoke(which: tuple[str, ...], as_json: bool, db: Path | None) -> None:
    """End keys for good. Their usage stays in the reports."""

    async def work(store: Store) -> list[Key]:
        found = [await store.keys.find(item) for item in which]
        return [await store.keys.revoke(key.id) for key in found]

    done = with_store(db, work)
    if as_json:
        _print_json([_dict(key) for key in done])
        return
    for key in done:
        click.echo(f"Key {key.name!r} (id {key.id}) is revoked.")


@keys.command()
@click.argument("which")
@click.option("--grace", type=DURATION, default=0, help="How long the old key still works, as in 1h. [default: not]")
@json_option
@database_option
def rotate(which: str, grace: int, as_json: bool, db: Path | None) -> None:
    """Give a key a new secret and print it. Limits and history stay."""

    async def work(store: Store) -> tuple[Key, str]:
        return await store.keys.rotate(which, grace=grace)

    key, secret = with_store(db, work)
    old = f"works until {shown(key.old_until, seconds=True)} UTC" if key.old_until else "no longer works"
    note = f"Key {key.name!r} (id {key.id}) has a new secret; the old one {old}."
    _print_secret(key, secret, as_json=as_json, note=note)


def _dict(key: Key) -> dict[str, Any]:
    from relay.store.keys import now_ms

    return {"state": key.state(now_ms()), **key.to_dict()}


def _row(key: Key) -> list[str | int | None]:
    from relay.store.keys import now_ms

    return [
        key.id,
        key.name,
        key.prefix,
        key.state(now_ms()),
        shown(key.created_at),
        shown(key.expires_at),
        shown(key.last_used_at),
        "all" if key.models is None else " ".join(key.models),
        key.rpm,
        key.tpm,
        key.concurrency,
    ]


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _print_key(key: Key, *, as_json: bool) -> None:
    if as_json:
        _print_json(_dict(key))
        return
    values = _dict(key)
    for name in ("created_at", "expires_at", "revoked_at", "last_used_at", "old_until"):
        values[name] = shown(values[name], seconds=True)
    values["models"] = "all" if key.models is None else " ".join(key.models)
    for name in ("model_limits", "metadata"):
        values[name] = json.dumps(values[name], ensure_ascii=False)
    values["budget"] = (
        ", ".join(
            f"{window} ${usd(amount)}" if amount else f"{window} no limit" for window, amount in key.budget.items()
        )
        or DEFAULT
    )
    for name in LIMITS:
        values[name] = DEFAULT if values[name] is None else values[name] or "no limit"
    click.echo(table(("FIELD", "VALUE"), [(name, str(value)) for name, value in values.items() if value is not None]))


def _print_secret(key: Key, secret: str, *, as_json: bool, note: str) -> None:
    """The secret alone goes to stdout, so that a script can take it."""
    if as_json:
        _print_json({"key": secret, **_dict(key)})
        return
    click.echo(f"{note} Keep this safe, it is shown only once:", err=True)
    click.echo(secret)
