"""The shape of the code: who may import whom, who may know whom, and where the exceptions are."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        # Values and pure functions that know nobody.
        "effort errors heap ir lasting media mould outbox paths retry secret settings stalls table toml version"
        " store.inserts",
        # The hub's stream, money, limits, the file's reader, the upstream side of the contract.
        "crowd life throttle config envelope events family fields limits outlet pricing seal"
        " store.database store.words store.writer valve",
        "budget",
        # The caller's side of the contract, the hooks, and what turns names into targets.
        "body connection fold guard lost origins policy proxies routing store.backup store.journal store.keys",
        "outline",
        "dialect store.seals",
        "hookspecs",
        "installed",
        # What translators are made of; how usage and keys are looked up.
        "exchange heads health kit lines routes store.kept store.repeats store.ring store.spending store.usage",
        "shelf store.upkeep",
        "bound",
        # Plugins are loaded here: from here on the core has opinions, below it only has values.
        "client discovery http1 manager memory meter schemas store upstream",
        "dispatch",
        # One request's life, in this order.
        "call catalog middleware parted recast skim",
        "stream",
        "attempt",
        "counting recorder",
        "embedding",
        "pipeline repeats watch",
        "policies",
        # The web.
        "views.auth",
        "gate lane",
        "views.calls views.health views.kept views.models",
        "views",
        "app",
        "drain",
        "door reload",
        # For the tests of plugins' authors.
        "testing.damage testing.grammar testing.questions testing.upstream testing.vectors",
        "testing.serving testing.translation",
        "testing.suite",
        "testing",
        # The terminal.
        "cli.logs cli.moment cli.notify cli.options",
        "cli.database cli.lifetime cli.workers",
        "cli.backup cli.chat cli.check cli.init cli.keys cli.models cli.plugins cli.serve cli.usage",
        "cli",
        "__main__",
    )
)
"""Modules of `relay`, lowest first. A module imports only from layers below its own; for types alone, from anywhere."""

CONTRACT = frozenset(
    f"relay{name}"
    for name in (
        *("", ".ir", ".events", ".errors", ".kit", ".fold"),
        *(".meter", ".mould", ".outline", ".skim", ".body", ".fields", ".media"),
    )
)
"""All that a plugin may import of the core."""
TWINS = frozenset(f"relay.{name}" for name in ("heap", "mould", "outbox", "outline", "valve"))
"""Who is there in C as well, and nobody else need know."""
SHARED = frozenset({("relay_local", "relay_openai"), ("relay_bedrock", "relay_anthropic")})
"""Plugins that build on another one: (who, on whom)."""

VENDORS = re.compile(
    r"(?<![a-z])(openai|anthropic|gemini|google|vertex|bedrock|amazon|azure|cohere|mistral|groq|deepseek|xai|grok|moonshot"
    r"|kimi|zhipu|qwen|ollama|openrouter|vllm|llama|claude|chatgpt|gpt|huggingface|perplexity)(?![a-z])"
)
"""Vendors and their models as words, also within names: `openai-chat`, `OPENAI_API_KEY`."""
NAMED = {
    ("relay/cli/serve.py", "openai"): "the greeting tells people which clients and which variables will do",
    ("relay/cli/keys.py", "gpt"): "the help shows a pattern that people recognise",
    ("relay/client.py", "openai"): "`relay chat` is a client, and a client speaks one dialect",
    ("relay/events.py", "openai"): "the hub's log-probabilities have that shape, and somebody has to be told",
    ("relay/ir.py", "openai"): "an example of a dialect's name, and the shape of log-probabilities",
    ("relay/toml.py", "groq"): "an example of a path in a configuration",
}
"""Where the core may say a vendor's name all the same, and why. `relay/example.toml` is written for people to copy."""

CATCHERS = frozenset(
    {
        ("relay/app.py", "running"),
        ("relay/attempt.py", "_ready"),
        ("relay/http1.py", "_look"),
        ("relay/cli/logs.py", "_run"),
        ("relay/installed.py", "add_commands"),
        ("relay/lane.py", "_failed"),
        ("relay/lane.py", "_usual"),
        ("relay/lines.py", "call"),
        ("relay/lane.py", "begin"),
        ("relay/lane.py", "changed"),
        ("relay/lane.py", "enter"),
        ("relay/lasting.py", "_run"),
        ("relay/bound.py", "_ask"),
        ("relay/manager.py", "add"),
        ("relay/bound.py", "guarded"),
        ("relay/bound.py", "on_call"),
        ("relay/middleware.py", "errors"),
        ("relay/stream.py", "_decode"),
        ("relay/stream.py", "_work"),
        ("relay/stream.py", "finish"),
        ("relay/stream.py", "take"),
        ("relay/views/calls.py", "_answer"),
    }
)
"""The functions that catch every exception: around plugin code, at the outermost edge of a request, and around what has
to go on whatever happens."""

KEEPERS = {
    ("relay/exchange.py", "_give"): "it keeps what the sink raised for whoever pumps or listens",
    ("relay/exchange.py", "data"): "the same, called by the event loop",
    ("relay/valve.py", "__call__"): "the same, for what passes unread",
    ("relay/connection.py", "_passed"): "the same",
}
"""Where even a cancellation is caught and not raised at once, and why."""

LONGEST = 600
"""Lines of a file."""


@dataclass(frozen=True)
class Source:
    path: str
    module: str
    tree: ast.Module
    text: str

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def read(container: Path, folder: Path) -> Iterator[Source]:
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(container).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = file.read_text(encoding="utf-8")
        yield Source(str(file.relative_to(ROOT)), name, ast.parse(text), text)


CORE = list(read(ROOT, ROOT / "relay"))
PLUGINS = [
    source
    for container in (ROOT / "providers", ROOT / "plugins")
    for folder in sorted(container.iterdir())
    if folder.is_dir()
    for source in read(container, folder)
]
EVERYTHING = [*CORE, *PLUGINS]
RANK = {name: number for number, layer in enumerate(LAYERS) for name in layer}
KNOWN = {source.module for source in EVERYTHING}
by_module = pytest.mark.parametrize("source", EVERYTHING, ids=lambda source: source.module)
by_core = pytest.mark.parametrize("source", CORE, ids=lambda source: source.module)
by_plugin = pytest.mark.parametrize("source", PLUGINS, ids=lambda source: source.module)


def imports(source: Source, *, types: bool) -> Iterator[str]:
    """Modules of ours that a module imports, wherever in it; those for type checkers only if `types`."""

    def walk(node: ast.AST) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test) and not types:
                continue
            if isinstance(child, ast.Import):
                yield from (alias.name for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{source.path}: imports are absolute"
                for alias in child.names:
                    # `from relay import kit` takes a module; `from relay import Target` takes a name of `relay`.
                    inner = f"{child.module}.{alias.name}"
                    yield inner if inner in KNOWN else child.module or ""
            yield from walk(child)

    yield from (name for name in walk(source.tree) if name.partition(".")[0].startswith("relay"))


def test_every_module_of_the_core_has_a_layer() -> None:
    modules = {source.module.removeprefix("relay.") for source in CORE if source.module != "relay"}
    assert modules == set(RANK), "put the new module into LAYERS (or take the old one out)"


@by_core
def test_imports_in_the_core_point_downwards(source: Source) -> None:
    if source.module == "relay":
        # The package's face shows names of the contract, and nothing that does work.
        shown = {RANK[name.removeprefix("relay.")] for name in imports(source, types=True)}
        assert max(shown) <= RANK["hookspecs"]
        return
    own = RANK[source.module.removeprefix("relay.")]
    for name in imports(source, types=False):
        assert name != "relay", f"{source.path} imports from the package's face; it should name the module"
        assert name.startswith("relay."), f"{source.path} imports a plugin: {name}"
        if name == "relay._native" and source.module in TWINS:
            continue
        assert RANK[name.removeprefix("relay.")] < own, f"{source.path} imports {name}, which is not below it"


@by_core
def test_the_core_imports_no_plugin_even_for_types(source: Source) -> None:
    assert not [name for name in imports(source, types=True) if name.partition(".")[0] != "relay"]


@by_plugin
def test_plugins_import_the_contract_and_themselves(source: Source) -> None:
    for name in imports(source, types=False):
        package = name.partition(".")[0]
        good = name in CONTRACT or package == source.package or (source.package, package) in SHARED
        assert good, f"{source.path} imports {name}, which is not part of the contract"


def test_what_the_contract_offers_exists() -> None:
    assert CONTRACT <= KNOWN


def vendors_in(text: str) -> set[str]:
    return set(VENDORS.findall(text.lower()))


@by_core
def test_the_core_names_no_vendor(source: Source) -> None:
    found = vendors_in(source.text) | vendors_in(source.path)
    assert found <= {word for file, word in NAMED if file == source.path}


def test_migrations_name_no_vendor() -> None:
    scripts = list((ROOT / "relay/store/migrations").glob("*.sql"))
    assert scripts
    assert not [script.name for script in scripts if vendors_in(script.read_text(encoding="utf-8"))]


def test_every_exception_to_that_is_still_needed() -> None:
    texts = {source.path: source.text for source in CORE}
    assert not [place for place in NAMED if place[1] not in vendors_in(texts[place[0]])]


def handlers(source: Source) -> Iterator[tuple[str, ast.ExceptHandler]]:
    """Each `except`, with the name of the function around it."""

    def walk(node: ast.AST, function: str) -> Iterator[tuple[str, ast.ExceptHandler]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ExceptHandler):
                yield function, child
            inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            yield from walk(child, inner)

    return walk(source.tree, "")


def caught(handler: ast.ExceptHandler) -> set[str]:
    return {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else {"nothing"}


def test_everything_is_caught_only_in_the_named_places() -> None:
    found = {
        (source.path, function)
        for source in EVERYTHING
        for function, handler in handlers(source)
        if {"Exception", "nothing"} & caught(handler)
    }
    assert found == CATCHERS


@by_module
def test_whoever_catches_even_cancellation_raises_it_again(source: Source) -> None:
    for function, handler in handlers(source):
        if "BaseException" in caught(handler) and (source.path, function) not in KEEPERS:
            last = handler.body[-1]
            assert isinstance(last, ast.Raise), f"{source.path}: {function} swallows a cancellation"
            assert last.exc is None, f"{source.path}: {function} replaces a cancellation"


def test_every_keeper_is_still_there() -> None:
    found = {
        (source.path, function)
        for source in EVERYTHING
        for function, handler in handlers(source)
        if "BaseException" in caught(handler)
    }
    assert set(KEEPERS) <= found


@by_module
def test_there_is_no_plugin_manager_at_import(source: Source) -> None:
    for statement in source.tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.If):
            continue
        made = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
        assert not [
            call for call in made if re.match(r"(\w+\.)*(PluginManager|Plugins(\.load)?)$", ast.unparse(call.func))
        ]


@by_module
def test_modules_say_what_they_are(source: Source) -> None:
    assert ast.get_docstring(source.tree), f"{source.path} has no docstring"


def is_script(source: Source) -> bool:
    return any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in source.tree.body)


def is_hook(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any("hookimpl" in ast.unparse(mark) for mark in node.decorator_list)


@by_module
def test_modules_list_their_public_names(source: Source) -> None:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    public = [
        node.name
        for node in source.tree.body
        if isinstance(node, kinds) and not node.name.startswith("_") and not is_hook(node)
    ]
    if is_script(source) or not (public or "__all__" in source.text):
        return
    module = importlib.import_module(source.module)
    assert hasattr(module, "__all__"), f"{source.path} has no __all__"
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert not missing
    assert len(set(module.__all__)) == len(module.__all__)


def files() -> list[Path]:
    folders = ("relay", "providers", "plugins", "tests", "docs", "benchmarks")
    return [file for folder in folders for file in (ROOT / folder).rglob("*.py")]


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files()}
    assert not {name: length for name, length in lengths.items() if length > LONGEST}


def test_no_file_is_a_drawer_for_anything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "misc", "common", "tools"}
    assert not [str(file) for file in files() if file.stem in drawers]
    assert not [str(file) for file in files() if drawers & set(file.relative_to(ROOT).parts[:-1])]
