"""Loading plugins, and keeping the broken ones away from the good ones.

A plugin that cannot be imported, marks a hook that does not exist, or fails while it registers is reported (`records`)
and left out; the relay starts without it. Only a contradiction stops the relay: two plugins that claim one family or
one dialect, because whichever was chosen would surprise somebody with their credentials.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from relay import hookspecs
from relay.bound import TRANSLATION, BoundFamily, Ordering, Policy, guarded
from relay.dialect import Dialect
from relay.errors import PluginError
from relay.family import Family, Host, Model, Target
from relay.installed import installed_plugins
from relay.pricing import Price

if TYPE_CHECKING:
    from relay.app import Relay

__all__ = ["Contradiction", "PluginRecord", "Plugins"]

MAY_BE_ASYNC = frozenset({"endpoint"})

log = logging.getLogger("relay.plugins")
T = TypeVar("T")


class Contradiction(Exception):
    """Two plugins claim the same name: the relay does not start until one of them is disabled."""


@dataclass(slots=True)
class PluginRecord:
    """One plugin that was found, loaded or not; what `relay plugins` shows."""

    name: str
    source: str
    """`package NAME VERSION`, or the path of a drop-in file."""
    error: str | None = None
    mistake: str | None = None
    """What it says is wrong with its options."""
    disabled: bool = False
    hooks: list[str] = field(default_factory=list)
    families: list[str] = field(default_factory=list)
    dialects: list[str] = field(default_factory=list)


class Plugins:
    """All plugins of one relay. Tests build their own; there is no global one."""

    def __init__(self) -> None:
        self.manager = pluggy.PluginManager(hookspecs.PROJECT)
        self.manager.add_hookspecs(hookspecs)
        self.records: list[PluginRecord] = []
        self.families: dict[str, BoundFamily] = {}
        self.dialects: dict[str, Dialect] = {}
        self.options: Mapping[str, Mapping[str, Any]] = {}
        self._policies: dict[str, Sequence[Any]] = {}

    @classmethod
    def load(
        cls,
        *,
        disabled: Iterable[str] = (),
        folder: Path | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        only: Iterable[str] = (),
        given: Mapping[str, object] | None = None,
    ) -> Plugins:
        """Everything installed under the entry point group, and the drop-in folder's files if one is given.

        `only`: the names of those that are loaded, of the installed ones; empty: all. `given`: more of them by their
        names, each a module, another object, or the path of a file; for tests.

        Raises Contradiction if two plugins claim one family or dialect.
        """
        plugins = cls()
        plugins.options = options or {}
        blocked, wanted = set(disabled), set(only)
        installed = list(installed_plugins())
        if wanted:
            blocked.update(name for name, _, _ in installed if name not in wanted)
        for name, source, bring in (*installed, *_drop_ins(folder), *_given(given or {})):
            if name in blocked:
                plugins.records.append(PluginRecord(name, source, disabled=True))
            else:
                plugins.add(name, bring, source)
        plugins.bind()
        return plugins

    def add(self, name: str, bring: Callable[[], object] | object, source: str = "given") -> PluginRecord:
        """Import and register one plugin. What goes wrong stands in the record's `error`."""
        record = PluginRecord(name, source)
        self.records.append(record)
        try:
            plugin = bring() if inspect.isfunction(bring) or inspect.ismethod(bring) else bring
        except (Exception, SystemExit) as error:
            record.error = f"cannot be imported: {type(error).__name__}: {error}"
            return record
        if self.manager.has_plugin(name):
            record.error = f"a plugin named {name!r} is already loaded"
            return record
        try:
            if type(plugin).__hash__ is None:
                raise ValueError(f"an object of {type(plugin).__name__} cannot be a plugin: it has no hash")
            self.manager.register(plugin, name)
            self._inspect(record, plugin)
        except pluggy.PluginValidationError as error:
            record.error = str(error).splitlines()[-1].strip()
        except ValueError as error:
            record.error = str(error)
        if record.error and self.manager.get_plugin(name) is plugin:
            self.manager.unregister(plugin)
        return record

    def _inspect(self, record: PluginRecord, plugin: object) -> None:
        """Refuse hooks that would silently never be called, or whose coroutine would never be awaited."""
        known = {name for name, _ in inspect.getmembers(hookspecs, inspect.isfunction)}
        callers = self.manager.get_hookcallers(plugin) or []
        if not callers:
            raise ValueError("it implements no hook; mark its functions with relay.hookimpl")
        for caller in callers:
            if not caller.has_spec():
                import difflib

                near = difflib.get_close_matches(caller.name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"there is no hook {caller.name!r}{hint}")
            function = getattr(plugin, caller.name)
            if caller.name not in MAY_BE_ASYNC and inspect.iscoroutinefunction(function):
                raise ValueError(f"{caller.name} must be a plain function, not a coroutine")
            record.hooks.append(caller.name)

    def bind(self) -> None:
        """Ask all plugins for their families and dialects. Raises Contradiction."""
        owners: dict[str, object] = {}
        found: list[tuple[Family, str, object]] = []
        for record, plugin in self._loaded():
            try:
                families = self._register(record, plugin, "relay_families", Family)
                dialects = self._register(record, plugin, "relay_dialects", Dialect)
            except PluginError as error:
                record.error = error.message
                self.manager.unregister(plugin)
                continue
            for family in families:
                self._claim("family", family.name, record.name, (item[0].name for item in found))
                found.append((family, record.name, plugin))
                owners[record.name] = plugin
                record.families.append(family.name)
            for dialect in dialects:
                self._claim("dialect", dialect.name, record.name, self.dialects)
                self.dialects[dialect.name] = dialect
                record.dialects.append(dialect.name)
        for family, name, plugin in found:
            others = [owner for owner in owners.values() if owner is not plugin]
            hooks = {hook: self.manager.subset_hook_caller(hook, others) for hook in TRANSLATION}
            self.families[family.name] = BoundFamily(family, name, hooks, self._origin(name))

    def _origin(self, plugin: str) -> str:
        return next(record.source for record in self.records if record.name == plugin)

    def origin(self, dialect: str) -> str:
        """Where the plugin of a dialect comes from, and its version if it has one."""
        return next(record.source for record in self.records if dialect in record.dialects)

    def _claim(self, kind: str, name: str, plugin: str, taken: Iterable[str]) -> None:
        if name in taken:
            attribute = "families" if kind == "family" else "dialects"
            owner = next(record.name for record in self.records if name in getattr(record, attribute))
            raise Contradiction(
                f"plugins {owner!r} and {plugin!r} both serve the {kind} {name!r}; disable one of them "
                f"(plugins.disabled in the configuration)"
            )

    def _register(self, record: PluginRecord, plugin: object, hook: str, kind: type[Any]) -> list[Any]:
        answer = self._ask_one(record.name, plugin, hook, options=self.options.get(record.name, {}))
        items = list(answer or ())
        if wrong := [item for item in items if not isinstance(item, kind)]:
            raise PluginError(record.name, f"returned {type(wrong[0]).__name__} from {hook}, not {kind.__name__}")
        return items

    def _ask_one(self, name: str, plugin: object, hook: str, **arguments: Any) -> Any:
        """One plugin's answer to a hook that every plugin is asked. Raises PluginError."""
        return guarded(name, hook, lambda: self._call_one(plugin, hook, **arguments))

    def _call_one(self, plugin: object, hook: str, **arguments: Any) -> Any:
        for implementation in getattr(self.manager.hook, hook).get_hookimpls():
            if implementation.plugin is plugin:
                return implementation.function(**{name: arguments[name] for name in implementation.argnames})
        return None

    def _loaded(self) -> Iterator[tuple[PluginRecord, object]]:
        for record in self.records:
            plugin = self.manager.get_plugin(record.name)
            if plugin is not None and record.error is None and not record.disabled:
                yield record, plugin

    # One typed method per hook that every plugin is asked.

    def modules(self) -> Mapping[str, str]:
        """Whose each top-level module is, of those that plugins' hooks are in."""
        found: dict[str, str] = {}
        for record, plugin in self._loaded():
            for caller in self.manager.get_hookcallers(plugin) or ():
                function = inspect.unwrap(getattr(plugin, caller.name))
                found.setdefault(function.__module__.partition(".")[0], record.name)
        return found

    def hosts(self) -> Iterator[tuple[Family, Host]]:
        """All known hosts of all families."""
        for bound in self.families.values():
            for host in bound.family.hosts:
                yield bound.family, host

    def lifespans(self, relay: Relay) -> Iterator[tuple[str, AbstractAsyncContextManager[None]]]:
        """What plugins run while the relay serves, each with its plugin's name."""
        for record, plugin in self._loaded():
            options = self.options.get(record.name, {})
            span = self._ask_one(record.name, plugin, "relay_lifespan", relay=relay, options=options)
            if span is not None:
                yield record.name, span

    def orderings(self) -> Sequence[Ordering]:
        """The orders of all plugins that have one."""
        return self._made("order_targets", Ordering)

    def policies(self) -> Sequence[Policy]:
        """Those who have a say in calls."""
        return self._made("on_call", Policy)

    def _made(self, hook: str, kind: Callable[[str, Any], T]) -> Sequence[T]:
        """What plugins make of their options, once. One that fails to is logged and does without."""
        known: Sequence[T] | None = self._policies.get(hook)
        if known is not None:
            return known
        found: list[T] = []

        def make(record: PluginRecord, plugin: object) -> None:
            try:
                policy = self._call_one(plugin, hook, options=self.options.get(record.name, {}))
            except ValueError as error:
                # That is how a plugin says that its options are wrong.
                record.error = record.mistake = str(error)
            else:
                if policy is not None:
                    found.append(kind(record.name, policy))

        for record, plugin in self._loaded():
            try:
                guarded(record.name, hook, lambda: make(record, plugin))  # noqa: B023
            except PluginError as error:
                record.error = error.message
        self._policies[hook] = found
        return found

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """What plugins say is wrong with their options, by their names."""
        self.orderings()
        self.policies()
        yield from ((record.name, record.mistake) for record in self.records if record.mistake is not None)

    def price(self, target: Target, at: int) -> Price | None:
        """What a plugin says that the target costs."""
        answer = guarded("price", "price", lambda: self.manager.hook.price(target=target, at=at))
        return answer if isinstance(answer, Price) else None

    def describe(self, target: Target) -> Model | None:
        """What a plugin knows of the target's model that its upstream does not tell."""
        answer = guarded("describe", "describe", lambda: self.manager.hook.describe(target=target))
        return answer if isinstance(answer, Model) else None


def _drop_ins(folder: Path | None) -> Iterator[tuple[str, str, Callable[[], object]]]:
    if folder is None:
        return
    for path in sorted(folder.glob("*.py")):
        yield path.stem, str(path), _file_loader(path)


def _given(plugins: Mapping[str, object]) -> Iterator[tuple[str, str, object]]:
    for name, plugin in plugins.items():
        yield name, "given", _file_loader(plugin) if isinstance(plugin, Path) else plugin


def _file_loader(path: Path) -> Callable[[], ModuleType]:
    def bring() -> ModuleType:
        # A name of its own, so that a drop-in called `json.py` cannot stand in for the real one.
        name = f"relay_drop_in_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return bring
