"""A model's name to the ordered targets that serve it. Pure, and as fast with a thousand models as with one.

Names are resolved in this order:

1. a model of the configuration;
2. a model that upstreams listed (the same name at several upstreams: one model with several targets);
3. `UPSTREAM/MODEL`, which names the upstream outright;
4. a name that fits the patterns of an upstream's known host, for upstreams whose list could not be had.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from relay.errors import NoSuchModel
from relay.family import Model, Target, Upstream
from relay.limits import Limits
from relay.pricing import Price

__all__ = ["Group", "PublicModel", "Router"]

DOTS = frozenset({".", ".."})
"""Parts of a name that would lead elsewhere where the name is part of an address: no model has them in its own."""
_BREAKS = re.compile(r"[/\\]")


@dataclass(frozen=True, slots=True)
class Group:
    """Targets that share calls by their weights."""

    members: tuple[tuple[Target, ...], ...]
    """Each target with its variants, one for each key of its upstream."""
    wheel: tuple[int, ...]
    """Whose turn it is: places in `members`, each as often as its weight says, and as far apart as possible."""


def _wheel(weights: Sequence[int]) -> tuple[int, ...]:
    """The shortest round in which each gets its share.

    >>> _wheel([3, 1]), _wheel([10, 10])
    ((0, 0, 1, 0), (0, 1))
    """
    common = math.gcd(*weights)
    due = [0] * len(weights)
    found = []
    for _ in range(sum(weights) // common):
        due = [had + weight // common for had, weight in zip(due, weights, strict=True)]
        place = due.index(max(due))
        due[place] -= sum(weights) // common
        found.append(place)
    return tuple(found)


def _groups(targets: Sequence[Target], weights: Sequence[int]) -> Iterator[Group]:
    """Neighbours with a weight share; one without stands alone."""
    sharing: list[tuple[Target, int]] = []
    for target, weight in zip(targets, weights or [0] * len(targets), strict=True):
        if weight:
            sharing.append((target, weight))
            continue
        if sharing:
            yield _shared(sharing)
            sharing = []
        yield Group((target.variants(),), (0,))
    if sharing:
        yield _shared(sharing)


def _shared(sharing: Sequence[tuple[Target, int]]) -> Group:
    return Group(tuple(target.variants() for target, _ in sharing), _wheel([weight for _, weight in sharing]))


@dataclass(slots=True, eq=False)
class PublicModel:
    """A name that clients ask for, what is known about it, and where its calls go."""

    id: str
    targets: tuple[Target, ...]
    created: int | None = None
    owned_by: str | None = None
    context_length: int | None = None
    capabilities: Mapping[str, bool] = field(default_factory=dict)
    price: Price | None = None
    """The configured price; it wins over every catalogue."""
    limits: Limits = field(default_factory=Limits)
    queue: int = 0
    """Calls over its limit of calls at a time that may wait."""
    queue_seconds: float = 30.0
    """How long they wait at most."""
    configured: bool = False
    weights: tuple[int, ...] = ()
    """One for each target; 0: it does not share its calls with its neighbours. Empty: nobody shares."""
    first: Target | None = field(init=False)
    """The target that every call asks first; None if that differs from call to call."""
    _groups: tuple[Group, ...] = field(default=(), init=False, repr=False)

    def __post_init__(self) -> None:
        target = self.targets[0] if self.targets else None
        alone = target is not None and not target.upstream.pool and not (self.weights and self.weights[0])
        self.first = target if alone else None

    @property
    def groups(self) -> tuple[Group, ...]:
        """The targets in their order; those that share calls together."""
        if not self._groups:
            self._groups = tuple(_groups(self.targets, self.weights))
        return self._groups


class Router:
    """The models of one relay. Configured ones are fixed; listed ones are replaced upstream by upstream."""

    def __init__(self, upstreams: Sequence[Upstream], configured: Iterable[PublicModel] = ()) -> None:
        self.upstreams = {upstream.name: upstream for upstream in upstreams}
        self._configured = {model.id: model for model in configured}
        self._lists: dict[str, Sequence[Model]] = {}
        self._models: dict[str, PublicModel] = dict(self._configured)

    def models(self) -> Iterator[PublicModel]:
        """Every model that has a name of its own, configured ones first."""
        return iter(self._models.values())

    def update(self, upstream: str, models: Sequence[Model]) -> None:
        """Take in an upstream's list. An empty one does not replace a full one: never forget on a hiccup."""
        if models or upstream not in self._lists:
            self._lists[upstream] = models
            self._rebuild()

    def inherit(self, other: Router) -> None:
        """Take over the lists of upstreams that are the same here."""
        for name, upstream in self.upstreams.items():
            before = other.upstreams.get(name)
            if before is not None and name in other._lists and _alike(before, upstream):
                self._lists[name] = other._lists[name]
        self._rebuild()

    def listed(self, upstream: str) -> bool:
        """Whether this upstream's list is known."""
        return upstream in self._lists

    def resolve(self, name: str) -> PublicModel:
        """The model of that name. Raises NoSuchModel."""
        model = self._models.get(name)
        if model is not None:
            return model
        model = self._outright(name) or self._by_pattern(name)
        if model is None:
            raise NoSuchModel(
                f"there is no model {_shown(name)} here; GET /v1/models lists those that are", param="model"
            )
        return model

    def _outright(self, name: str) -> PublicModel | None:
        first, slash, rest = name.partition("/")
        upstream = self.upstreams.get(first)
        if not slash or not rest or upstream is None or not DOTS.isdisjoint(_BREAKS.split(rest)):
            return None
        listed = next((model for model in self._lists.get(first, ()) if model.id == rest), None)
        return _public(name, (Target(upstream, rest),), listed or Model(rest))

    def _by_pattern(self, name: str) -> PublicModel | None:
        if not DOTS.isdisjoint(_BREAKS.split(name)):
            return None
        targets = tuple(
            Target(upstream, name)
            for upstream in self.upstreams.values()
            if upstream.name not in self._lists and any(fnmatchcase(name, pattern) for pattern in upstream.models)
        )
        return _public(name, targets, Model(name)) if targets else None

    def _rebuild(self) -> None:
        found: dict[str, tuple[Model, list[Target]]] = {}
        # In the order of the configuration, so that the first upstream that lists a model is the one asked first.
        for upstream in self.upstreams.values():
            for model in self._lists.get(upstream.name, ()):
                found.setdefault(model.id, (model, []))[1].append(Target(upstream, model.id))
        listed = {name: _public(name, tuple(targets), model) for name, (model, targets) in found.items()}
        self._models = {
            **self._configured,
            **{name: model for name, model in listed.items() if name not in self._configured},
        }


def _public(name: str, targets: tuple[Target, ...], model: Model) -> PublicModel:
    upstream = targets[0].upstream
    return PublicModel(
        id=name,
        targets=targets,
        created=model.created,
        owned_by=model.owned_by or upstream.name,
        context_length=model.context_length,
        capabilities={**upstream.capabilities, **model.capabilities},
    )


def _alike(one: Upstream, other: Upstream) -> bool:
    """Whether two upstreams list the same."""
    return (one.family, one.base_url, one.host) == (other.family, other.base_url, other.host)


def _shown(name: str) -> str:
    return repr(name if len(name) <= 100 else name[:97] + "...")
