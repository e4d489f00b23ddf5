"""The running relay: what all requests share, and the aiohttp application around it."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from aiohttp import web

from relay.bound import BoundFamily, guarded
from relay.budget import Ledger
from relay.call import Call
from relay.catalog import Catalog, load_plugins, read_catalog
from relay.config import Config
from relay.crowd import Crowd
from relay.dispatch import Dispatch
from relay.errors import RelayError, Unavailable, UpstreamError
from relay.family import Model, ModelListing, Target, Transport, Upstream
from relay.gate import Guard
from relay.http1 import Http1Transport
from relay.ir import Usage
from relay.lasting import Lasting
from relay.life import Life
from relay.limits import Limiter
from relay.lines import Lines
from relay.manager import Plugins
from relay.memory import Memory
from relay.meter import settled
from relay.middleware import errors, finish_headers
from relay.origins import Origins
from relay.outbox import Outbox
from relay.paths import database_path
from relay.pipeline import Pipeline
from relay.policies import PolicyPipeline
from relay.pricing import Price, cost
from relay.repeats import Repeater
from relay.routing import Router
from relay.settings import MemorySettings
from relay.shelf import Shelf
from relay.store import Open, Room, Store, StoreError, UsageRow
from relay.store.keys import Key
from relay.store.upkeep import Upkeep
from relay.throttle import Throttle
from relay.upstream import AiohttpTransport
from relay.views import add_routes

__all__ = ["RELAY", "Relay", "configured_database", "create_app"]

LISTING_SECONDS = 15.0
"""Time that an upstream gets to list its models."""
LISTING_BYTES = 16 * 1024 * 1024
ACCOUNT_SECONDS = 5.0
"""Time that the rows which wait get to be stored before an account is opened."""
ACCOUNT_TRIES = 5
REFRESH_SECONDS = 3600.0
RETRY_SECONDS = 30.0
"""Wait before an upstream that could not list its models is asked again."""
PRICE_SECONDS = 60.0
"""How long a look-up of a price is believed; catalogues may be loaded or replaced behind it."""
UNPRICED_SECONDS = 1.0
"""A price may be missing only because the catalogue is still being read."""
PRICES_KEPT = 4096
MB, HOUR = 1024 * 1024, 3_600_000
THOUGHTS, ANSWERS = "thoughts", "answers"
"""Kinds of what is kept for the next turn."""

log = logging.getLogger("relay")
_new_row = tuple.__new__


class Abandoned(Protocol):
    """A call without a client."""

    def stop(self, error: RelayError) -> None:
        """End it now."""
        ...


class Relay:
    """One relay process. `start` and `close` are called by the application; tests may inject `clock`."""

    def __init__(
        self,
        config: Config,
        plugins: Plugins,
        catalog: Catalog,
        store: Store,
        *,
        transport: Transport,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self.settings = config.settings
        self.plugins = plugins
        self.catalog = catalog
        self.store = store
        self.transport = transport
        own = transport if isinstance(transport, Http1Transport) else None
        self.outbox = own.outbox if own else Outbox(asyncio.get_running_loop(), ())
        self.clock = clock
        self.wall = wall
        self.router = Router(catalog.upstreams, catalog.models)
        self.limiter = Limiter()
        self.lines = Lines(self.limiter)
        self.memory, self.shelf = self._shelves()
        """Reasoning that clients drop, and answers that they refer to later; None where none is kept."""
        self.ledger = Ledger()
        self.repeater = Repeater(self)
        server = self.settings.server
        self.origins = Origins(server.host, server.hosts, server.origins)
        self.throttle = Throttle(server.wrong_keys_per_minute)
        self.life = Life(wall)
        self.crowd = Crowd(lambda: self.settings.server.max_memory_mb)
        self.life.full = lambda: self.crowd.full
        self.abandoned: set[Abandoned] = set()
        """Calls whose clients have gone, and whose answers are read to their end for the sake of their counts."""
        self.dispatch = Dispatch(
            config.settings.routing,
            plugins.orderings(),
            clock=clock,
            luck=luck,
            in_flight=transport.in_flight if isinstance(transport, Http1Transport) else lambda: 0,
        )
        policies = plugins.policies()
        self.pipeline = PolicyPipeline(self, policies) if policies else Pipeline(self)
        self.listed = asyncio.Event()
        """Set once every upstream was asked for its models, whether it answered or not."""
        self.listing_errors: dict[str, str] = {}
        self.lasting: list[Lasting] = []
        """What goes on beside the calls, but for what the store does by itself."""
        self.life.restarts = self._restarts
        self._prices: OrderedDict[tuple[str, str], tuple[float, Price | None]] = OrderedDict()

    def _shelves(self) -> tuple[Memory | None, Shelf | None]:
        settings, kept = self.settings.memory, self.store.kept
        thoughts = Shelf(THOUGHTS, settings.megabytes * MB, settings.hours * 3600, clock=self.wall, kept=kept)
        answers = Shelf(
            ANSWERS,
            settings.answers_megabytes * MB,
            settings.answers_hours * 3600,
            clock=self.wall,
            kept=kept,
            shared=True,
        )
        self.store.ring.revoked += [thoughts.forget, answers.forget]
        return Memory(thoughts) if settings.megabytes else None, answers if settings.answers_megabytes else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Plugins' lifespans and the model lists, for as long as the relay serves."""
        async with AsyncExitStack() as stack:
            for name, span in self.plugins.lifespans(self):
                try:
                    await stack.enter_async_context(span)
                except Exception:
                    # A plugin that cannot start takes its own models with it, not the relay.
                    log.exception("plugin %s could not start", name)
            upkeep = Upkeep(self.store.database, self.settings.store.keep_days, self.store.kept)
            self.life.in_place = lambda: upkeep.in_place
            self.lasting += [
                Lasting("model-lists", self._keep_listing),
                Lasting("memory", self.crowd.watch),
                Lasting("store-upkeep", lambda: upkeep.keep_on(self.wall)),
            ]
            for work in self.lasting:
                work.start()
            try:
                yield
            finally:
                await asyncio.gather(*(work.stop() for work in self.lasting))

    def _restarts(self) -> dict[str, int]:
        works = (*self.lasting, self.store.usage.writer.work, self.store.ring.work)
        return {work.name: work.restarts for work in works if work.restarts}

    async def close(self) -> None:
        """Store the usage rows that wait, and close files and connections."""
        if isinstance(self.transport, Http1Transport | AiohttpTransport):
            await self.transport.close()
        await self.store.close()

    # Models

    async def _keep_listing(self) -> None:
        while True:
            await self.list_all()
            wait = RETRY_SECONDS if self.listing_errors else REFRESH_SECONDS
            await asyncio.sleep(wait)

    async def list_all(self) -> None:
        """Ask every upstream for its models, side by side."""
        await asyncio.gather(*(self._list(upstream) for upstream in self.catalog.upstreams))
        self.listed.set()

    async def _list(self, upstream: Upstream) -> None:
        try:
            async with asyncio.timeout(LISTING_SECONDS):
                models = await self._models_of(upstream)
        except (RelayError, TimeoutError) as error:
            reason = error.message if isinstance(error, RelayError) else "no answer in time"
            if self.listing_errors.get(upstream.name) != reason:
                log.warning("upstream %s did not list its models: %s", upstream.name, reason)
            self.listing_errors[upstream.name] = reason
            return
        self.listing_errors.pop(upstream.name, None)
        if models is not None:
            self.router.update(upstream.name, models)

    async def _models_of(self, upstream: Upstream) -> Sequence[Model] | None:
        """What an upstream lists, with the first of its keys that it accepts. Raises RelayError."""
        *others, last = (upstream, *upstream.pool)
        for one in others:
            try:
                return await self.fetch_models(one)
            except UpstreamError as error:
                if error.upstream_status not in (401, 403):
                    raise
        return await self.fetch_models(last)

    async def fetch_models(self, upstream: Upstream) -> Sequence[Model] | None:
        """What an upstream lists; None if its family knows no way to ask. Raises RelayError."""
        family = self.plugins.families[upstream.family]
        listing = family.list_models(upstream)
        if not isinstance(listing, ModelListing):
            return listing
        found = [await self._listed(family, upstream, one) for one in (listing, *listing.more)]
        return [model for models in found for model in models]

    async def _listed(self, family: BoundFamily, upstream: Upstream, listing: ModelListing) -> Sequence[Model]:
        transport = family.family.transport or self.transport
        async with transport.send(listing.request, upstream) as answer:
            body = await answer.read(LISTING_BYTES)
            if answer.status != 200:
                target = Target(upstream, "")
                error = family.translate_error(target, answer.status, answer.headers, body)
                raise error or UpstreamError(f"it answered with status {answer.status}")
            return guarded(family.plugin, "list_models", lambda: listing.parse(body))

    # Money and rows

    def price(self, call: Call) -> Price | None:
        """What the call's target costs: the configuration's word, else a plugin's."""
        if call.model is None or call.target is None:
            return None
        return call.model.price or self.target_price(call.target)

    def target_price(self, target: Target) -> Price | None:
        """What plugins say a target costs, remembered for a minute; that there is no price, only for a second."""
        name = (target.upstream.name, target.model)
        now = self.clock()
        known = self._prices.get(name)
        if known is None or known[0] < now:
            try:
                price = self.plugins.price(target, int(self.wall()))
            except RelayError:
                price = None
            known = self._prices[name] = (now + (UNPRICED_SECONDS if price is None else PRICE_SECONDS), price)
            self._prices.move_to_end(name)
            if len(self._prices) > PRICES_KEPT:
                self._prices.popitem(last=False)
        return known[1]

    def forget(self) -> None:
        """Prices, limits and faults that were found under another configuration."""
        self._prices.clear()
        self.pipeline.forget()
        self.listing_errors = {
            name: reason for name, reason in self.listing_errors.items() if name in self.router.upstreams
        }

    def context_length(self, target: Target) -> int | None:
        """The context of a target's model as plugins know it, where its upstream does not say."""
        try:
            model = self.plugins.describe(target)
        except RelayError:
            return None
        return None if model is None else model.context_length

    def bill(self, call: Call) -> None:
        """Count and price the call, once."""
        if call.billed:
            return
        call.billed = True
        estimate = call.head.input_estimate if call.head is not None else 0
        call.usage, call.usage_source = settled(call.count, estimate)
        if call.usage is None:
            call.cost = 0
            return
        call.price = self.price(call)
        if call.price is not None:
            call.cost = cost(call.usage, call.price)
        elif call.hold is not None and call.hold.amount:
            # There was a price when the call came. To forget one gives no money away.
            call.cost = call.hold.amount

    def finish(self, call: Call) -> None:
        """Settle the reservation and leave the usage row. Never waits, so that a cancelled call is recorded too."""
        # They know each other, and the last pieces of a stream would wait for the collector.
        call.delivery = None
        if not call.billed:
            self.bill(call)
        if call.abandoned:
            call.left()
        now = self.clock()
        usage = call.usage
        if call.hold is not None:
            call.hold.settle(call.cost or 0)
        elif call.cost and self.ledger.accounts:
            self.ledger.charge(call.key.id, call.cost, call.at)
        if call.reservation is not None:
            # Last, because it may be somebody's turn then, who has to find the money free as well.
            used = 0 if usage is None else (usage.input or 0) + (usage.output or 0)
            call.reservation.settle(used, now)
        head, target = call.head, call.target
        if self.dispatch.orderings and target is not None and call.first_byte is not None and head is not None:
            asked = call.started if call.asked is None else call.asked
            self.dispatch.seen(target, head.stream, call.first_byte - asked)
        model = None if call.model is None else call.model.id
        stream = head is not None and head.stream
        place, journal = call.place, self.store.journal
        if place < 0 and journal is not None:
            # It was refused before it could begin.
            place = journal.begin(call.id, call.operation, model, call.key.id, call.at, 0, 0, 0, stream)
        upstream = None if target is None else target.upstream
        # As `UsageRow(...)`, which is a Python function.
        row = _new_row(
            UsageRow,
            (
                call.id,
                call.at,
                call.key.id,
                call.operation,
                model,
                None if upstream is None else upstream.name,
                None if target is None else target.model,
                None if upstream is None else upstream.family,
                None if call.dialect is None else call.dialect.name,
                stream,
                call.status,
                call.outcome,
                call.usage_source,
                usage,
                call.price,
                call.cost,
                None if call.first_byte is None else int((call.first_byte - call.started) * 1000 + 0.5),
                int((now - call.started) * 1000 + 0.5),
                call.attempts,
                call.error_code,
                call.tools,
                place,
                0,
            ),
        )
        if journal is not None and place >= 0:
            journal.over(place, call.status, call.outcome, call.usage_source, stream, usage, call.cost)
        self.store.usage.put(row)

    async def settle_crashed(self) -> None:
        """Give the calls that an earlier process left open their rows: charged as they were estimated."""
        journal = self.store.journal
        if journal is None:
            return
        rows = [self._crashed(call) for call in journal.left()]
        try:
            await self.store.usage.restore(rows)
        except (sqlite3.Error, StoreError) as error:
            log.error(
                "%d calls of a process that crashed cannot be recorded before the next start: %s", len(rows), error
            )
            return
        journal.settled()
        if rows:
            log.warning("%d calls of a process that crashed were recorded as they were estimated", len(rows))

    def _crashed(self, call: Open) -> UsageRow:
        known = None if call.input is None and call.output is None else Usage(call.input, call.output)
        charged, price = call.cost, None
        if charged is None and known is not None and call.model is not None:
            try:
                model = self.router.resolve(call.model)
            except RelayError:
                model = None
            if model is not None:
                price = model.price or next(filter(None, map(self.target_price, model.targets)), None)
            charged = None if price is None else cost(known, price)
        return UsageRow(
            request_id=call.request_id,
            at=call.at,
            key_id=call.key_id,
            operation=call.operation,
            model=call.model,
            stream=call.stream,
            status=call.status,
            outcome=call.outcome,
            usage_source=call.source,
            usage=known,
            price=price,
            cost=charged,
            error_code="crashed" if call.outcome == "crashed" else None,
        )

    async def open_account(self, key: int, at: int) -> None:
        """Read what a key has spent, so that its budget can be kept. Raises Unavailable if that cannot be had."""
        account = self.ledger.account(key)
        for _ in range(ACCOUNT_TRIES):
            changes = account.changes
            try:
                stored = await self.store.usage.flush(ACCOUNT_SECONDS)
                spent = await self.store.spending.of(key, at)
            except sqlite3.Error as error:
                log.error("what key %d has spent cannot be read: %s", key, error)
                stored = False
            if not stored:
                raise Unavailable("what this key has spent cannot be read now; try again", retry_after=1.0)
            # A call that ended meanwhile may be in the sum or not: then it is read again.
            if account.knows(at) or account.changes == changes:
                break
        # Whoever waited here at the same time may have been faster, and the account has gone on since.
        if not account.knows(at):
            account.take_in(spent, at)

    def may_drain(self, key: Key) -> bool:
        """Whether answers to this key may have to be read to their end after their client has gone."""
        if self.pipeline.shares:
            return True
        if key.abort is not None:
            return key.abort == "drain"
        return any(upstream.abort == "drain" for upstream in self.catalog.upstreams)

    def strict_tools(self, call: Call) -> bool:
        """Whether tool arguments that do not fit end this call with an error."""
        return self.settings.tools.arguments == "strict" or call.key.strict


RELAY: web.AppKey[Relay] = web.AppKey("relay", Relay)


def configured_database(config: Config) -> Path:
    """The SQLite file that a configuration means."""
    path = config.settings.store.path
    return Path(path).expanduser() if path else database_path()


def _rooms(settings: MemorySettings) -> dict[str, Room]:
    """What of each kind is kept in the database; of what is not kept at all, nothing."""
    return {
        THOUGHTS: Room(1, settings.disk_megabytes * MB if settings.megabytes else 0, int(settings.hours * HOUR)),
        ANSWERS: Room(
            2,
            settings.answers_disk_megabytes * MB if settings.answers_megabytes else 0,
            int(settings.answers_hours * HOUR),
        ),
    }


async def create_app(
    config: Config,
    *,
    plugins: Plugins | None = None,
    database: Path | None = None,
    transport: Transport | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> web.Application:
    """The application of one relay. Raises ConfigError, Contradiction or StoreError before anything is served."""
    plugins = plugins or load_plugins(config.settings)
    catalog = await read_catalog(config, plugins)
    store = await Store.open(
        database or configured_database(config),
        watch=True,
        journal=config.settings.store.journal,
        rooms=_rooms(config.settings.memory),
    )
    if transport is None:
        transport = Http1Transport() if config.settings.server.transport == "relay" else AiohttpTransport()
    relay = Relay(config, plugins, catalog, store, transport=transport, clock=clock)
    await relay.settle_crashed()
    app = web.Application(
        middlewares=[errors, Guard(relay).middleware()],
        client_max_size=config.settings.server.max_body_mb * 1024 * 1024,
    )
    app[RELAY] = relay
    app.on_response_prepare.append(finish_headers)

    async def life(_: web.Application) -> AsyncIterator[None]:
        try:
            async with relay.running():
                yield
        finally:
            await relay.close()

    app.cleanup_ctx.append(life)
    add_routes(app, relay)
    return app
