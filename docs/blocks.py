"""The generated parts of the documentation: one function for each, from code to Markdown."""

from __future__ import annotations

import ast
import functools
import inspect
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_origin
from unittest import mock

import click
import msgspec
from aiohttp import web
from measured import callers, features, growth, measured, overload, pairs, table
from promised import promises_block, readme_block
from proven import conformance
from provoked import answers_block, pairs_block, requests_block

import relay_anthropic
import relay_bedrock
import relay_gemini
from relay import Target, errors, hookspecs, settings
from relay.cli import BUILT_IN, commands
from relay.discovery import upstream_of
from relay.family import CAPABILITIES
from relay.ir import Loss
from relay.manager import Plugins
from relay.views import add_routes
from relay_openai.hosts import OPTIONS

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 100
DIALECTS = {
    "openai-chat": "Chat Completions",
    "openai-responses": "Responses",
    "openai-embeddings": "Embeddings",
    "openai-completions": "Completions (legacy)",
    "anthropic-messages": "Messages",
    "gemini": "generateContent",
}
"""The dialects that clients speak, and what their vendors call them."""


def code(text: str) -> str:
    return f"`{text}`" if text else ""


@functools.cache
def plugins() -> Plugins:
    """The built-in plugins, as in a relay without a configuration where everything is installed, and nothing set."""
    with mock.patch("relay_local.available", return_value=True), mock.patch.dict("os.environ", clear=True):
        return Plugins.load()


def sentence(text: str) -> str:
    """A docstring as one paragraph."""
    return " ".join((text or "").split())


# Settings.


def notes(module: Any) -> Mapping[tuple[str, str], str]:
    """The docstrings below the fields of a module's classes, by (class, field)."""
    found: dict[tuple[str, str], str] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            for field, after in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(after, ast.Expr)
                    and isinstance(field.target, ast.Name)
                ):
                    found[node.name, field.target.id] = sentence(ast.literal_eval(after.value))
    return found


KINDS = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}


def kind(hint: Any) -> str:
    """A type in the words of somebody who writes TOML."""
    if get_origin(hint) is Literal:
        return " or ".join(code(json.dumps(word)) for word in get_args(hint))
    schema = msgspec.json.schema(hint)
    # An optional setting is one of its own kind or null, which TOML cannot say.
    return shape(schema["anyOf"][0] if "anyOf" in schema else schema)


def shape(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(shape(one) for one in schema["anyOf"])
    name: str = schema.get("type", "object")
    if name == "array":
        return f"list of {shape(schema['items'])}"
    if name == "object":
        inner = schema.get("additionalProperties")
        return f"table of {shape(inner)}" if isinstance(inner, dict) and inner else "table"
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    bounds = f", {low:,} to {high:,}" if low is not None and high is not None and high < 2**31 else ""
    return KINDS.get(name, name) + (bounds.replace(" 0 to", " above 0 to") if "exclusiveMinimum" in schema else bounds)


def default(field: Any) -> str:
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return "" if value is None else code(json.dumps(value))


TABLES = (
    ("[server]", settings.ServerSettings),
    ("[store]", settings.StoreSettings),
    ("[keys]", settings.KeySettings),
    ("[keys.budget]", settings.BudgetSettings),
    ("[tools]", settings.ToolSettings),
    ("[routing]", settings.RoutingSettings),
    ("[memory]", settings.MemorySettings),
    ("[discovery]", settings.DiscoverySettings),
    ("[plugins]", settings.PluginSettings),
    ("[upstreams.NAME]", settings.UpstreamSettings),
    ("[models.NAME]", settings.ModelSettings),
    ("[models.NAME.price]", settings.PriceSettings),
)


def settings_block() -> str:
    said = notes(settings)
    comments = example_comments()
    parts = []
    tables = dict(TABLES)
    for name, struct in TABLES:
        rows = []
        for field in msgspec.structs.fields(struct):
            if f"[{name.strip('[]')}.{field.name}]" in tables:
                continue
            meaning = said.get((struct.__name__, field.name)) or comments.get((name.strip("[]"), field.name), "")
            rows.append((code(field.name), kind(field.type), default(field), meaning))
        about = inspect.cleandoc(struct.__doc__ or "")
        parts.append(f"### `{name}`\n\n{about}\n\n" + table(("Setting", "Kind", "Default", "Meaning"), rows))
    return "\n\n".join(parts)


def example_comments() -> Mapping[tuple[str, str], str]:
    """What the example configuration says behind each setting, by (table, setting)."""
    names = {
        "upstreams.work": "upstreams.NAME",
        "models.smart": "models.NAME",
        "models.smart.price": "models.NAME.price",
    }
    found: dict[tuple[str, str], str] = {}
    current = ""
    for line in (ROOT / "config.example.toml").read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("# ")
        if header := re.match(r"\[([\w.]+)\]\s*(?:# (.*))?$", text):
            current = names.get(header[1], header[1])
            outer, _, last = current.rpartition(".")
            if header[2]:
                found[outer, last] = header[2]
        elif pair := re.match(r"(\w+) = .*?\s{2,}# (.+)$", text):
            found[current, pair[1]] = pair[2]
    return found


def options_openai() -> str:
    return table(("Option", "Meaning"), [(code(name), meaning) for name, meaning in OPTIONS.items()])


def listed_options(module: Any) -> str:
    """The bullet list in a family's docstring."""
    return "\n".join(line for line in inspect.cleandoc(module.__doc__).splitlines() if line.startswith(("* ", "  ")))


# Hosts, families, dialects.


def hosts() -> str:
    """The rows of hosts.toml as they are written, and the hosts of the other families."""
    rows = tomllib.loads((ROOT / "providers/relay_openai/hosts.toml").read_text(encoding="utf-8"))["host"]
    shown = [
        (code(row["name"]), code(row["base_url"]), how(row.get("env", ()), row.get("probe", "")), "openai")
        for row in rows
    ]
    shown += [
        (code(host.name), code(host.base_url) or "in the relay", how(host.env, host.probe), family.name)
        for family, host in plugins().hosts()
        if family.name != "openai"
    ]
    return f"{len(shown)} hosts:\n\n" + table(("Name", "Address", "Found by itself", "Family"), shown)


def how(env: Sequence[str], probe: str) -> str:
    if env:
        return " or ".join(code(name) for name in env)
    return "answers on its port" if probe else "if nothing else was found"


def dialects() -> str:
    served = plugins().dialects
    rows = []
    for name, title in DIALECTS.items():
        speaking = [family.name for family in (bound.family for bound in plugins().families.values())]
        native = [one for one in speaking if name in plugins().families[one].family.dialects]
        paths = [shown(route.path) for route in served[name].routes if route.method == "POST"]
        rows.append((code(name), title, ", ".join(code(path) for path in shortest(paths)), ", ".join(native)))
    return table(("Dialect", "API", "POST to", "Passes through untouched to"), rows)


def shortest(paths: Sequence[str]) -> list[str]:
    """Paths that have another one without their version left to that, and the last words of all others told once."""
    first = [path for path in paths if path.startswith("/v1/") or f"/v1{path}" not in paths]
    first = [path for path in first if path.replace("/v1/", "/v1beta/", 1) not in paths or path.startswith("/v1beta/")]
    found: dict[str, list[str]] = {}
    for path in first:
        start, colon, verb = path.partition("}:")
        found.setdefault(start + colon, []).append(verb)
    return [start + (f"{{{', '.join(verbs)}}}" if len(verbs) > 1 else verbs[0]) for start, verbs in found.items()]


def shown(path: str) -> str:
    """A route's path for readers: of a parameter with a pattern its name, or the first of the words that fit."""
    return re.sub(r"\{\w+:(\w+)(?:\|\w+)*\}", r"\1", path).replace(":.+}", "}")


def families() -> str:
    rows = []
    for bound in plugins().families.values():
        family = bound.family
        count = len(family.hosts) or 1
        rows.append(
            (
                code(family.name),
                code(f"relay_{bound.plugin}"),
                str(count),
                ABOUT.get(family.name) or about(bound.plugin),
            )
        )
    return table(("Family", "Plugin", "Hosts", "What it reaches"), rows)


ABOUT = {
    "anthropic": "the Messages API",
    "bedrock": "models of many makers behind the Converse API",
    "demo": "nothing: it answers inside the relay, for tests and a first look",
    "gemini": "the Gemini API",
    "local": "a small model in a child process of the relay (extra `i8relay[local]`)",
    "openai": "Chat Completions at the vendor and every compatible host, cloud or on this machine",
}


def capabilities() -> str:
    return ", ".join(code(name) for name in CAPABILITIES)


def routes() -> str:
    app = web.Application()
    add_routes(app, SimpleNamespace(plugins=plugins()))  # type: ignore[arg-type]
    rows: dict[tuple[str, str], str] = {}
    paths = {
        web.DynamicResource(route.path).canonical: shown(route.path)
        for dialect in plugins().dialects.values()
        for route in dialect.routes
        if "{" in route.path
    }
    for route in app.router.routes():
        if route.method != "HEAD" and route.resource is not None:
            path = paths.get(route.resource.canonical, route.resource.canonical)
            rows[route.method, path] = meaning(route.method, path)
    return table(("Method", "Path", "Answers"), [(method, code(path), text) for (method, path), text in rows.items()])


def meaning(method: str, path: str) -> str:
    if path.endswith("/models"):
        return "the models that the key may use"
    if path.endswith("/models/{id}"):
        return "one model; its name may hold slashes"
    if path == "/readyz":
        return '`{"status":"ready", ...}` while it should be asked, else 503; needs no key'
    if path == "/healthz":
        return '`{"status":"ok"}` while the process serves; needs no key'
    found = [
        (name, route.operation)
        for name, dialect in plugins().dialects.items()
        for route in dialect.routes
        if (route.method, shown(route.path)) == (method, path)
    ]
    name, operation = found[0]
    return f"{OPERATIONS[operation]} in the dialect `{name}`"


OPERATIONS = {
    "generate": "a generation",
    "count_tokens": "how many tokens a request has,",
    "embeddings": "vectors of texts",
    "kept": "an answer that was stored,",
    "kept_input": "what a stored answer was given,",
    "drop": "that a stored answer is forgotten,",
    "socket": "426 to those who ask for a WebSocket, after which they use POST,",
}
"""What a route's operation answers."""


# Hooks.


def hooks() -> str:
    """Every hook, in the order and under the headings of the module."""
    source = inspect.getsource(hookspecs)
    headings = [(match.start(), match[1]) for match in re.finditer(r"^# (\w.*)$", source, re.MULTILINE)]
    parts: list[str] = []
    last = ""
    for node in ast.parse(source).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        position = source.index(f"def {node.name}(")
        heading = next(text for start, text in reversed(headings) if start < position)
        if heading != last:
            parts.append(f"### {heading.partition(':')[0]}\n\n{heading.partition(':')[2].strip().capitalize()}")
            last = heading
        first = "firstresult" in ast.unparse(node.decorator_list[0])
        answer = "The first answer that is not `None` counts." if first else "Every plugin is asked."
        names = [ast.unparse(argument) for argument in node.args.args]
        arguments = ", ".join(names)
        signature = f"def {node.name}({arguments}) -> {ast.unparse(node.returns) if node.returns else 'None'}"
        signature += ": ..."
        if len(signature) > WIDTH:
            # As the formatter writes it, which reads the code in these pages too.
            signature = signature.replace(f"({arguments})", "(\n    " + ",\n    ".join(names) + ",\n)")
        text = ast.get_docstring(node) or ""
        parts.append(f"#### `{node.name}`\n\n```python\n{signature}\n```\n\n{text}\n\n{answer}")
    return "\n\n".join(parts)


# Errors.


def error_classes() -> list[type[errors.RelayError]]:
    return [getattr(errors, name) for name in errors.__all__ if name != "RelayError"]


def error_table() -> str:
    """Every class, by status."""
    rows = []
    for error in sorted(error_classes(), key=lambda one: (one.status, one.code)):
        retry = {None: "", True: "true", False: "false"}[error.should_retry]
        rows.append((code(error.code), str(error.status), code(error.type), retry, sentence(error.__doc__ or "")))
    return table(("Code", "Status", "Type", "`x-should-retry`", "Meaning"), rows)


def particular_codes() -> Mapping[str, tuple[str, str, str]]:
    """Codes that single places in the code give in place of their class's: (status, class, message)."""
    known = {error.__name__: error for error in error_classes()}
    found: dict[str, tuple[str, str, str]] = {}
    for folder in ("relay", "providers", "plugins"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in known:
                    continue
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                said = given.get("code")
                for constant in ast.walk(said) if said is not None else ():
                    if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
                        number = status_of(given.get("status")) or str(known[node.func.id].status)
                        found.setdefault(constant.value, (number, node.func.id, message(node.args[0])))
    return found


def status_of(node: ast.expr | None) -> str:
    """The status that an error is made with. Where it has a choice, the code stands in the second branch too."""
    if isinstance(node, ast.IfExp):
        node = node.orelse
    return str(node.value) if isinstance(node, ast.Constant) else ""


def message(node: ast.expr) -> str:
    """A message's text, with dots for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values)
    return "(as the upstream or the check says)"


def error_codes() -> str:
    classes = {error.code for error in error_classes()}
    rows = [
        (code(name), status, text)
        for name, (status, _, text) in sorted(particular_codes().items())
        if name not in classes
    ]
    return table(("Code", "Status", "Message"), rows)


# Losses: what becomes of each parameter in translation.

MESSAGES = [{"role": "user", "content": "Hi"}]
ASKED = [*MESSAGES, {"role": "assistant", "content": "Yes?"}]
SYSTEM = {"role": "system", "content": "Be brief."}
FUNCTION = {"name": "look", "parameters": {"type": "object", "properties": {}}}
TOOL = {"type": "function", "function": FUNCTION}
STRICT = {"type": "function", "function": {**FUNCTION, "strict": True}}
CHOICE = {"type": "function", "function": {"name": "look"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="


def with_part(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "Hi"}, part]}]


Body = dict[str, Any]
PROBES: tuple[tuple[str, Body, Body], ...] = (
    ("`max_tokens`, `max_completion_tokens`", {"max_tokens": 2000}, {}),
    ("`temperature`", {"temperature": 0.5}, {}),
    ("`top_p`", {"top_p": 0.5}, {}),
    ("`top_k`", {"top_k": 5}, {}),
    ("`stop`", {"stop": ["END"]}, {}),
    ("`n`", {"n": 2}, {}),
    ("`seed`", {"seed": 7}, {}),
    ("`frequency_penalty`", {"frequency_penalty": 0.5}, {}),
    ("`presence_penalty`", {"presence_penalty": 0.5}, {}),
    ("`logprobs`", {"logprobs": True}, {}),
    ("`top_logprobs`", {"logprobs": True, "top_logprobs": 3}, {"logprobs": True}),
    ("`logit_bias`", {"logit_bias": {"50256": -100}}, {}),
    ("`response_format` (`json_object`)", {"response_format": {"type": "json_object"}}, {}),
    (
        "`response_format` (`json_schema`)",
        {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}},
        {},
    ),
    ("`tools` (functions)", {"tools": [TOOL]}, {}),
    ("`tools[].function.strict`", {"tools": [STRICT]}, {"tools": [TOOL]}),
    ("`tools` of type `custom`", {"tools": [{"type": "custom", "custom": {"name": "patch"}}]}, {}),
    ("`tool_choice`: `required`", {"tools": [TOOL], "tool_choice": "required"}, {"tools": [TOOL]}),
    ("`tool_choice`: one function", {"tools": [TOOL], "tool_choice": CHOICE}, {"tools": [TOOL]}),
    ("`parallel_tool_calls`: `false`", {"tools": [TOOL], "parallel_tool_calls": False}, {"tools": [TOOL]}),
    ("`reasoning_effort`", {"reasoning_effort": "low"}, {}),
    ("`user`", {"user": "u-1"}, {}),
    ("`metadata`", {"metadata": {"team": "a"}}, {}),
    ("`store`", {"store": True}, {}),
    ("`service_tier`", {"service_tier": "flex"}, {}),
    ("`verbosity`", {"verbosity": "low"}, {}),
    ("`prediction`", {"prediction": {"type": "content", "content": "x"}}, {}),
    ("`audio` (sound out)", {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, {}),
    ("`web_search_options`", {"web_search_options": {"search_context_size": "low"}}, {}),
    ("`messages[].name`", {"messages": [{"role": "user", "content": "Hi", "name": "ann"}]}, {}),
    ("system message after the first turn", {"messages": [*ASKED, SYSTEM]}, {"messages": ASKED}),
    ("picture in, as a `data:` URL", {"messages": with_part({"type": "image_url", "image_url": {"url": PIXEL}})}, {}),
    (
        "picture in, by its address",
        {"messages": with_part({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})},
        {},
    ),
    (
        "sound in",
        {"messages": with_part({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}})},
        {},
    ),
    ("file in (PDF)", {"messages": with_part({"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}})}, {}),
)
"""Chat parameters: a request that asks for something which no target does by itself, and the same without it."""
TARGETS = (("anthropic", "claude-sonnet-4-5"), ("gemini", "gemini-2.5-flash"))


def fate(family: str, model: str, asked: Body, without: Body) -> str:
    """What becomes of a parameter: carried, carried in part, dropped with a loss, of no effect, or refused."""
    bound = plugins().families[family]
    target = Target(upstream_of(bound.family, bound.family.hosts[0], "key", {}), model)
    losses: list[Loss] = []
    try:
        sent = translated(bound, target, asked, losses)
    except errors.RelayError as error:
        return f"refused: {error.message}"
    changed = sent != translated(bound, target, without, [])
    if losses:
        reasons = "; ".join(dict.fromkeys(loss.reason for loss in losses))
        return f"{'in part' if changed else 'dropped'}: {reasons}"
    return "carried" if changed else "left out: it changes nothing in the answer"


def translated(bound: Any, target: Target, more: Body, losses: list[Loss]) -> Any:
    dialect = plugins().dialects["openai-chat"]
    raw = json.dumps({"model": "m", "messages": MESSAGES, **more}).encode()
    request = dialect.parse(dialect.peek(raw, "generate", {}, {}))
    return json.loads(bound.translate_request(request, target, losses))


def losses() -> str:
    head = ("Parameter", *(f"`{family}` ({model})" for family, model in TARGETS))
    rows = [(name, *(fate(*target, asked, without) for target in TARGETS)) for name, asked, without in PROBES]
    return table(head, rows)


# Commands.


def walk(
    command: click.Command, path: str, parent: click.Context | None
) -> list[tuple[str, click.Command, click.Context]]:
    context = click.Context(command, info_name=path.rpartition(" ")[2], parent=parent, terminal_width=WIDTH)
    context.max_content_width = WIDTH
    found = [(path, command, context)]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                found += walk(inner, f"{path} {name}", context)
    return found


def command_list() -> list[tuple[str, click.Command]]:
    """Every command with its path, `relay` itself first."""
    return [(path, command) for path, command, _ in walk(commands, "relay", None)]


def cli() -> str:
    parts = []
    for path, _, context in walk(commands, "relay", None):
        level = "##" if path.count(" ") < 2 else "###"
        parts.append(f"{level} `{path}`\n\n```\n{context.get_help()}\n```")
    return "\n\n".join(parts)


def command_names() -> str:
    return table(("Command", "Does"), [(code(f"relay {name}"), text) for name, (_, text) in BUILT_IN.items()])


def about(plugin: str) -> str:
    """What a plugin's module says of itself."""
    module = plugins().manager.get_plugin(plugin)
    text = inspect.getdoc(module if inspect.ismodule(module) else inspect.getmodule(type(module))) or ""
    return text.split("\n\n")[0]


def plugin_table() -> str:
    rows = []
    for record in plugins().records:
        rows.append((code(record.name), ", ".join(code(hook) for hook in record.hooks), about(record.name)))
    return table(("Plugin", "Hooks", "What it is"), rows)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "settings": settings_block,
    "options-openai": options_openai,
    "options-anthropic": lambda: listed_options(relay_anthropic),
    "options-bedrock": lambda: listed_options(relay_bedrock),
    "options-gemini": lambda: listed_options(relay_gemini),
    "hosts": hosts,
    "dialects": dialects,
    "families": families,
    "capabilities": capabilities,
    "routes": routes,
    "hooks": hooks,
    "errors": error_table,
    "error-codes": error_codes,
    "losses": losses,
    "conformance": conformance,
    "losses-pairs": pairs_block,
    "losses-requests": requests_block,
    "losses-answers": answers_block,
    "performance": measured,
    "features": features,
    "pairs": pairs,
    "callers": callers,
    "growth": growth,
    "overload": overload,
    "promises": promises_block,
    "promises-short": readme_block,
    "cli": cli,
    "commands": command_names,
    "plugins": plugin_table,
}
"""The blocks by the name in their marker."""
