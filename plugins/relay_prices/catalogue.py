"""The price file, read and searched: which vendor an upstream is, which of its models a name means, what it costs."""

from __future__ import annotations

import ipaddress
import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from relay import Price, Rates, Target, Tier
from relay.kit import loads
from relay_prices.snapshot import SCHEMA

__all__ = ["Catalogue", "Entry", "LOCAL", "Vendor", "local", "matches"]

LONGEST = 200
"""Characters of a model name that is looked up at all; names may come from clients."""
REMEMBERED = 4096
"""Names whose search is not repeated."""

HOSTS: Mapping[str, str] = {
    "azure-openai": "azure",
    "bedrock": "aws",
    "gemini": "google",
    "moonshot": "moonshotai",
    "vertex": "google",
    "voyage": "voyageai",
    "xai": "x-ai",
    "zhipu": "zhipuai",
}
"""Names of known hosts, where the price file has another name for the same vendor."""

LOCAL = Price(Rates(input=0, output=0), source="local")
"""A model on one's own machine."""

_DATED = re.compile(r"(-)(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_CLAUSES: Mapping[str, Callable[[str, list[Any]], bool]] = {
    "equals": lambda name, rest: name == rest[0],
    "starts_with": lambda name, rest: name.startswith(rest[0]),
    "ends_with": lambda name, rest: name.endswith(rest[0]),
    "contains": lambda name, rest: rest[0] in name,
    "regex": lambda name, rest: _compiled(rest[0]).search(name) is not None,
    "or": lambda name, rest: any(matches(name, clause) for clause in rest),
    "and": lambda name, rest: all(matches(name, clause) for clause in rest),
}


def matches(name: str, clause: list[Any]) -> bool:
    """Whether a model name, in lower case, fulfils a clause of the price file."""
    return _CLAUSES[clause[0]](name, clause[1:])


def _active(when: list[Any] | None, at: int) -> bool:
    if when is None:
        return True
    if when[0] == "from":
        return bool(at >= when[1])
    second, (start, end) = at % 86400, when[1:]
    return bool(second >= start or second < end) if end < start else bool(start <= second < end)


@dataclass(slots=True)
class Entry:
    """One model of one vendor."""

    id: str
    match: list[Any]
    context_length: int | None
    prices: list[list[Any]]
    source: str
    _made: dict[int, Price | None] = field(default_factory=dict)

    def price(self, at: int) -> Price | None:
        """What it costs at the Unix second `at`; None if the file does not say."""
        number = 0
        for index in range(len(self.prices) - 1, -1, -1):
            if _active(self.prices[index][0], at):
                number = index
                break
        if number not in self._made:
            self._made[number] = self._make(self.prices[number][1])
        return self._made[number]

    def _make(self, data: Mapping[str, Any] | None) -> Price | None:
        if data is None:
            return None
        tiers = tuple(Tier(above, Rates(**rates)) for above, rates in data["tiers"])
        return Price(Rates(**data["rates"]), tiers=tiers, request=data["request"], source=self.source)


class VendorData(msgspec.Struct):
    """A seller of models as the file has it. Its models, nearly all of it, stay unread until asked for."""

    id: str
    name: str
    api: str | None
    fallback: list[str]
    models: msgspec.Raw


class CatalogueData(msgspec.Struct):
    """The file."""

    schema: int
    source: str
    providers: list[VendorData]


class Vendor:
    """One seller of models."""

    def __init__(self, data: VendorData, source: str) -> None:
        self.id = data.id
        self.name = data.name
        self.api = data.api
        """Matches the beginning of its addresses."""
        self.fallback = data.fallback
        """Vendors whose prices count where it has none of its own."""
        # Most vendors are never asked for, and what is here packs to a tenth.
        self._packed = zlib.compress(bytes(data.models), 1)
        self._source = source

    @cached_property
    def models(self) -> list[Entry]:
        """What it sells."""
        found = loads(zlib.decompress(self._packed))
        return [Entry(id_, match, context, prices, self._source) for id_, match, context, prices in found]

    def find(self, name: str) -> Entry | None:
        """The first model that a name, in lower case, means."""
        return next((entry for entry in self.models if matches(name, entry.match)), None)


class Catalogue:
    """All vendors and their models."""

    def __init__(self, data: CatalogueData) -> None:
        if data.schema != SCHEMA:
            raise ValueError(f"its schema is {data.schema!r}, not {SCHEMA}")
        self.source = data.source
        self.vendors = {item.id: Vendor(item, data.source) for item in data.providers}
        self._found: OrderedDict[tuple[str, str], Entry | None] = OrderedDict()

    @classmethod
    def read(cls, path: Path) -> Catalogue:
        """The catalogue of a file. Raises OSError, or ValueError if it is not a price file of our form."""
        try:
            return cls(msgspec.json.decode(path.read_bytes(), type=CatalogueData))
        except msgspec.MsgspecError as error:
            raise ValueError(f"it is not a price file: {error}") from error

    def vendor(self, host: str, base_url: str) -> Vendor | None:
        """Who sells what an upstream serves: by the name of the known host, else by the address."""
        if host:
            known = self.vendors.get(HOSTS.get(host, host))
            if known is not None:
                return known
        return self._by_address(base_url)

    def _by_address(self, base_url: str) -> Vendor | None:
        parts = urlsplit(base_url)
        if not parts.hostname:
            return None
        # Written again from its parts, so that nothing but the host's own name can match.
        address = f"{parts.scheme}://{parts.hostname}{parts.path}"[:LONGEST]
        for vendor in self.vendors.values():
            if vendor.api is not None and _compiled(vendor.api).match(address):
                return vendor
        return None

    def find(self, vendor: Vendor, model: str) -> Entry | None:
        """The model that a name means at that vendor."""
        name = model.lower()
        if len(name) > LONGEST:
            return None
        key = (vendor.id, name)
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        entry = self._search(vendor, name)
        if entry is None and (dashed := _DATED.sub(r"\1\2-\3-\4", name)) != name:
            # Some relays upstream write `-20261105` where the vendor writes `-2026-11-05`.
            entry = self._search(vendor, dashed)
        self._found[key] = entry
        if len(self._found) > REMEMBERED:
            self._found.popitem(last=False)
        return entry

    def _search(self, vendor: Vendor, name: str) -> Entry | None:
        entry = vendor.find(name)
        if entry is None:
            others = (self.vendors[other] for other in vendor.fallback if other in self.vendors)
            entry = next((found for other in others if (found := other.find(name)) is not None), None)
        return entry

    def entry(self, target: Target) -> Entry | None:
        """What the file knows of a target."""
        vendor = self.vendor(target.upstream.host, target.upstream.base_url)
        return None if vendor is None else self.find(vendor, target.model)

    def everywhere(self, model: str) -> Iterator[tuple[Vendor, Entry]]:
        """Every vendor that sells a model of that name."""
        for vendor in self.vendors.values():
            entry = self.find(vendor, model)
            if entry is not None:
                yield vendor, entry


def local(base_url: str) -> bool:
    """Whether an address is this machine."""
    host = urlsplit(base_url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
