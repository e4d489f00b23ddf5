"""A new configuration for a relay that serves: all of it or nothing, and open calls keep what they began with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from relay.catalog import read_catalog
from relay.config import Config
from relay.origins import Origins
from relay.routing import Router
from relay.throttle import Throttle

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["FIXED", "reload"]

FIXED: tuple[tuple[str, ...], ...] = (
    ("server", "host"),
    ("server", "port"),
    ("server", "max_body_mb"),
    ("server", "transport"),
    ("store",),
    ("memory",),
    ("plugins",),
)
"""Settings that a running relay cannot change."""


async def reload(relay: Relay, config: Config) -> list[str]:
    """Serve with this configuration from now on. Gives what of it takes a restart.

    Upstreams, models, prices, limits and times are new for every call that comes afterwards; what was counted against
    a limit stays counted. Raises ConfigError, and nothing has changed then.
    """
    catalog = await read_catalog(config, relay.plugins)
    before = relay.settings
    router = Router(catalog.upstreams, catalog.models)
    router.inherit(relay.router)
    server = config.settings.server
    if server.wrong_keys_per_minute != before.server.wrong_keys_per_minute:
        relay.throttle = Throttle(server.wrong_keys_per_minute)
    relay.origins = Origins(before.server.host, server.hosts, server.origins)
    relay.config, relay.settings = config, config.settings
    relay.catalog, relay.router = catalog, router
    relay.dispatch.configure(config.settings.routing)
    relay.forget()
    relay.life.loaded()
    return [".".join(path) for path in FIXED if _at(before, path) != _at(config.settings, path)]


def _at(settings: msgspec.Struct, path: tuple[str, ...]) -> Any:
    value: Any = settings
    for name in path:
        value = getattr(value, name)
    return value
