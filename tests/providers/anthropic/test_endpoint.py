"""Addresses, headers, errors and model lists."""

from __future__ import annotations

import json
from typing import Any

import pytest

import relay_anthropic
from relay import ModelListing, Secret, Target, Upstream, UpstreamRequest
from relay.errors import Unsupported, UpstreamError, UpstreamProtocol


def target(base_url: str = "https://api.test", **fields: Any) -> Target:
    fields.setdefault("api_key", Secret("sk-secret"))
    return Target(Upstream("a", "anthropic", base_url, **fields), "claude-test")


def endpoint(where: Target, headers: dict[str, str] | None = None, operation: str = "generate") -> UpstreamRequest:
    return relay_anthropic.endpoint(target=where, operation=operation, body=b"{}", headers=headers or {})


@pytest.mark.parametrize(
    "base_url", ["https://api.test", "https://api.test/", "https://api.test/v1", "https://api.test/v1/"]
)
def test_the_address_may_be_written_with_or_without_its_version(base_url: str) -> None:
    assert endpoint(target(base_url)).url == "https://api.test/v1/messages"


def test_a_path_before_the_version_is_kept() -> None:
    assert endpoint(target("https://api.test/anthropic/v1")).url == "https://api.test/anthropic/v1/messages"


def test_the_relays_key_is_sent_and_the_callers_choice_of_version() -> None:
    sent = endpoint(
        target(headers={"X-Team": "blue"}),
        {"Anthropic-Version": "2024-01-01", "anthropic-beta": "a,b", "x-api-key": "theirs", "cookie": "c"},
    )
    assert sent.headers == {
        "content-type": "application/json",
        "anthropic-version": "2024-01-01",
        "anthropic-beta": "a,b",
        "x-api-key": "sk-secret",
        "x-team": "blue",
    }
    assert (sent.method, sent.body) == ("POST", b"{}")


def test_what_is_sent_again_is_the_same_for_the_same_choice_of_version_only() -> None:
    where = target()
    first, second = (endpoint(where, {"anthropic-version": version}) for version in ("2024-01-01", "2025-01-01"))
    assert endpoint(where, {"anthropic-version": "2024-01-01"}).headers is first.headers
    assert second.headers["anthropic-version"] == "2025-01-01"
    other = endpoint(target(api_key=Secret("sk-other")), {"anthropic-version": "2024-01-01"})
    assert other.headers["x-api-key"] == "sk-other"
    with pytest.raises(TypeError):
        first.headers["x"] = "y"  # type: ignore[index]


def test_a_long_choice_is_sent_and_not_remembered() -> None:
    where, long = target(), {"anthropic-beta": ",".join(f"beta-{number}" for number in range(400))}
    assert endpoint(where, long).headers["anthropic-beta"] == long["anthropic-beta"]
    assert endpoint(where, long).headers is not endpoint(where, long).headers


def test_options_choose_the_credential_and_betas() -> None:
    sent = endpoint(target(options={"auth": "bearer", "beta": ["one", "two"]}))
    assert sent.headers["authorization"] == "Bearer sk-secret"
    assert sent.headers["anthropic-beta"] == "one,two"
    assert "x-api-key" not in sent.headers
    assert "x-api-key" not in endpoint(target(api_key=None)).headers


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(Unsupported):
        endpoint(target(), operation="paint")


def error(status: int, body: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> UpstreamError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return relay_anthropic.translate_error(target=target(), status=status, headers=headers or {}, body=raw)


@pytest.mark.parametrize(
    ("status", "kind", "shown", "code", "retryable"),
    [
        (400, "invalid_request_error", 400, "invalid_request_error", False),
        (401, "authentication_error", 502, "upstream_credentials", True),
        (402, "billing_error", 502, "upstream_credit", True),
        (403, "permission_error", 502, "upstream_credentials", True),
        (404, "not_found_error", 404, "not_found_error", False),
        (413, "request_too_large", 413, "request_too_large", False),
        (429, "rate_limit_error", 429, "upstream_rate_limited", True),
        (500, "api_error", 502, "upstream_error", True),
        (504, "timeout_error", 502, "upstream_error", True),
        (529, "overloaded_error", 503, "upstream_overloaded", True),
    ],
)
def test_errors_by_status(status: int, kind: str, shown: int, code: str, retryable: bool) -> None:
    body = {"type": "error", "error": {"type": kind, "message": "what happened"}, "request_id": "req_1"}
    found = error(status, body, {"retry-after": "3"})
    assert (found.status, found.code, found.retryable, found.upstream_status) == (shown, code, retryable, status)
    if status not in (401, 402, 403):
        assert found.message == "what happened"
    if status in (429, 529):
        assert found.retry_after == 3.0


def test_an_empty_account_is_not_the_callers_fault() -> None:
    message = "Your credit balance is too low to access the API."
    found = error(400, {"type": "error", "error": {"type": "invalid_request_error", "message": message}})
    assert (found.status, found.code) == (502, "upstream_credit")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>nginx</html>", "the upstream answered with status 500"),
        (b"", "the upstream answered with status 500"),
        (b"upstream connect error", "upstream connect error"),
        (b'{"error": "just words"}', "just words"),
        (b'{"message": "top level"}', "top level"),
        (b'{"error": {"message": 5}}', '{"error": {"message": 5}}'),
        (b'{"error": {"message": "the key sk-secret is bad"}}', "the key *** is bad"),
        (b"\xff", "\ufffd"),
    ],
)
def test_odd_error_bodies_still_say_something(body: bytes, message: str) -> None:
    assert error(500, body).message == message


def test_long_messages_are_cut() -> None:
    assert len(error(400, {"error": {"message": "x" * 50_000}}).message) == 2000
    assert len(error(400, b"x" * 50_000).message) == 2000


def listing(upstream: Upstream) -> ModelListing:
    return relay_anthropic.list_models(upstream=upstream)


def test_models_are_asked_for_and_read() -> None:
    found = listing(target().upstream)
    assert (found.request.method, found.request.url) == ("GET", "https://api.test/v1/models?limit=1000")
    assert found.request.headers == {"anthropic-version": "2023-06-01", "x-api-key": "sk-secret"}
    models = found.parse(
        json.dumps(
            {
                "data": [
                    {
                        "id": "claude-new",
                        "created_at": "2025-01-01T00:00:00Z",
                        "max_input_tokens": 200_000,
                        "capabilities": {
                            "image_input": {"supported": True},
                            "thinking": {"supported": False, "types": {}},
                            "structured_outputs": None,
                        },
                    },
                    {"id": "claude-odd", "created_at": "1970-01-01T00:00:00Z", "max_input_tokens": -1},
                    {"id": "claude-gone", "lifecycle": "retired"},
                    {"no": "id"},
                ]
            }
        ).encode()
    )
    assert [model.id for model in models] == ["claude-new", "claude-odd"]
    assert (models[0].created, models[0].context_length, models[0].owned_by) == (1_735_689_600, 200_000, "anthropic")
    assert models[0].capabilities == {"vision": True, "reasoning": False}
    assert (models[1].created, models[1].context_length) == (None, None)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"no"])
def test_what_is_no_list_of_models_is_refused(body: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        listing(target().upstream).parse(body)


def test_the_family_says_what_it_is() -> None:
    (family,) = relay_anthropic.relay_families()
    assert family.name == "anthropic"
    assert family.dialects == {"anthropic-messages"}
    (host,) = family.hosts
    assert host.env == ("ANTHROPIC_API_KEY",)
    assert host.base_url_env == ("ANTHROPIC_BASE_URL",)
    assert endpoint(Target(Upstream("a", "anthropic", host.base_url), "m")).url.startswith(host.base_url)
