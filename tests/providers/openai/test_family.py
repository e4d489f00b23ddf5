from __future__ import annotations

import inspect
import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import relay_openai
from relay import Host, ModelListing, Secret, Target, Upstream
from relay.discovery import upstream_of
from relay.errors import UpstreamBusy, UpstreamError, UpstreamProtocol, UpstreamRefused
from relay.events import Failure, MessageStop
from relay.family import CAPABILITIES
from relay.hookspecs import translate_error as specification
from relay_openai.compose import compose_request
from relay_openai.dialect import OpenAIChat
from relay_openai.hosts import FIELDS, OPTIONS, known_hosts
from relay_openai.listing import parse_models
from relay_openai.models import capabilities_of

KEY = "sk-upstream-secret"


def target(base_url: str = "https://u.test/v1", model: str = "m", key: str | None = KEY, **fields: Any) -> Target:
    secret = Secret(key) if key else None
    return Target(Upstream("u", "openai", base_url, secret, **fields), model)


def endpoint(
    to: Target,
    *,
    operation: str = "generate",
    stream: bool = False,
    headers: dict[str, str] | None = None,
    dialect: str = "",
) -> Any:
    return relay_openai.endpoint(to, operation, b"{}", stream, headers or {}, dialect)


PATHS = {
    "openai-chat": "chat/completions",
    "openai-responses": "responses",
    "openai-embeddings": "embeddings",
    "openai-completions": "completions",
}


def test_the_plugin_offers_one_family_that_speaks_all_its_dialects() -> None:
    (family,) = relay_openai.relay_families()
    assert (family.name, family.dialects) == ("openai", frozenset(PATHS))
    assert [dialect.name for dialect in relay_openai.relay_dialects()] == list(PATHS)
    for dialect, path in zip(relay_openai.relay_dialects(), PATHS.values(), strict=True):
        posted = {route.path for route in dialect.routes if route.method == "POST"}
        assert posted == {f"/v1/{path}", f"/{path}"}


def test_a_server_that_nobody_knows_is_taken_to_speak_chat_and_embeddings_only() -> None:
    (family,) = relay_openai.relay_families()
    for host in family.hosts:
        known = upstream_of(family, host, KEY, {}).dialects
        assert "openai-chat" in known, host.name
        assert known <= family.dialects
    unknown = upstream_of(family, Host("new", "https://u.test/v1"), KEY, {})
    assert unknown.dialects == frozenset({"openai-chat", "openai-embeddings"})
    speaking = {host.name for host in family.hosts if "openai-responses" in (host.dialects or ())}
    assert {"openai", "azure", "openrouter", "groq", "xai", "llamacpp", "vllm", "lmstudio", "ollama"} == speaking
    without = {h.name for h in family.hosts if "openai-embeddings" not in upstream_of(family, h, KEY, {}).dialects}
    texts = {host.name for host in family.hosts if "openai-completions" in (host.dialects or ())}
    assert {"openai", "azure", "deepseek", "together", "fireworks", "openrouter", "vllm", "llamacpp", "ollama"} < texts
    assert not {"groq", "mistral", "perplexity", "moonshot"} & texts
    assert without == {"deepseek", "moonshot", "minimax", "stepfun", "inception", "groq", "cerebras", "poe"}


def test_each_dialect_has_its_own_path() -> None:
    for dialect, path in PATHS.items():
        operation = "embeddings" if dialect == "openai-embeddings" else "generate"
        assert endpoint(target(), operation=operation, dialect=dialect).url == f"https://u.test/v1/{path}"
    assert endpoint(target(), operation="embeddings").url == "https://u.test/v1/embeddings"


def test_a_host_may_have_a_path_elsewhere() -> None:
    hosts = {host.name: host for host in known_hosts({})}
    for name, operation, dialect, url in (
        ("deepseek", "generate", "openai-completions", "https://api.deepseek.com/beta/completions"),
        ("deepseek", "generate", "openai-chat", "https://api.deepseek.com/v1/chat/completions"),
        ("perplexity", "embeddings", "openai-embeddings", "https://api.perplexity.ai/v1/embeddings"),
    ):
        to = target(hosts[name].base_url, options=hosts[name].options)
        assert endpoint(to, operation=operation, dialect=dialect).url == url


@pytest.mark.parametrize("base_url", ["https://u.test/v1", "https://u.test/v1/"])
def test_a_request_goes_to_its_path_with_its_key(base_url: str) -> None:
    sent = endpoint(target(base_url), stream=True)
    assert (sent.method, sent.url, sent.body) == ("POST", "https://u.test/v1/chat/completions", b"{}")
    assert sent.headers == {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "authorization": f"Bearer {KEY}",
    }


def test_a_server_without_a_key_gets_none() -> None:
    assert "authorization" not in endpoint(target(key=None)).headers
    assert endpoint(target(key=None)).headers["accept"] == "application/json"


def test_keys_travel_in_the_header_that_the_host_wants() -> None:
    headers = endpoint(target(options={"auth": "Api-Key"})).headers
    assert headers["api-key"] == KEY
    assert "authorization" not in headers


def test_configured_headers_are_added_and_win() -> None:
    headers = endpoint(target(headers={"X-Title": "t", "Authorization": "Basic x"}), headers={"a": "b"}).headers
    assert headers["x-title"] == "t"
    assert headers["authorization"] == "Basic x"
    assert headers["a"] == "b"


@pytest.mark.parametrize(
    ("base_url", "options", "url"),
    [
        (
            "https://u.test/v1",
            {"query": {"api-version": "2024 x"}},
            "https://u.test/v1/chat/completions?api-version=2024+x",
        ),
        ("https://u.test", {"default_path": "/openai/v1"}, "https://u.test/openai/v1/chat/completions"),
        ("https://u.test/own/", {"default_path": "/openai/v1"}, "https://u.test/own/chat/completions"),
        ("http://127.0.0.1", {"default_path": "/v1", "default_port": 1}, "http://127.0.0.1:1/v1/chat/completions"),
        ("http://h:2", {"default_path": "/v1", "default_port": 1}, "http://h:2/v1/chat/completions"),
        ("https://u.test/d/{model}", {}, "https://u.test/d/a%2Fb%20c/chat/completions"),
        ("https://u.test", {}, "https://u.test/chat/completions"),
    ],
)
def test_addresses_are_put_together_as_hosts_need_it(base_url: str, options: dict[str, Any], url: str) -> None:
    assert endpoint(target(base_url, "a/b c", options=options)).url == url


def test_an_address_that_still_waits_for_an_account_says_which_variable_is_missing() -> None:
    with pytest.raises(UpstreamError, match="ACCOUNT_ID is not set"):
        endpoint(target("https://u.test/{ACCOUNT_ID}/v1"))


def test_an_operation_of_another_kind_is_left_to_others() -> None:
    assert relay_openai.endpoint(target(), "embed", b"", False, {}, "") is None


# Errors.


def error(status: int, body: Any, headers: dict[str, str] | None = None) -> UpstreamError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return relay_openai.translate_error(target(), status, headers or {}, raw)


@pytest.mark.parametrize(
    ("body", "message", "code", "param"),
    [
        ({"error": {"message": "M", "type": "t", "param": "p", "code": "c"}}, "M", "c", "p"),
        ({"error": {"message": "M", "type": "t", "param": None, "code": None}}, "M", "t", None),
        ({"error": {"code": "c", "message": "M", "details": []}}, "M", "c", None),
        ({"error": {"code": 400, "message": "M", "status": "INVALID_ARGUMENT"}}, "M", None, None),
        ([{"error": {"code": 400, "message": "M"}}], "M", None, None),
        ({"object": "error", "message": "M", "type": "t", "param": None, "code": "3051"}, "M", "t", None),
        ({"detail": "M"}, "M", None, None),
        (
            {"detail": [{"loc": ["body", "messages", 0], "msg": "Field required"}]},
            "messages.0: Field required",
            None,
            "messages.0",
        ),
        ({"detail": [{"loc": 1, "msg": "M"}]}, "M", None, None),
        ({"id": "x", "message": "M"}, "M", None, None),
        ({"code": "A whole sentence", "error": "M"}, "M", None, None),
        ({"error": "M"}, "M", None, None),
        ({"type": "error", "error": {"type": "t", "message": "M"}, "request_id": "r"}, "M", "t", None),
        ({"code": 400, "message": "M", "type": "Bad Request"}, "M", None, None),
        (
            {"error": {"code": 400, "message": "M", "type": "exceed_context_size_error", "n_ctx": 512}},
            "M",
            "context_length_exceeded",
            None,
        ),
        (
            {
                "error": {
                    "code": 400,
                    "message": "Provider returned error",
                    "metadata": {"raw": '{"error":{"message":"M"}}'},
                }
            },
            "Provider returned error: M",
            None,
            None,
        ),
        (
            {"error": {"code": 400, "message": "Provider returned error", "metadata": {"raw": "M"}}},
            "Provider returned error: M",
            None,
            None,
        ),
        ({"error": {"message": {"x": 1}}}, "{'x': 1}", None, None),
        ("Not Found", "Not Found", None, None),
        (b"Not Found", "Not Found", None, None),
        (b"<html><body>nginx</body></html>", "the upstream answered with status 400", None, None),
        ({"error": {"message": "<!doctype html>"}}, "the upstream answered with status 400", None, None),
        (b"", "the upstream answered with status 400", None, None),
        (b"\xff\xfe", "\ufffd\ufffd", None, None),
        ({}, "the upstream answered with status 400", None, None),
        (None, "the upstream answered with status 400", None, None),
        ([], "the upstream answered with status 400", None, None),
    ],
)
def test_errors_are_understood_in_every_shape(body: Any, message: str, code: str | None, param: str | None) -> None:
    fault = error(400, body)
    assert isinstance(fault, UpstreamRefused)
    assert fault.message == message
    assert fault.code == (code or "upstream_refused")
    assert fault.param == param
    assert (fault.status, fault.upstream_status) == (400, 400)


def test_an_error_is_never_longer_than_people_read_and_never_holds_our_key() -> None:
    fault = error(400, {"error": {"message": f"bad key {KEY} " + "x" * 5000}})
    assert len(fault.message) == 2000
    assert KEY not in fault.message


def test_the_upstreams_opinion_of_our_key_is_not_the_callers_fault() -> None:
    for fault in (
        error(401, {"error": {"message": "Incorrect API key"}}),
        error(400, {"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}),
        error(403, b"no"),
    ):
        assert fault.status == 502
        assert fault.code == "upstream_credentials"


def test_a_spent_quota_is_not_a_limit_of_rate() -> None:
    fault = error(429, {"error": {"message": "You exceeded", "code": "insufficient_quota"}})
    assert fault.code == "upstream_credit"
    busy = error(429, {"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}, {"retry-after": "7"})
    assert isinstance(busy, UpstreamBusy)
    assert (busy.status, busy.retry_after, busy.retryable) == (429, 7.0, True)
    assert error(503, b"").status == 503
    assert error(500, {"error": {"message": "M"}}).status == 502


def test_an_error_inside_of_a_good_status_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="Oh"):
        relay_openai.translate_response(target(), b'{"error":{"message":"Oh","code":502}}', "")
    with pytest.raises(UpstreamProtocol, match="not JSON"):
        relay_openai.translate_response(target(), b"<html>", "")
    with pytest.raises(UpstreamProtocol, match="no choices"):
        relay_openai.translate_response(target(), b'{"choices":[]}', "")


def test_the_decoder_follows_what_the_host_really_sends() -> None:
    whole = relay_openai.translate_stream(target(), {"content-type": "application/json; charset=utf-8"}, "")
    whole.feed(b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}')
    assert isinstance(whole.close()[-1], MessageStop)
    frame = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n'
    strict = relay_openai.translate_stream(target(), {"content-type": "text/event-stream"}, "")
    assert isinstance(strict.feed(frame)[-1], Failure)
    lenient = relay_openai.translate_stream(target(options={"finish_reason": False}), {}, "")
    assert isinstance(lenient.feed(frame)[-1], MessageStop)


# Model lists.


def listed(**row: Any) -> Any:
    (model,) = parse_models(json.dumps({"object": "list", "data": [row]}).encode())
    return model


def test_models_are_asked_for_with_the_same_credentials() -> None:
    listing = relay_openai.list_models(target(options={"query": {"v": "1"}}).upstream)
    assert isinstance(listing, ModelListing)
    assert (listing.request.method, listing.request.url) == ("GET", "https://u.test/v1/models?v=1")
    assert listing.request.headers["authorization"] == f"Bearer {KEY}"
    moved = relay_openai.list_models(target(options={"models_path": "/catalog/models"}).upstream)
    assert isinstance(moved, ModelListing)
    assert moved.request.url == "https://u.test/catalog/models"


def test_a_host_without_a_list_has_the_models_of_its_row() -> None:
    models = relay_openai.list_models(target(models=("sonar", "son*"), options={"models_path": ""}).upstream)
    assert not isinstance(models, ModelListing)
    assert models is not None
    assert [model.id for model in models] == ["sonar"]
    assert relay_openai.list_models(target("https://u.test/{model}").upstream) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"context_length": 4096},
        {"context_window": 4096},
        {"max_model_len": 4096},
        {"meta": {"n_ctx_train": 4096}},
        {"top_provider": {"context_length": 4096}},
        {"model_spec": {"availableContextTokens": 4096}},
        {"context_length": None, "context_window": 4096},
    ],
)
def test_the_size_of_the_context_is_found_where_hosts_put_it(fields: dict[str, Any]) -> None:
    assert listed(id="x", **fields).context_length == 4096


def test_what_a_host_says_of_a_model_counts_more_than_its_name() -> None:
    model = listed(
        id="openai/gpt-4o",
        created=5,
        owned_by="o",
        architecture={"input_modalities": ["text"], "output_modalities": ["text"]},
        supported_parameters=["tools", "reasoning"],
    )
    assert (model.created, model.owned_by) == (5, "o")
    assert model.capabilities == {
        "chat": True,
        "streaming": True,
        "function_calling": True,
        "structured_output": False,
        "vision": False,
        "audio": False,
        "reasoning": True,
    }
    assert listed(id="zzz", capabilities={"vision": True, "completion_chat": False}).capabilities == {
        "vision": True,
        "chat": False,
    }
    assert listed(id="zzz", type="embedding").capabilities["embeddings"] is True
    assert listed(id="zzz", supports_tools=True).capabilities == {"function_calling": True}
    assert listed(id="zzz").capabilities == {}


def test_lists_come_in_several_forms_and_broken_rows_are_skipped() -> None:
    rows = [{"id": "a"}, {"name": "b"}, "c", {"id": ""}, {"id": 5}, 7, None, {"id": "a", "created": 1}]
    for value in (rows, {"data": rows}, {"models": rows}, {"result": rows}):
        assert [model.id for model in parse_models(json.dumps(value).encode())] == ["a", "b", "c"]
    for broken in (b"", b"7", b"{}", b'{"data":7}', b"<html>"):
        with pytest.raises(UpstreamProtocol):
            parse_models(broken)
    with pytest.raises(UpstreamError, match="Oh"):
        parse_models(b'{"error":{"message":"Oh"}}')


@pytest.mark.parametrize(
    ("model", "capability", "wanted"),
    [
        ("gpt-4o-mini", "vision", True),
        ("gpt-4o-mini", "reasoning", False),
        ("openai/GPT-5-mini", "reasoning", True),
        ("gpt-5-chat-latest", "reasoning", False),
        ("gpt-3.5-turbo-instruct", "chat", False),
        ("gpt-4o-audio-preview", "audio", True),
        ("o3-mini", "vision", None),
        ("text-embedding-3-small", "embeddings", True),
        ("text-embedding-3-small", "chat", False),
        ("deepseek-reasoner", "reasoning", True),
        ("something-new", "chat", None),
    ],
)
def test_well_known_models_are_known_by_their_names(model: str, capability: str, wanted: bool | None) -> None:
    assert capabilities_of(model).get(capability) is wanted


def test_capabilities_have_the_names_of_the_contract() -> None:
    from relay_openai.models import _PATTERNS

    assert {name for _, known in _PATTERNS for name in known} <= set(CAPABILITIES)


# Hosts.

HOSTS = known_hosts({"CLOUDFLARE_ACCOUNT_ID": "acc", "AZURE_RESOURCE_NAME": "res"})
LOCAL = {host.name for host in HOSTS if host.probe}


def test_there_are_many_hosts_and_each_has_its_own_name() -> None:
    assert len(HOSTS) >= 30
    assert len({host.name for host in HOSTS}) == len(HOSTS)
    assert {"ollama", "lmstudio", "vllm", "llamacpp"} <= LOCAL


def test_no_two_hosts_wait_for_the_same_key() -> None:
    names = [name for host in HOSTS for name in host.env]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_the_row_of_a_host_makes_sense(host: Any) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", host.name)
    url = urlsplit(host.base_url)
    assert url.hostname
    assert "{" not in host.base_url
    assert not host.base_url.endswith("/")
    if host.name in LOCAL:
        assert (url.scheme, url.hostname) == ("http", "127.0.0.1")
        assert host.base_url.endswith("/v1")
        assert urlsplit(host.probe).netloc == url.netloc
        assert host.probe_key
        assert not host.env
    else:
        assert url.scheme == "https"
        assert host.env
    for name in (*host.env, *host.base_url_env):
        assert re.fullmatch(r"[A-Z][A-Z0-9_]*", name)
    assert host.options.keys() <= OPTIONS.keys()


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_a_request_can_be_made_for_every_host(host: Any) -> None:
    upstream = Upstream(host.name, "openai", host.base_url, Secret("k"), options=host.options, models=host.models)
    to = Target(upstream, "gpt-5")
    assert endpoint(to).url.startswith(host.base_url)
    dialect = OpenAIChat()
    raw = b'{"model":"x","messages":[{"role":"user","content":"x"}],"max_tokens":5,"seed":1,"reasoning_effort":"low"}'
    request = dialect.parse(dialect.peek(raw, "generate", {}, {}))
    assert json.loads(compose_request(request, to, []))["model"] == "gpt-5"
    assert relay_openai.list_models(upstream) is not None


def test_rows_hold_only_what_is_read() -> None:
    path = Path(inspect.getfile(relay_openai)).with_name("hosts.toml")
    for row in tomllib.loads(path.read_text("utf-8"))["host"]:
        assert row.keys() <= FIELDS, row["name"]


def test_a_host_whose_address_needs_an_account_is_found_only_with_it() -> None:
    without = {host.name: host for host in known_hosts({})}
    assert without["cloudflare"].env == ()
    assert without["azure"].env == ()
    assert "{AZURE_RESOURCE_NAME}" in without["azure"].base_url
    assert {host.name: host for host in known_hosts({"AZURE_OPENAI_ENDPOINT": "https://x.test"})}["azure"].env
    with_both = {host.name: host for host in HOSTS}
    assert with_both["cloudflare"].base_url.endswith("/accounts/acc/ai/v1")
    assert with_both["azure"].env


def test_every_option_is_explained_and_allowed_by_the_family() -> None:
    (family,) = relay_openai.relay_families()
    assert family.options == OPTIONS.keys()
    assert all(text.endswith(".") for text in OPTIONS.values())


def test_every_hook_takes_arguments_that_its_specification_has() -> None:
    names = set(inspect.signature(specification).parameters)
    assert set(inspect.signature(relay_openai.translate_error).parameters) <= names
