"""What the relay finds without a configuration, and what a configuration makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from relay import Family, Host
from relay.catalog import Catalog, read_catalog
from relay.config import Config, ConfigError, read_text
from relay.discovery import fallback, from_environment, from_ports
from relay.manager import Plugins
from relay.secret import Secret

FAMILY = Family("one", dialects=frozenset({"d"}), capabilities={"chat": True})


def host(name: str, **settings: object) -> tuple[Family, Host]:
    return FAMILY, Host(name=name, **{"base_url": f"https://{name}.example/v1", **settings})  # type: ignore[arg-type]


def test_a_key_in_the_environment_is_an_upstream() -> None:
    hosts = [host("a", env=("A_KEY", "OLD_A_KEY")), host("b", env=("B_KEY",)), host("c", env=("C_KEY",))]
    found = from_environment(hosts, {"OLD_A_KEY": " sk-1 ", "B_KEY": "", "C_KEY": "   "})
    assert [(item.upstream.name, item.reason) for item in found] == [("a", "OLD_A_KEY is set")]
    key = found[0].upstream.api_key
    assert key is not None
    assert key.reveal() == "sk-1"
    assert "sk-1" not in repr(found)


def test_a_key_that_two_hosts_name_goes_to_the_first_only() -> None:
    hosts = [host("a", env=("KEY",)), host("b", env=("KEY",))]
    assert [item.upstream.name for item in from_environment(hosts, {"KEY": "x"})] == ["a"]


def test_an_address_in_the_environment_moves_the_host() -> None:
    hosts = [host("a", env=("KEY",), base_url_env=("A_URL",))]
    (found,) = from_environment(hosts, {"KEY": "x", "A_URL": "box:11434"})
    assert found.upstream.base_url == "http://box:11434"


Serve = Callable[[bytes], Awaitable[str]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """A server that answers everything with the same bytes; gives its URL."""
    servers: list[asyncio.Server] = []

    async def start(answer: bytes) -> str:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            writer.close()

        servers.append(await asyncio.start_server(talk, "127.0.0.1", 0))
        return f"http://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}/probe"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        (OK + b'{"version": "1"}', True),
        (OK + b'{"other": 1}', False),
        (OK + b"[]", False),
        (OK + b"<html>", False),
        (b"HTTP/1.0 404 Not Found\r\n\r\n" + b'{"version": "1"}', False),
        (b"SSH-2.0-x\r\n\r\n", False),
        (b"", False),
    ],
)
async def test_a_local_server_is_known_by_its_answer(serve: Serve, answer: bytes, there: bool) -> None:
    hosts = [host("local", probe=await serve(answer), probe_key="version")]
    assert bool(await from_ports(hosts, {})) is there


async def test_a_silent_port_delays_nobody_for_long(unused_tcp_port: int) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", unused_tcp_port)
    began = asyncio.get_running_loop().time()
    assert not await from_ports([host("x", probe=f"http://127.0.0.1:{unused_tcp_port}/")], {})
    assert asyncio.get_running_loop().time() - began < 2
    server.close()
    await server.wait_closed()


def test_the_fallback_is_the_first_of_those_that_offer_one() -> None:
    hosts = [host("none"), host("second", fallback=2), host("first", fallback=1)]
    assert [item.upstream.name for item in fallback(hosts, {})] == ["first"]
    assert not fallback([host("none")], {})


ALONE = "[discovery]\nenvironment = false\nlocal = false\nfallback = false\n"


async def catalog(text: str, environ: dict[str, str] | None = None) -> Catalog:
    return await read_catalog(read_text(text, "c.toml", environ or {}), Plugins.load(), environ or {})


async def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        await catalog(text, environ)
    return [str(problem) for problem in wrong.value.problems]


async def test_a_known_host_needs_nothing_but_its_key() -> None:
    made = await catalog(ALONE + "[upstreams.groq]\n", {"GROQ_API_KEY": "gsk-1"})
    (upstream,) = made.upstreams
    assert (upstream.family, upstream.host) == ("openai", "groq")
    assert upstream.base_url.startswith("https://")
    assert upstream.api_key is not None


async def test_a_host_may_have_another_name_and_address() -> None:
    text = ALONE + '[upstreams.mine]\nhost = "groq"\nbase_url = "http://127.0.0.1:1/v1"\napi_key = "k-1"\n'
    (upstream,) = (await catalog(text)).upstreams
    assert (upstream.name, upstream.host, upstream.base_url) == ("mine", "groq", "http://127.0.0.1:1/v1")


async def test_every_mistake_about_upstreams_and_models_is_found_at_once() -> None:
    text = ALONE + (
        "[upstreams.nobody]\n"
        'api_key = "x"\n'
        "[upstreams.a]\n"
        'family = "nope"\n'
        'base_url = "http://x"\n'
        "[upstreams.b]\n"
        'family = "openai"\n'
        'base_url = "x"\n'
        "[upstreams.c]\n"
        'family = "openai"\n'
        'base_url = "http://127.0.0.1:1/v1"\n'
        'api_key = "changeme"\n'
        'dialects = ["klingon"]\n'
        "options = { includ_usage = true }\n"
        "capabilities = { sight = true }\n"
        "[models.m]\n"
        'targets = ["c", "elsewhere/x", "c/"]\n'
        "[models.n]\n"
        "[plugins]\n"
        'disabled = ["no-such"]\n'
    )
    found = await problems(text)
    told = "\n".join(found)
    for line, words in (
        (5, "'nobody' is not a known host"),
        (8, "no plugin serves a family 'nope'"),
        (12, "must be an http:// or https:// URL"),
        (16, "is blank or a placeholder"),
        (17, "does not speak 'klingon'"),
        (18, "has no such option"),
        (19, "unknown capability"),
        (21, "must have the form UPSTREAM/MODEL"),
        (21, "there is no upstream 'elsewhere'"),
        (22, "needs at least one target"),
        (24, "no plugin is named 'no-such'"),
    ):
        assert any(f"line {line}: " in problem and words in problem for problem in found), (line, words, told)
    assert "changeme" not in told


async def test_models_may_name_upstreams_that_were_discovered() -> None:
    text = '[discovery]\nlocal = false\n[models.m]\ntargets = ["groq/llama"]\n'
    made = await catalog(text, {"GROQ_API_KEY": "gsk-1"})
    assert str(made.models[0].targets[0]) == "groq/llama"
    assert "no upstream 'groq'" in (await problems(text))[0]


async def test_configured_upstreams_are_not_discovered_again() -> None:
    text = "[discovery]\nlocal = false\n[upstreams.groq]\n"
    made = await catalog(text, {"GROQ_API_KEY": "gsk-1"})
    assert [upstream.name for upstream in made.upstreams] == ["groq"]


async def test_with_nothing_at_all_there_is_still_a_model() -> None:
    made = await read_catalog(Config(read_text("[discovery]\nlocal = false\n", "c", {}).settings), Plugins.load(), {})
    assert [item.upstream.name for item in made.found] in (["local"], ["demo"])


POOL = (
    ALONE
    + """
[upstreams.groq]
api_key = "k-0"
api_keys = ["k-1", "k-2"]
[models.m]
targets = ["groq/x", {to = "groq/y", weight = 2}, {to = "groq/z"}]
"""
)


async def test_an_upstream_may_have_several_keys_that_none_of_it_shows() -> None:
    made = await catalog(POOL)
    (upstream,) = made.upstreams
    every = (upstream, *upstream.pool)
    assert [one.api_key.reveal() for one in every if one.api_key] == ["k-0", "k-1", "k-2"]
    assert [one.key_number for one in every] == [1, 2, 3]
    assert {(one.name, one.base_url, one.dialects) for one in every} == {("groq", upstream.base_url, upstream.dialects)}
    assert "k-1" not in repr(upstream)
    (model,) = made.models
    assert [str(target) for target in model.targets] == ["groq/x", "groq/y", "groq/z"]
    assert model.weights == (0, 2, 0)


async def test_keys_of_the_configuration_stand_instead_of_the_hosts_variable() -> None:
    variables = {"GROQ_API_KEY": "gsk-0", "SECOND": "gsk-2"}
    (upstream,) = (await catalog(ALONE + '[upstreams.groq]\napi_keys = ["${SECOND}"]\n', variables)).upstreams
    assert upstream.api_key == Secret("gsk-2")
    assert (upstream.pool, upstream.key_number) == ((), 0)


async def test_what_cannot_be_a_key_is_told_with_its_place() -> None:
    found = await problems(POOL.replace('["k-1", "k-2"]', '["k-0", "changeme", " "]'))
    assert [problem.split(": ", 1)[1] for problem in found] == [
        "upstreams.groq.api_keys[0]: is the same as one before it",
        "upstreams.groq.api_keys[1]: is blank or a placeholder",
        "upstreams.groq.api_keys[2]: is blank or a placeholder",
    ]


EXAMPLES = (
    *("", " ", "\t\n", "\u3000"),
    *("changeme", "CHANGE_ME", "replace-this", "todo", "placeholder", "<your key>", "$GROQ_API_KEY", "***", "xxx"),
    *("sk-...", "gsk_abc\u2026", "sk-xxxxxxxx", "sk-proj-XXXX", "your-api-key", "YOUR_GROQ_API_KEY_HERE", "my_token"),
)
DUMMIES = ("k", "sk-1", "none", "EMPTY", "ollama", "token-abc123", "sk-xxq", "mykey", "example")
"""What servers that need no key are told, and what only looks like an example."""


def placed(where: str, text: str, folder: Path) -> tuple[str, dict[str, str]]:
    """A configuration in which this stands in a key's place, and its variables."""
    file = folder / "key"
    file.write_text(text)
    quoted = json.dumps(text).replace("$", "$$")
    line = {
        "text": f"api_key = {quoted}",
        "list": f"api_keys = [{quoted}]",
        "variable": 'api_key = "${KEY}"',
        "default": 'api_key = "${NO_SUCH:-' + text.replace("\n", " ").replace("\t", " ") + '}"',
        "file": f'api_key = "${{file:{file}}}"',
    }[where]
    return f'{ALONE}[upstreams.up]\nfamily = "openai"\nbase_url = "http://127.0.0.1:1/v1"\n{line}\n', {"KEY": text}


@pytest.mark.promise("A-04")
@pytest.mark.parametrize("where", ["text", "list", "variable", "default", "file"])
async def test_what_is_no_key_is_refused_by_name_wherever_it_comes_from(tmp_path: Path, where: str) -> None:
    for text in EXAMPLES:
        problem, *more = await problems(*placed(where, text, tmp_path))
        assert problem.startswith("line 8: upstreams.up.api_key"), (text, problem)
        assert problem.endswith(("is blank or a placeholder", "is not set", "/key' is empty"))
        assert not text.strip() or text not in problem.removesuffix("placeholder"), "it is not repeated"
        assert more == [] or not text.strip()
    for text in DUMMIES:
        (upstream,) = (await catalog(*placed(where, text, tmp_path))).upstreams
        assert upstream.api_key == Secret(text)


async def test_a_table_without_a_target_is_told() -> None:
    (problem,) = await problems(POOL.replace('{to = "groq/z"}', "{weight = 1}"))
    assert problem.endswith("models.m.targets[2]: must have the form UPSTREAM/MODEL")
