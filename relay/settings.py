"""What a configuration file may say: one class per table, with its defaults. `relay.config` reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

__all__ = [
    "BudgetSettings",
    "DiscoverySettings",
    "KeySettings",
    "MemorySettings",
    "ModelSettings",
    "PluginSettings",
    "PriceSettings",
    "RoutingSettings",
    "ServerSettings",
    "Settings",
    "StoreSettings",
    "TargetSettings",
    "ToolSettings",
    "UpstreamSettings",
]

Count = Annotated[int, Meta(ge=0, le=2**31)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Usd = Annotated[float, Meta(ge=0, le=1_000_000)]


class ServerSettings(msgspec.Struct, frozen=True):
    """Where the relay listens, and what it accepts."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65_535)] = 8748
    max_body_mb: Annotated[int, Meta(ge=1, le=1024)] = 32
    """Largest request body, in MiB. Agents send 100 KB and more; images come on top."""
    hosts: list[str] = field(default_factory=list)
    """Names under which the relay answers, such as `relay.example.com` or `*.example.com`, beside this machine's own.
    Empty: only those while `host` is an address of this machine alone, else any."""
    origins: list[str] = field(default_factory=list)
    """Web pages that may use the relay from a browser, as in `https://chat.example.com`; `*` is every page."""
    wrong_keys_per_minute: Annotated[int, Meta(ge=0, le=1_000_000)] = 30
    """Unknown keys that an address may try before it has to wait; 0: no limit. A proxy counts as one address."""
    max_memory_mb: Annotated[int, Meta(ge=0, le=16_777_216)] = 0
    """Memory of the process, in MiB, above which new calls get 503 until there is room again; 0: no limit. Each worker
    has this much."""
    head_timeout: Seconds = 15.0
    """Seconds for the head of a request to arrive."""
    body_timeout: Seconds = 60.0
    """Seconds for a request's body to arrive; more while it comes at 100 KB a second or faster."""
    write_timeout: Seconds = 60.0
    """Seconds that a client may take nothing of an answer that waits for it, before it is let go."""
    abandoned_seconds: Seconds = 300.0
    """Seconds that an answer whose client has gone is read on, where an upstream or a key says `abort = "drain"`."""
    pre_stop_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0
    """Seconds from the signal to stop, when `/readyz` says so at once, until nobody new is let in."""
    drain_seconds: Seconds = 30.0
    """Seconds that open answers then get to finish."""
    keep_alive_seconds: Seconds = 15.0
    """Silence in a stream after which the dialect's keep-alive is sent."""
    transport: Literal["relay", "aiohttp"] = "relay"
    """The HTTP client towards upstreams: the relay's own, or aiohttp's, which costs more and is its reference."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class StoreSettings(msgspec.Struct, frozen=True):
    """The SQLite file."""

    path: str = ""
    """Empty: `i8relay/relay.db` in the user's data folder."""
    journal: bool = True
    """Keep the calls in flight in a file beside the database, so that each has its row even after `kill -9`."""
    keep_days: Annotated[int, Meta(ge=0, le=36_500)] = 0
    """Days after which usage rows become sums by the hour, which reports and budgets still count; 0: never."""


class MemorySettings(msgspec.Struct, frozen=True):
    """What is kept for the next turn, for one key: in memory, and on disk so that only that key opens it."""

    megabytes: Annotated[int, Meta(ge=0, le=4096)] = 16
    """Reasoning that clients drop, in memory at most; 0: none is kept."""
    disk_megabytes: Annotated[int, Meta(ge=0, le=1_048_576)] = 128
    """Reasoning in the database at most, which survives a restart and is shared by workers; 0: none."""
    hours: Annotated[float, Meta(gt=0, le=8760)] = 24.0
    """How long reasoning is kept."""
    answers_megabytes: Annotated[int, Meta(ge=0, le=65_536)] = 32
    """Answers that clients may refer to by id, in memory at most; 0: none is kept."""
    answers_disk_megabytes: Annotated[int, Meta(ge=0, le=1_048_576)] = 512
    """Such answers in the database at most; 0: none."""
    answers_hours: Annotated[float, Meta(gt=0, le=8760)] = 720.0
    """How long answers are kept."""


class BudgetSettings(msgspec.Struct, frozen=True):
    """USD that every key without a budget of its own may spend. 0: no limit. Days and months are those of UTC."""

    day: Usd = 0.0
    month: Usd = 0.0
    total: Usd = 0.0


class KeySettings(msgspec.Struct, frozen=True):
    """Limits of every key that has none of its own. 0: no limit.

    The defaults are above what one process can serve: they are there so that each answer carries its rate-limit
    headers, not to slow anybody down.
    """

    rpm: Count = 1_000_000
    tpm: Count = 1_000_000_000
    concurrency: Count = 0
    unpriced: Literal["refuse", "allow"] = "refuse"
    """What becomes of a call for a model without a known price if its key has a budget; allowed, it costs nothing."""
    assumed_output: Annotated[int, Meta(ge=1, le=10_000_000)] = 16_384
    """Output tokens set aside for a call that names no maximum, if its key has a budget."""
    budget: BudgetSettings = field(default_factory=BudgetSettings)


class ToolSettings(msgspec.Struct, frozen=True):
    """What is done about a model's tool arguments that do not fit the tool's schema."""

    arguments: Literal["report", "strict", "off"] = "report"


class RoutingSettings(msgspec.Struct, frozen=True):
    """What happens when a target fails, before the first byte has gone to the client."""

    max_attempts: Annotated[int, Meta(ge=1, le=10)] = 2
    """Times that a call asks the same target, if nothing was sent or the refusal is one that passes; 1: no retries."""
    deadline_seconds: Seconds = 600.0
    """Seconds for all attempts of one call: until the answer is there, or the first output of a stream."""
    backoff_seconds: Seconds = 0.25
    """Pause before the same target is asked again; each further one is twice as long. Half of it is left to chance."""
    retry_budget: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """Retries that may be under way at a time, as a share of the calls in flight; three in any case."""
    failures: Annotated[int, Meta(ge=1, le=1000)] = 5
    """Failures in a row after which a target is left alone."""
    cool_down_seconds: Seconds = 5.0
    """How long it is left alone, unless it says so itself. One call tries it then; if it fails, twice as long."""
    max_cool_down_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 300.0
    """The longest time that a target is left alone, whatever it asks for; 0: it is always asked."""


class DiscoverySettings(msgspec.Struct, frozen=True):
    """Where upstreams are looked for beside those that are configured."""

    environment: bool = True
    """API keys in the usual environment variables."""
    local: bool = True
    """Model servers on their usual ports of this machine."""
    fallback: bool = True
    """If there is nothing else: the small model that comes with the extra `i8relay[local]`, else the demo."""


class PluginSettings(msgspec.Struct, frozen=True):
    """Which plugins are loaded."""

    only: list[str] = field(default_factory=list)
    """The installed plugins that are loaded; empty: all of them. Nothing else is even imported."""
    disabled: list[str] = field(default_factory=list)
    """Plugins that are not loaded."""
    folder: str = ""
    """Files in this folder are loaded as plugins; it must exist. They are code and run with all rights of the relay."""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """One table per plugin, handed to it as it is."""


class UpstreamSettings(msgspec.Struct, frozen=True):
    """One endpoint. The name of a known host needs no `family` and no `base_url`."""

    family: str = ""
    host: str = ""
    """The known host that this is, if the table's name does not say so already."""
    base_url: str = ""
    """Its address, as far as the family's own paths begin. A known host brings its own."""
    api_key: str | None = None
    """Its credential. A known host's usual environment variable is used if there is none here."""
    api_keys: list[str] = field(default_factory=list)
    """More credentials: calls take turns with them, and one that is refused or over its limits is left alone."""
    dialects: list[str] | None = None
    """What it speaks natively, if not what its family does."""
    models: list[str] | None = None
    """Patterns of model names it serves, for when its list cannot be had."""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with every request."""
    capabilities: dict[str, bool] = field(default_factory=dict)
    """What its models can do, for `/v1/models`."""
    options: dict[str, Any] = field(default_factory=dict)
    """The family's own settings."""
    allow_private: bool | None = None
    """Whether its name may lead to an address of a private network or of this machine. Unset: only if it says so
    itself, as `localhost`, single words, local domains and addresses do."""
    abort: Literal["cancel", "drain"] = "cancel"
    """What becomes of an answer whose client has gone: `cancel` gives it up, `drain` reads it to its end, so that what
    it cost is known. A key can say otherwise for its calls."""
    connect_timeout: Seconds = 10.0
    first_byte_timeout: Seconds = 300.0
    idle_timeout: Seconds = 120.0
    retry_statuses: list[Annotated[int, Meta(ge=400, le=599)]] | None = None
    """Statuses after which it is asked again, if not 408, 429, 500, 502, 503, 504 and 529."""
    concurrency: Count = 0
    """Calls that it gets at a time, over all models; 0: no limit. Beyond that the next target is asked."""
    queue: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """Calls that wait for a place there instead, key by key in turn; 0: none does."""
    queue_seconds: Seconds = 30.0
    """How long a call waits at most."""
    resend: bool = False
    """Send a request again after the connection was closed without an answer. It may then run, and cost, twice."""


class PriceSettings(msgspec.Struct, frozen=True):
    """USD per million tokens. What is left out costs what it is part of (`input` or `output`)."""

    input: Usd = 0.0
    """All tokens of the prompt that have no rate of their own below."""
    output: Usd = 0.0
    """All tokens of the answer that have no rate of their own below."""
    cache_read: Usd | None = None
    """Part of the input: tokens that the upstream had in its cache."""
    cache_write_5m: Usd | None = None
    """Part of the input: tokens that the upstream put into its cache for five minutes."""
    cache_write_1h: Usd | None = None
    """Part of the input: tokens that the upstream put into its cache for an hour."""
    reasoning: Usd | None = None
    """Part of the output: tokens of thinking."""
    audio_in: Usd | None = None
    """Part of the input: tokens of sound."""
    audio_out: Usd | None = None
    """Part of the output: tokens of sound."""
    request: Usd = 0.0
    """USD per call."""


class TargetSettings(msgspec.Struct, frozen=True):
    """A target that shares calls with its neighbours."""

    to: str = ""
    """`UPSTREAM/MODEL`."""
    weight: Annotated[int, Meta(ge=1, le=100)] | None = None
    """Its share of the calls, relative to its neighbours that have a weight; without one it stands alone."""


class ModelSettings(msgspec.Struct, frozen=True):
    """A public model name, and where its calls go."""

    targets: list[str | TargetSettings] = field(default_factory=list)
    """`UPSTREAM/MODEL`, in the order in which they are tried; neighbours of the form `{to, weight}` share the calls."""
    owned_by: str = ""
    """Shown in `/v1/models`; empty: the name of the first target's upstream."""
    context_length: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    """Tokens, shown in `/v1/models`; without it, what a plugin knows of the first target's model."""
    capabilities: dict[str, bool] = field(default_factory=dict)
    """Shown in `/v1/models`, over those of the first target's upstream."""
    price: PriceSettings | None = None
    """Wins over every catalogue, whichever target answers."""
    rpm: Count = 0
    """Requests a minute over all keys; 0: no limit."""
    tpm: Count = 0
    """Tokens a minute over all keys; 0: no limit."""
    concurrency: Count = 0
    """Calls at a time over all keys; 0: no limit."""
    queue: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """Calls beyond `concurrency` that wait for a place, key by key in turn; 0: they are refused at once."""
    queue_seconds: Seconds = 30.0
    """How long a call waits at most."""


class Settings(msgspec.Struct, frozen=True):
    """A whole configuration."""

    server: ServerSettings = field(default_factory=ServerSettings)
    store: StoreSettings = field(default_factory=StoreSettings)
    keys: KeySettings = field(default_factory=KeySettings)
    tools: ToolSettings = field(default_factory=ToolSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)
    discovery: DiscoverySettings = field(default_factory=DiscoverySettings)
    memory: MemorySettings = field(default_factory=MemorySettings)
    plugins: PluginSettings = field(default_factory=PluginSettings)
    upstreams: dict[str, UpstreamSettings] = field(default_factory=dict)
    models: dict[str, ModelSettings] = field(default_factory=dict)
