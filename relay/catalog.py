"""Configuration, plugins and the machine put together: the upstreams of one relay and its configured models."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from types import MappingProxyType
from urllib.parse import urlsplit

from relay import discovery
from relay.config import Config, ConfigError, Problem
from relay.family import CAPABILITIES, Family, Host, Target, Upstream
from relay.limits import Limits
from relay.manager import Plugins
from relay.pricing import NANO, Price, Rates, rate
from relay.routing import PublicModel
from relay.secret import Secret
from relay.settings import ModelSettings, PriceSettings, Settings, TargetSettings, UpstreamSettings

__all__ = ["Catalog", "load_plugins", "read_catalog"]

EXAMPLE_KEYS = re.compile(
    r"(?i)<.*>|\$\w+|.*(\.\.\.|\u2026)|(\W|x){3,}|(\w+-)*x{3,}|(your|my)[-_ ](\w+[-_ ])*(key|token|secret)([-_ ]here)?"
    r"|(change|replace)[-_ ]?(me|this)|todo|placeholder"
)
"""What examples have in a key's place. Words that servers without keys like to see, as in `none`, are not among it."""


@dataclass(slots=True)
class Catalog:
    """What a relay serves with."""

    upstreams: list[Upstream]
    models: list[PublicModel]
    found: list[discovery.Found] = field(default_factory=list)
    """Upstreams that were discovered, with the reason; they are part of `upstreams`."""


def load_plugins(settings: Settings) -> Plugins:
    """The plugins that the settings ask for. Raises Contradiction."""
    plugins = settings.plugins
    folder = FilePath(plugins.folder).expanduser() if plugins.folder else None
    return Plugins.load(disabled=plugins.disabled, folder=folder, options=plugins.options, only=plugins.only)


async def read_catalog(config: Config, plugins: Plugins, environ: Mapping[str, str] | None = None) -> Catalog:
    """Check what the settings say about upstreams and models, and look for more upstreams where that is wanted.

    Raises ConfigError with every mistake.
    """
    environ = os.environ if environ is None else environ
    builder = _Builder(config, plugins, environ)
    configured = builder.upstreams()
    found = await _discover(config.settings, plugins, environ, configured)
    upstreams = [*configured, *(item.upstream for item in found)]
    models = builder.models({upstream.name: upstream for upstream in upstreams})
    builder.plugin_folder()
    builder.plugin_names()
    builder.plugin_options()
    if builder.problems:
        raise ConfigError(config.source, builder.problems)
    return Catalog(upstreams, models, found)


async def _discover(
    settings: Settings, plugins: Plugins, environ: Mapping[str, str], configured: list[Upstream]
) -> list[discovery.Found]:
    wanted = settings.discovery
    taken = {upstream.name for upstream in configured} | {upstream.host for upstream in configured}
    hosts = [(family, host) for family, host in plugins.hosts() if host.name not in taken]
    found: list[discovery.Found] = []
    if wanted.environment:
        found += discovery.from_environment(hosts, environ)
    if wanted.local:
        found += await discovery.from_ports(hosts, environ)
    if wanted.fallback and not found and not configured:
        found += discovery.fallback(hosts, environ)
    return found


class _Builder:
    """Turns settings into values that the core works with, collecting mistakes."""

    def __init__(self, config: Config, plugins: Plugins, environ: Mapping[str, str]) -> None:
        self.config = config
        self.settings = config.settings
        self.plugins = plugins
        self.environ = environ
        self.problems: list[Problem] = []
        self.hosts: dict[str, tuple[Family, Host]] = {host.name: (family, host) for family, host in plugins.hosts()}

    def wrong(self, path: tuple[str | int, ...], message: str) -> None:
        self.problems.append(self.config.problem(path, message))

    def plugin_folder(self) -> None:
        folder = self.settings.plugins.folder
        if folder and not FilePath(folder).expanduser().is_dir():
            self.wrong(("plugins", "folder"), f"there is no folder {folder!r}")

    def plugin_names(self) -> None:
        known = {record.name for record in self.plugins.records}
        plugins = self.settings.plugins
        for setting, names in (("only", plugins.only), ("disabled", plugins.disabled)):
            for index, name in enumerate(names):
                if name not in known:
                    self.wrong(("plugins", setting, index), f"no plugin is named {name!r}")

    def plugin_options(self) -> None:
        for name, mistake in self.plugins.mistakes():
            self.wrong(("plugins", "options", name), mistake)

    def upstreams(self) -> list[Upstream]:
        built = (self.upstream(name, row) for name, row in self.settings.upstreams.items())
        return [upstream for upstream in built if upstream is not None]

    def upstream(self, name: str, row: UpstreamSettings) -> Upstream | None:
        path = ("upstreams", name)
        if not name or "/" in name:
            self.wrong(path, "an upstream's name must not be empty or hold a slash")
            return None
        base = self.base(path, name, row)
        if base is None:
            return None
        family = self.plugins.families[base.family].family
        for key in row.options:
            if key not in family.options:
                known = ", ".join(sorted(family.options)) or "none"
                self.wrong((*path, "options", key), f"family {family.name!r} has no such option; it has: {known}")
        self.capabilities((*path, "capabilities"), row.capabilities)
        dialects = base.dialects if row.dialects is None else frozenset(row.dialects)
        for dialect in sorted(dialects - family.dialects):
            self.wrong((*path, "dialects"), f"family {family.name!r} does not speak {dialect!r}")
        upstream = replace(
            base,
            name=name,
            dialects=dialects,
            headers=MappingProxyType(row.headers),
            models=base.models if row.models is None else tuple(row.models),
            capabilities=MappingProxyType({**base.capabilities, **row.capabilities}),
            # Plugins read them, and what one of them would write all calls would get.
            options=MappingProxyType({**base.options, **row.options}),
            connect_timeout=row.connect_timeout,
            first_byte_timeout=row.first_byte_timeout,
            idle_timeout=row.idle_timeout,
            allow_private=base.allow_private if row.allow_private is None else row.allow_private,
            abort=row.abort,
            retried=base.retried if row.retry_statuses is None else frozenset(row.retry_statuses),
            resend=row.resend,
            concurrency=row.concurrency,
            queue=row.queue,
            queue_seconds=row.queue_seconds,
            apart=base.apart or row.concurrency > 0,
        )
        keys = self.keys(path, row, upstream.api_key)
        if len(keys) < 2:
            return replace(upstream, api_key=keys[0]) if keys else upstream
        pool = tuple(replace(upstream, api_key=key, key_number=number) for number, key in enumerate(keys, 1))
        return replace(pool[0], pool=pool[1:])

    def keys(self, path: tuple[str, ...], row: UpstreamSettings, first: Secret | None) -> list[Secret]:
        """All of an upstream's keys. With `api_keys` alone the known host's variable is not looked at."""
        keys = [first] if first is not None and (row.api_key is not None or not row.api_keys) else []
        for index, text in enumerate(row.api_keys):
            key = Secret(text.strip())
            if self.is_no_key(text):
                self.wrong((*path, "api_keys", index), "is blank or a placeholder")
            elif key in keys:
                self.wrong((*path, "api_keys", index), "is the same as one before it")
            else:
                keys.append(key)
        return keys

    @staticmethod
    def is_no_key(text: str) -> bool:
        """Whether what stands in a key's place cannot be one."""
        key = text.strip()
        return not key or EXAMPLE_KEYS.fullmatch(key) is not None

    def base(self, path: tuple[str, ...], name: str, row: UpstreamSettings) -> Upstream | None:
        """Family, address and key: from the table, else from the known host."""
        host_name = row.host or (name if not row.family and not row.base_url else "")
        known = self.hosts.get(host_name)
        if known is None and row.host:
            self.wrong((*path, "host"), f"no plugin knows a host {row.host!r}")
            return None
        if known is None and not row.family:
            self.wrong(path, f"{name!r} is not a known host, so it needs a family and a base_url")
            return None
        if row.family and row.family not in self.plugins.families:
            have = ", ".join(sorted(self.plugins.families))
            self.wrong((*path, "family"), f"no plugin serves a family {row.family!r}; there are: {have}")
            return None
        key = (row.api_key or "").strip()
        if row.api_key is not None and self.is_no_key(row.api_key):
            self.wrong((*path, "api_key"), "is blank or a placeholder")
        if known is not None:
            family, host = known
            if row.family and row.family != family.name:
                self.wrong((*path, "family"), f"the host {host.name!r} is served by family {family.name!r}")
                return None
            variable = next((self.environ[name] for name in host.env if self.environ.get(name)), None)
            upstream = discovery.upstream_of(family, host, key or variable, self.environ)
        else:
            family = self.plugins.families[row.family].family
            upstream = discovery.upstream_of(family, Host(name=name, base_url=""), key or None, {})
            upstream = replace(upstream, host="")
        if row.base_url:
            upstream = replace(upstream, base_url=row.base_url)
        if family.addressed and not _is_http(upstream.base_url):
            self.wrong((*path, "base_url"), "must be an http:// or https:// URL without a query")
            return None
        return upstream

    def models(self, upstreams: Mapping[str, Upstream]) -> list[PublicModel]:
        return [self.model(name, row, upstreams) for name, row in self.settings.models.items()]

    def model(self, name: str, row: ModelSettings, upstreams: Mapping[str, Upstream]) -> PublicModel:
        path = ("models", name)
        targets: list[Target] = []
        weights: list[int] = []
        if not row.targets:
            self.wrong(path, 'needs at least one target, as in targets = ["UPSTREAM/MODEL"]')
        for index, entry in enumerate(row.targets):
            share = TargetSettings(to=entry) if isinstance(entry, str) else entry
            target = self.target((*path, "targets", index), share.to, upstreams)
            if target is not None:
                targets.append(target)
                weights.append(share.weight or 0)
        self.capabilities((*path, "capabilities"), row.capabilities)
        upstream = targets[0].upstream if targets else None
        return PublicModel(
            id=name,
            targets=tuple(targets),
            weights=tuple(weights) if any(weights) else (),
            owned_by=row.owned_by or (upstream.name if upstream else None),
            context_length=row.context_length,
            capabilities={**(upstream.capabilities if upstream else {}), **row.capabilities},
            price=_price(row.price) if row.price is not None else None,
            limits=Limits(row.rpm, row.tpm, row.concurrency),
            queue=row.queue,
            queue_seconds=row.queue_seconds,
            configured=True,
        )

    def target(self, path: tuple[str | int, ...], text: str, upstreams: Mapping[str, Upstream]) -> Target | None:
        first, slash, rest = text.partition("/")
        if not slash or not rest:
            self.wrong(path, "must have the form UPSTREAM/MODEL")
        elif first in upstreams:
            return Target(upstreams[first], rest)
        elif first not in self.settings.upstreams:
            # A configured one that is missing here has its own mistake in the list already.
            have = ", ".join(sorted(upstreams)) or "none"
            self.wrong(path, f"there is no upstream {first!r}; there are: {have}")
        return None

    def capabilities(self, path: tuple[str, ...], row: Mapping[str, bool]) -> None:
        for name in row:
            if name not in CAPABILITIES:
                self.wrong((*path, name), f"unknown capability; there are: {', '.join(CAPABILITIES)}")


def _is_http(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment


def _price(row: PriceSettings) -> Price:
    def optional(value: float | None) -> int | None:
        return None if value is None else rate(value)

    return Price(
        rates=Rates(
            input=rate(row.input),
            output=rate(row.output),
            cache_read=optional(row.cache_read),
            cache_write_5m=optional(row.cache_write_5m),
            cache_write_1h=optional(row.cache_write_1h),
            reasoning=optional(row.reasoning),
            audio_in=optional(row.audio_in),
            audio_out=optional(row.audio_out),
        ),
        request=round(row.request * NANO),
    )
