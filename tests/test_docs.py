"""The documentation is complete, fresh and true: what it names exists, what exists is named, and its code runs."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import aiohttp
import click
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from relay import errors, hookspecs, settings
from relay.app import RELAY, create_app
from relay.catalog import load_plugins, read_catalog
from relay.cli import commands
from relay.cli.init import example
from relay.config import read_text
from relay.family import CAPABILITIES
from relay.manager import Plugins

ROOT = Path(__file__).parents[1]
PAGES = {str(page.relative_to(ROOT)): page for folder in (ROOT, ROOT / "docs") for page in sorted(folder.glob("*.md"))}
FENCE = re.compile(
    r"(?:<!-- runs: (?P<runs>[\w.-]+) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
ALONE = "[discovery]\nenvironment = false\nlocal = false\nfallback = false\n"
VARIABLES = {
    "GROQ_API_KEY": "gsk-1",
    "SECOND_GROQ_KEY": "gsk-2",
    "WORK_LLM_KEY": "work-1",
    "SECOND_WORK_LLM_KEY": "work-2",
}


def page(name: str) -> str:
    return PAGES[name].read_text(encoding="utf-8")


def fences(kind: str = "", runs: str = "") -> list[tuple[str, str]]:
    """Code blocks of all pages as (page, text), by their language or by the mark above them."""
    return [
        (name, match["text"])
        for name in PAGES
        for match in FENCE.finditer(page(name))
        if (not kind or match["kind"] == kind) and (not runs or match["runs"] == runs)
    ]


def only(runs: str) -> str:
    ((_, text),) = fences(runs=runs)
    return text


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one."""
    found = re.search(rf"^(#+) {re.escape(heading)}$(.*?)(?=^#|\Z)", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"there is no heading {heading!r}"
    return found[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Fresh and whole.


def test_generated_parts_are_fresh_and_links_lead_somewhere() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_stale_or_broken_is_found(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    stale = "<!-- generated: commands -->\nold\n<!-- end -->"
    assert "relay serve" in generate.fresh(stale)
    with pytest.raises(KeyError, match="nothing"):
        generate.fresh(stale.replace("commands", "nothing"))
    file = tmp_path / "page.md"
    file.write_text("# One two\n[a](page.md#one-two) [b](page.md#three) [c](gone.md) [d](https://example.com)\n")
    assert list(generate.broken_links(file)) == ["page.md#three", "gone.md"]


def test_every_block_that_can_be_generated_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from blocks import BLOCKS

    used = {name for text in map(page, PAGES) for name in re.findall(r"<!-- generated: ([a-z-]+) -->", text)}
    assert used == set(BLOCKS)


def test_pages_show_no_machine_and_no_badge() -> None:
    for name in PAGES:
        assert not re.search(r"/(root|home|work|tmp|Users)/", page(name)), name
        # Pictures are our own; badges are somebody else's.
        assert not re.search(r"!\[[^\]]*\]\((?![\w-]+\.svg\))", page(name)), name


# Complete.


def structs(kind: Any = settings.Settings, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every table of a configuration: its dotted name (`*` for names of one's own) and its class."""
    yield path, kind
    for field in msgspec.structs.fields(kind):
        here = f"{path}.{field.name}".lstrip(".")
        arguments = getattr(field.type, "__args__", ())
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from structs(field.type, here)
        elif any(isinstance(inner, type) and issubclass(inner, msgspec.Struct) for inner in arguments):
            inner = next(one for one in arguments if isinstance(one, type) and issubclass(one, msgspec.Struct))
            mapped = getattr(field.type, "__origin__", None) is dict
            yield from structs(inner, f"{here}.*" if mapped else here)


def test_every_setting_is_documented_with_a_meaning() -> None:
    text = page("docs/config.md")
    tables = {path for path, _ in structs()}
    for path, struct in structs():
        if not path:
            continue
        rows = section(text, f"`[{path.replace('*', 'NAME')}]`")
        for field in msgspec.structs.fields(struct):
            if f"{path}.{field.name}" in tables:
                continue
            row = re.search(rf"^\| `{field.name}` \|[^|]*\|[^|]*\| .*\S.* \|$", rows, re.MULTILINE)
            assert row is not None, f"{path}.{field.name} has no row, or none with a meaning"


def test_every_option_of_a_family_is_documented() -> None:
    text = page("docs/config.md")
    for name, bound in Plugins.load().families.items():
        options = section(text, f"Family `{name}`")
        assert not [option for option in bound.family.options if f"`{option}`" not in options], name


def every_command(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from every_command(inner, f"{path} {name}")


COMMANDS = dict(every_command(commands, "relay"))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_and_option_is_documented(path: str) -> None:
    text = section(page("docs/cli.md"), f"`{path}`")
    for parameter in COMMANDS[path].params:
        names = (
            parameter.opts if isinstance(parameter, click.Option) else [parameter.make_metavar(click.Context(commands))]
        )
        assert not [name for name in names if name.strip("[].") not in text]


@pytest.mark.parametrize("name", [name for name, value in vars(hookspecs).items() if hasattr(value, "i8relay_spec")])
def test_every_hook_is_documented(name: str) -> None:
    assert len(section(page("docs/plugins.md"), f"`{name}`")) > 100


def given_codes() -> set[str]:
    """The error codes that stand in the code as `code="..."`."""
    return {
        keyword.value.value
        for folder in ("relay", "providers", "plugins")
        for file in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, str)
    }


def test_every_error_code_is_documented() -> None:
    codes = given_codes() | {getattr(errors, name).code for name in errors.__all__}
    assert len(codes) > 25
    text = page("docs/api.md")
    assert not [code for code in sorted(codes) if f"| `{code}` |" not in text]


def test_every_header_that_the_relay_sends_is_documented() -> None:
    sent: set[str] = set()
    for name in ("attempt", "counting", "dialect", "middleware", "pipeline", "stream"):
        tree = ast.parse((ROOT / f"relay/{name}.py").read_text(encoding="utf-8"))
        sent |= {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"x-[a-z-]+|retry-after-ms|([A-Z][a-z]*-)+[A-Z][a-zA-Z]*|Server|Allow", node.value)
        }
    assert {"x-request-id", "x-relay-dropped", "Retry-After"} < sent
    table = section(page("docs/api.md"), "Headers")
    # Every HTTP answer has these; they need no explanation.
    assert not [header for header in sorted(sent - {"Content-Type"}) if f"`{header}" not in table]


def test_every_capability_is_documented() -> None:
    for name in ("docs/config.md", "docs/api.md"):
        assert not [capability for capability in CAPABILITIES if capability not in page(name)]


def test_every_route_is_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from blocks import shown

    for dialect in Plugins.load().dialects.values():
        for route in dialect.routes:
            assert f"| {route.method} | `{shown(route.path)}` |" in page("docs/api.md")


# What is shown can be done.


def test_every_command_line_in_the_pages_is_one() -> None:
    lines = [line for _, text in fences("sh") for line in text.splitlines() if line.startswith("relay ")]
    assert len(lines) > 15
    for line in lines:
        words = [word.strip("\"'") for word in line.partition("#")[0].partition(">")[0].split()]
        path = max((known for known in COMMANDS if " ".join(words).startswith(known)), key=len)
        options = {name for parameter in COMMANDS[path].params for name in (*parameter.opts, *parameter.secondary_opts)}
        used = {word for word in words[path.count(" ") + 1 :] if word.startswith("--")}
        assert not isinstance(COMMANDS[path], click.Group) or used, f"no such command: {line}"
        assert used <= options | {"--help", "--version"}, line


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    shell = "\n".join(text for _, text in fences("sh"))
    named = set(re.findall(r"`make ([a-z]+)", "".join(map(page, PAGES)))) | set(
        re.findall(r"^make ([a-z]+)", shell, re.M)
    )
    named |= set(re.findall(r"make --no-print-directory ([a-z]+)", hooks))
    assert {"run", "test", "demo", "lint", "types", "docs", "check", "format"} <= named <= targets


@pytest.mark.parametrize(
    ("kind", "read"),
    [("json", json.loads), ("toml", tomllib.loads), ("python", lambda text: compile(text, "page", "exec"))],
)
def test_every_block_is_well_formed(kind: str, read: Any) -> None:
    found = fences(kind)
    assert found
    for name, text in found:
        try:
            read(text)
        except ValueError as error:
            pytest.fail(f"{name}: {error}\n{text}")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder as the examples take it for granted: with their plugins, and the files that they read."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "relay-plugins"
    folder.mkdir()
    for name in ("parrot.py", "ollama_native.py"):
        (folder / name).write_text(only(name), encoding="utf-8")
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config" / "office-key").write_text("office-1\n")
    return tmp_path


@pytest.mark.parametrize("text", [text for _, text in fences(runs="config")])
async def test_every_configuration_in_the_pages_is_valid(home: Path, text: str) -> None:
    config = read_text(ALONE + text, "page", VARIABLES)
    plugins = load_plugins(config.settings)
    assert not [record for record in plugins.records if record.error]
    catalog = await read_catalog(config, plugins, VARIABLES)
    assert [upstream.name for upstream in catalog.upstreams] == list(config.settings.upstreams)


# The example configuration.


def test_the_example_in_the_repository_is_the_one_that_is_printed() -> None:
    assert (ROOT / "config.example.toml").read_text(encoding="utf-8") == example()


def uncommented() -> str:
    """The example with every setting in it taken at its word."""
    return re.sub(r"^# (?=\[|\"|\w+ = )", "", example(), flags=re.MULTILINE)


def test_the_example_is_valid_as_it_is() -> None:
    assert read_text(example(), "example", {}).settings == settings.Settings()


async def test_every_line_of_the_example_is_valid() -> None:
    text = uncommented()
    assert not re.findall(r"^# .* = ", text, re.MULTILINE)
    config = read_text(text, "example", VARIABLES)
    catalog = await read_catalog(config, load_plugins(settings.Settings()), {})
    assert [model.id for model in catalog.models] == ["smart"]
    assert {upstream.name for upstream in catalog.upstreams} >= {"groq", "work"}


def test_the_example_shows_every_setting_with_its_default() -> None:
    shown = tomllib.loads(uncommented())
    for path, struct in structs():
        table: Any = shown
        for name in filter(
            None, path.replace("upstreams.*", "upstreams.work").replace("models.*", "models.smart").split(".")
        ):
            table = table[name]
        for field in msgspec.structs.fields(struct):
            assert field.name in table, f"{path}.{field.name} is not in the example"
            if path and "*" not in path and field.name != "options":
                value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
                value = msgspec.to_builtins(value)
                assert table[field.name] == value, f"{path}.{field.name}"


# Code that runs.


class Backend:
    """An upstream that speaks the APIs of the examples, and notes what it was sent."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any, Any]] = []
        self.cut = False
        app = web.Application()
        app.router.add_post("/say", self.say)
        app.router.add_post("/api/chat", self.chat)
        app.router.add_get("/api/tags", self.tags)
        self.server = TestServer(app)

    async def note(self, request: web.Request) -> Any:
        body = await request.json()
        self.seen.append((request.path, request.headers, body))
        return body

    async def lines(self, request: web.Request, values: list[Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for value in values[:-1] if self.cut else values:
            await response.write(json.dumps(value).encode() + b"\n")
        await response.write_eof()
        return response

    async def say(self, request: web.Request) -> web.StreamResponse:
        body = await self.note(request)
        words = [{"word": word} for word in ("You ", "said ", body["prompt"])]
        return await self.lines(request, [*words, {"read": 4, "said": 3}])

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await self.note(request)
        if body["model"] == "gone":
            return web.json_response({"error": "model 'gone' not found"}, status=404)
        last = {"done": True, "done_reason": "length", "prompt_eval_count": 7, "eval_count": 2}
        if not body["stream"]:
            return web.json_response({"model": body["model"], "message": {"content": "Hello there"}, **last})
        words = [{"model": body["model"], "message": {"content": word}, "done": False} for word in ("Hello", " there")]
        return await self.lines(request, [*words, {"model": body["model"], "message": {"content": ""}, **last}])

    async def tags(self, request: web.Request) -> web.Response:
        return web.json_response({"models": [{"name": "llama3:8b"}, {"name": "gone"}]})


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    backend = Backend()
    await backend.server.start_server()
    yield backend
    await backend.server.close()


@contextlib.asynccontextmanager
async def serving(config: str, folder: Path) -> AsyncIterator[tuple[str, str, Any]]:
    """The whole application: its address, a key, and the relay itself."""
    app = await create_app(read_text(ALONE + textwrap.dedent(config), "page", {}), database=folder / "relay.db")
    _, key = await app[RELAY].store.keys.create("docs")
    async with TestServer(app) as server:
        await app[RELAY].listed.wait()
        yield str(server.make_url("")).rstrip("/"), key, app[RELAY]


async def ask(url: str, key: str, model: str, **more: Any) -> tuple[int, str]:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
        session.post(f"{url}/v1/chat/completions", json=body) as response,
    ):
        got = b""
        with contextlib.suppress(aiohttp.ClientPayloadError):
            async for piece in response.content.iter_any():
                got += piece
        return response.status, got.decode()


def said(stream: str) -> str:
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))


@pytest.mark.parametrize(
    ("family", "model", "answer", "usage"),
    [("parrot", "parrot-1", "You said Hi", (4, 3)), ("ollama-native", "llama3:8b", "Hello there", (7, 2))],
)
async def test_the_families_in_one_file_are_served(
    home: Path, backend: Backend, family: str, model: str, answer: str, usage: tuple[int, int]
) -> None:
    config = f"""
        [plugins]
        folder = "~/relay-plugins"
        [upstreams.up]
        family = "{family}"
        base_url = "{str(backend.server.make_url("")).rstrip("/")}"
        models = ["parrot-*"]
    """
    async with serving(config, home) as (url, key, relay):
        status, text = await ask(url, key, model)
        assert status == 200
        assert json.loads(text)["choices"][0]["message"]["content"] == answer
        assert json.loads(text)["usage"]["total_tokens"] == sum(usage)
        status, text = await ask(url, key, model, stream=True)
        assert (status, said(text)) == (200, answer)
        assert text.endswith("data: [DONE]\n\n")
        backend.cut = True
        status, text = await ask(url, key, model, stream=True)
        assert "[DONE]" not in text
        assert '"error"' in text
        await relay.store.usage.flush()
        rows = [row for row in await relay.store.usage.rows(limit=10) if row.operation == "generate"]
        assert [row.outcome for row in rows] == ["upstream_cut", "ok", "ok"]
        assert {(row.usage.input, row.usage.output) for row in rows[1:]} == {usage}


async def test_the_complete_family_tells_errors_models_prices_and_losses(home: Path, backend: Backend) -> None:
    config = f"""
        [plugins]
        folder = "~/relay-plugins"
        [upstreams.box]
        family = "ollama-native"
        base_url = "{str(backend.server.make_url("")).rstrip("/")}"
        [upstreams.box.options]
        keep_alive = "5m"
    """
    async with serving(config, home) as (url, key, relay):
        assert [model.id for model in relay.router.models()] == ["llama3:8b", "gone"]
        status, text = await ask(url, key, "gone")
        assert (status, json.loads(text)["error"]["message"]) == (404, "model 'gone' not found")
        tool = {"type": "function", "function": {"name": "look"}}
        await ask(url, key, "llama3:8b", tools=[tool], temperature=0.5, max_tokens=9)
        sent = backend.seen[-1][2]
        assert sent["options"] == {"num_predict": 9, "temperature": 0.5}
        assert sent["keep_alive"] == "5m"
        await relay.store.usage.flush()
        (row, _) = await relay.store.usage.rows(limit=10)
        assert row.cost == 0
        assert row.price.source == "ollama"


async def test_the_plugins_for_prices_and_headers_do_what_they_say(home: Path, backend: Backend) -> None:
    for name in ("office.py", "tagging.py"):
        (home / "relay-plugins" / name).write_text(only(name), encoding="utf-8")
    config = f"""
        [plugins]
        folder = "~/relay-plugins"
        [upstreams.office]
        family = "parrot"
        base_url = "{str(backend.server.make_url("")).rstrip("/")}"
        [models.smart]
        targets = ["office/large"]
    """
    async with serving(config, home) as (url, key, relay):
        assert (await ask(url, key, "smart"))[0] == 200
        assert backend.seen[-1][1]["x-department"] == "research"
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as session,
            session.get(f"{url}/v1/models/smart") as response,
        ):
            model = await response.json()
        assert model["context_length"] == 65_536
        assert model["pricing"]["input"] == pytest.approx(0.0001)
        assert [record.error for record in relay.plugins.records if record.error] == []


def test_the_plugins_test_in_the_page_passes(tmp_path: Path) -> None:
    for name in ("ollama_native.py", "test_ollama_native.py"):
        (tmp_path / name).write_text(only(name), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "-c", os.devnull, "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b1[4-9] passed", done.stdout), done.stdout


async def test_the_python_client_in_the_pages_works(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    import asyncio

    config = '[upstreams.demo]\nfamily = "demo"\n'
    config += "".join(f'[models.{name}]\ntargets = ["demo/demo-echo"]\n' for name in ("smart", "smollm2-135m"))
    programs = [text for name in ("openai-python", "anthropic-python", "genai-python") for _, text in fences(runs=name)]
    assert len(programs) == 4
    async with serving(config, tmp_path) as (url, key, _):
        for program in programs:
            text = program.replace("http://127.0.0.1:8748", url).replace("sk-relay-...", key)
            assert text.count(url) == text.count(key) == 1
            command = [sys.executable, "-c", text]
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, timeout=50, check=False
            )
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith("You said: Hello!")


def test_the_first_run_in_the_readme_is_what_is_printed(tmp_path: Path) -> None:
    (shown,) = (text for name, text in fences("text") if name == "README.md" and "listens on" in text)
    file = tmp_path / "relay.toml"
    file.write_text('[discovery]\nenvironment = false\nlocal = false\n[plugins]\ndisabled = ["local"]\n')
    command = [sys.executable, "-m", "relay", "serve", "--config", str(file), "--port", "0"]
    environment = {**os.environ, "I8RELAY_DB": str(tmp_path / "relay.db"), "XDG_CACHE_HOME": str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as relay:
        assert relay.stdout is not None
        lines = io.StringIO()
        for line in relay.stdout:
            lines.write(line)
            if line.startswith("Any OpenAI client"):
                break
        relay.terminate()
    printed = re.sub(r"sk-relay-[\w-]+", "sk-relay-...", lines.getvalue())
    printed = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8748", printed)
    # This run has the demo in the place of the small model, which is not installed everywhere.
    printed = printed.replace("upstream demo", "upstream local").replace("demo-echo", "smollm2-135m")
    assert printed == shown
