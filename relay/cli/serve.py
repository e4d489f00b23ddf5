"""`relay serve`: run the relay until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from relay.cli.lifetime import Lifetime
from relay.cli.logs import Complaints, Logs, logging_to
from relay.cli.notify import Notifier
from relay.cli.options import config_option, config_path, fail
from relay.cli.workers import Place, Supervisor, held, limits_in_force
from relay.family import is_loopback

if TYPE_CHECKING:
    from aiohttp import web

    from relay.app import Relay
    from relay.config import Config
    from relay.manager import Plugins

__all__ = ["serve"]

BACKLOG = 4096
"""Connections that may wait to be accepted: beyond that, clients that come all at once are kept waiting for seconds."""
ACCEPTS = 64
MODELS_SHOWN = 6
MOST_WORKERS = 64
LIMITS_SHOWN = 4
LAST_SECONDS = 0.5
"""Seconds that connections get which are still there after all others are gone."""
LIST_WAIT = 5.0
"""Seconds that the greeting waits for the upstreams' model lists."""


@click.command()
@config_option
@click.option("--host", help="Address to listen on [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port; 0 takes a free one [default: 8748]")
@click.option("--db", type=click.Path(dir_okay=False, path_type=Path), help="The SQLite file")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="How much is logged")
@click.option("--workers", type=click.IntRange(1, MOST_WORKERS), default=1, show_default=True, help="Processes")
@click.option("--limits-per-process", is_flag=True, help="With several workers: let each count limits for itself")
def serve(
    config_file: Path | None,
    host: str | None,
    port: int | None,
    db: Path | None,
    log_level: str | None,
    workers: int,
    limits_per_process: bool,
) -> None:
    """Run the relay.

    Without a configuration it listens on 127.0.0.1:8748, uses every API key that it finds in the environment and every
    model server that it finds on this machine, and makes a first key for you.
    """
    import mimetypes

    from msgspec.structs import replace

    from relay.config import Config, ConfigError, read_config
    from relay.settings import Settings

    first = config_path(config_file)

    def read() -> Config:
        """The configuration with what the command line says over it. Raises ConfigError."""
        # One that was there at the start has to be there; one that came to the usual place since then is found.
        path = first if first is not None else config_path(config_file)
        config = read_config(path) if path is not None else Config(Settings())
        said = {"host": host, "port": port, "log_level": log_level}
        server = replace(config.settings.server, **{name: value for name, value in said.items() if value is not None})
        return dataclasses.replace(config, settings=replace(config.settings, server=server))

    try:
        config = read()
    except ConfigError as error:
        fail(str(error))
    # aiohttp, which is not loaded yet, asks for the system's lists of file types: a third of a megabyte for nothing.
    mimetypes.knownfiles.clear()
    start = Start(config, read, db)
    if workers == 1:
        sys.exit(_run(start))
    sys.exit(_run_several(start, workers, per_process=limits_per_process))


@dataclass(frozen=True)
class Start:
    """What a process serves with. `read` reads the configuration again; it raises ConfigError."""

    config: Config
    read: Callable[[], Config]
    db: Path | None
    plugins: Plugins | None = None


def _run(start: Start, port: int | None = None, place: Place | None = None) -> int:
    from relay.heap import keep, share

    # Before there is a second thread.
    share()
    keep()
    level = start.config.settings.server.log_level
    with logging_to(sys.stderr, level) as logs, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(start, port, place, logs))


def _run_several(start: Start, count: int, *, per_process: bool) -> int:
    """Several processes of `_run`, if nothing speaks against it."""
    from relay.heap import tidy

    server = start.config.settings.server
    plugins = asyncio.run(_divisible(start.config, start.db, count, per_process=per_process))
    with contextlib.ExitStack() as stack:
        try:
            shared = stack.enter_context(held(server.host, server.port))
        except OSError as error:
            fail(f"cannot listen on {server.host}:{server.port}: {error.strerror or error}")
        # What was built until here is the same for all: a collector that walks over it would copy it for each.
        tidy()
        gc.freeze()
        same = dataclasses.replace(start, plugins=plugins)
        stack.enter_context(logging_to(sys.stderr, server.log_level, thread=False))
        return Supervisor(count, lambda place: _run(same, shared, place), Notifier()).run()


async def _divisible(config: Config, db: Path | None, count: int, *, per_process: bool) -> Plugins:
    """The plugins, if several processes can serve what is configured. Leaves with the reason if not."""
    from relay.app import configured_database
    from relay.catalog import load_plugins, read_catalog
    from relay.config import ConfigError
    from relay.manager import Contradiction
    from relay.store import Store, StoreError
    from relay.store.keys import now_ms

    try:
        plugins = load_plugins(config.settings)
        catalog = await read_catalog(config, plugins)
        async with await Store.open(db or configured_database(config)) as store:
            keys = await store.keys.all()
    except (ConfigError, Contradiction, StoreError) as error:
        fail(str(error))
    for upstream in catalog.upstreams:
        if plugins.families[upstream.family].family.alone:
            fail(
                f"upstream {upstream.name} runs something beside the relay, and {count} workers would each start one: "
                "serve it with one worker, or leave it out"
            )
    limits = limits_in_force(config.settings, [key for key in keys if key.live(now_ms())])
    if limits and not per_process:
        shown = ", ".join(limits[:LIMITS_SHOWN])
        more = f" and {len(limits) - LIMITS_SHOWN} more" if len(limits) > LIMITS_SHOWN else ""
        fail(
            f"{count} workers cannot keep limits together yet, and there are some: {shown}{more}; "
            "set them to 0, or let each worker count for itself with --limits-per-process"
        )
    return plugins


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's if it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(start: Start, port: int | None, place: Place | None, logs: Logs) -> int:
    from aiohttp import web

    from relay.app import RELAY, create_app
    from relay.config import ConfigError
    from relay.door import RelayRunner, safe
    from relay.heap import tidy
    from relay.manager import Contradiction
    from relay.mould import COMPILED
    from relay.stalls import Stalls
    from relay.store import StoreError

    if not COMPILED and (place is None or place.first):
        logging.getLogger("relay").info(
            "the relay's parts in C could not be built here: streams and long prompts cost more, "
            "and nothing else changes"
        )
    if not safe():
        fail("aiohttp is here without its compiled parser, and the other one is not fit for this: install its wheel")
    config, host = start.config, start.config.settings.server.host
    port = config.settings.server.port if port is None else port
    asyncio.get_running_loop().set_exception_handler(Complaints())
    try:
        app = await create_app(config, plugins=start.plugins, database=start.db)
    except (ConfigError, Contradiction, StoreError) as error:
        fail(str(error))
    relay = app[RELAY]
    try:
        unused = (place is None or place.first) and await _is_unused(relay, host)
    except StoreError as error:
        await relay.close()
        fail(str(error))
    relay.life.lost_lines = lambda: logs.lost
    stalls = Stalls(relay.plugins.modules)
    relay.life.stalls = stalls.tell
    restarts = relay.life.restarts
    relay.life.restarts = lambda: {**restarts(), **({"log": logs.restarts} if logs.restarts else {})}
    lifetime = Lifetime(relay, start.read, Notifier(None if place is None else {}))
    if place is not None and place.reloaded:
        # It takes the place of one that had reloaded since the start.
        await lifetime.reload()
    runner = RelayRunner(app, shutdown_timeout=LAST_SECONDS)
    await runner.setup()
    site = web.TCPSite(runner, host, port, reuse_port=place is not None, backlog=_accepted_at_once())
    try:
        await site.start()
        _lengthen(site)
    except OSError as error:
        await runner.cleanup()
        fail(f"cannot listen on {host}:{port}: {error.strerror or error}")
    try:
        # Only now: a key that was made for a start that then failed would never be shown to anybody.
        key = (await relay.store.keys.create("first key"))[1] if unused else None
    except StoreError as error:
        await runner.cleanup()
        fail(str(error))
    # What was built until here lives as long as the process: the collector need not look at it again. What that took
    # beside it, nearly a MiB, is given back.
    tidy()
    gc.freeze()
    # What a call leaves behind has no cycles: looking for some after every 700 objects finds nothing, 9 times a call.
    gc.set_threshold(20_000, 20, 20)
    greeting = None
    if place is None or place.first:
        greeting = asyncio.create_task(_greet(relay, _url(runner), key, 1 if place is None else place.count))
    if place is None:
        lifetime.listen((signal.SIGINT, signal.SIGTERM))
    else:
        # Terminals send SIGINT to all processes, and the parent passes it on.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        lifetime.listen((signal.SIGTERM,))
        asyncio.get_running_loop().add_reader(place.parent, lifetime.stop)
        place.ready()
    stalls.start()
    await lifetime.over()
    stalls.stop()
    if place is not None:
        asyncio.get_running_loop().remove_reader(place.parent)
    if greeting is not None:
        greeting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await greeting
    await lifetime.end(site, runner)
    return 0


async def _is_unused(relay: Relay, host: str) -> bool:
    """Whether there never was a key. Raises StoreError if anybody else could come before the first one is made."""
    from relay.store import StoreError

    if await relay.store.keys.all(revoked=True):
        return False
    if not is_loopback(host):
        raise StoreError(
            f"there is no API key yet, and {host} can be reached from other machines: "
            "make a key first (relay keys create NAME)"
        )
    return True


def _accepted_at_once() -> int:
    """Connections that the event loop accepts in one turn, which asyncio takes to be the length of the queue as well.

    Each of them is tried, and complained of, even if there are no descriptors left.
    """
    return ACCEPTS if isinstance(asyncio.get_running_loop(), asyncio.SelectorEventLoop) else BACKLOG


def _lengthen(site: web.TCPSite) -> None:
    """Give the queue its length where the event loop was told of a shorter one."""
    for listening in getattr(site._server, "sockets", ()):
        with socket.socket(fileno=os.dup(listening.fileno())) as same:
            same.listen(BACKLOG)


def _url(runner: web.AppRunner) -> str:
    name: Any = runner.addresses[0]
    host, port = name[0], name[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _greet(relay: Relay, url: str, key: str | None, workers: int) -> None:
    """Say where the relay is, what it serves, and how to ask it."""
    say = _say
    say(f"i8Relay listens on {url}")
    if workers > 1:
        say(f"  {workers} workers: each counts limits for itself, so up to {workers} times as much is let through")
    for record in relay.plugins.records:
        if record.error:
            say(f"  plugin {record.name} was left out: {record.error}")
    for found in relay.catalog.found:
        say(f"  upstream {found.upstream.name}: {found.reason}")
    if not relay.catalog.upstreams:
        say(
            "  no upstream: set an API key such as OPENAI_API_KEY, start a local model server, or write a configuration"
        )
    if key is not None:
        say("\nYour first API key. It is shown this once:\n")
        say(f"  {key}")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LIST_WAIT):
            await relay.listed.wait()
    names = [model.id for model in relay.router.models()]
    if names:
        more = f" and {len(names) - MODELS_SHOWN} more" if len(names) > MODELS_SHOWN else ""
        say(f"\nModels: {', '.join(names[:MODELS_SHOWN])}{more}")
    for name, reason in relay.listing_errors.items():
        say(f"  {name} did not list its models: {reason}")
    if key is not None:
        model = names[0] if names else "MODEL"
        say("\nTry it:\n")
        say(f"  curl -N {url}/v1/chat/completions \\")
        say(f"    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\")
        say(f"""    -d '{{"model":"{model}","stream":true,"messages":[{{"role":"user","content":"Hello!"}}]}}'""")
        say(f"\nAny OpenAI client: base_url={url}/v1, api_key=the key above.\n")


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()
