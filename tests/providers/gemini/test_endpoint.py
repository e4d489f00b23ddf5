"""Addresses, headers, errors and model lists."""

from __future__ import annotations

import json
from typing import Any

import pytest

import relay_gemini
from relay import Secret, Target, Upstream, UpstreamRequest
from relay.errors import Unsupported, UpstreamError, UpstreamProtocol


def target(base_url: str = "https://api.test", model: str = "gemini-test", **fields: Any) -> Target:
    fields.setdefault("api_key", Secret("AIza-secret"))
    return Target(Upstream("g", "gemini", base_url, **fields), model)


def endpoint(where: Target, stream: bool = False, operation: str = "generate") -> UpstreamRequest:
    return relay_gemini.endpoint(target=where, operation=operation, body=b"{}", stream=stream)


@pytest.mark.parametrize("base_url", ["https://api.test", "https://api.test/", "https://api.test/v1beta/"])
def test_the_address_may_be_written_with_or_without_its_version(base_url: str) -> None:
    assert endpoint(target(base_url)).url == "https://api.test/v1beta/models/gemini-test:generateContent"


def test_another_version_is_kept() -> None:
    assert endpoint(target("https://api.test/v1")).url == "https://api.test/v1/models/gemini-test:generateContent"


def test_streams_are_asked_for_as_server_sent_events() -> None:
    url = "https://api.test/v1beta/models/gemini-test:streamGenerateContent?alt=sse"
    assert endpoint(target(), stream=True).url == url


def test_the_key_is_a_header_and_never_part_of_the_address() -> None:
    sent = endpoint(target(headers={"X-Team": "blue"}), stream=True)
    assert sent.headers == {"content-type": "application/json", "x-goog-api-key": "AIza-secret", "x-team": "blue"}
    assert "secret" not in sent.url
    bearer = endpoint(target(options={"auth": "bearer"}))
    assert bearer.headers == {"content-type": "application/json", "authorization": "Bearer AIza-secret"}
    assert endpoint(target(api_key=None)).headers == {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("model", "segment"),
    [
        ("models/gemini-x", "models/gemini-x"),
        ("tunedModels/mine", "tunedModels/mine"),
        ("../../v1/files/x", "models/..%2F..%2Fv1%2Ffiles%2Fx"),
        ("a?key=b#c", "models/a%3Fkey%3Db%23c"),
        ("a:b\r\nX: y", "models/a%3Ab%0D%0AX%3A%20y"),
        ("..", "models/.."),
        ("é", "models/%C3%A9"),
    ],
)
def test_a_models_name_cannot_leave_its_place_in_the_address(model: str, segment: str) -> None:
    assert endpoint(target(model=model)).url == f"https://api.test/v1beta/{segment}:generateContent"


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(Unsupported):
        endpoint(target(), operation="paint")


def error(status: int, body: bytes | Any, headers: dict[str, str] | None = None) -> UpstreamError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return relay_gemini.translate_error(target=target(), status=status, headers=headers or {}, body=raw)


@pytest.mark.parametrize(
    ("status", "name", "shown", "code", "retryable"),
    [
        (400, "INVALID_ARGUMENT", 400, "invalid_argument", False),
        (401, "UNAUTHENTICATED", 502, "upstream_credentials", True),
        (403, "PERMISSION_DENIED", 502, "upstream_credentials", True),
        (404, "NOT_FOUND", 404, "not_found", False),
        (429, "RESOURCE_EXHAUSTED", 429, "upstream_rate_limited", True),
        (500, "INTERNAL", 502, "upstream_error", True),
        (503, "UNAVAILABLE", 503, "upstream_overloaded", True),
        (504, "DEADLINE_EXCEEDED", 502, "upstream_error", True),
    ],
)
@pytest.mark.parametrize("listed", [False, True])
def test_errors_by_status(status: int, name: str, shown: int, code: str, retryable: bool, listed: bool) -> None:
    value = {"error": {"code": status, "message": "what happened", "status": name}}
    found = error(status, [value] if listed else value)
    assert (found.status, found.code, found.retryable, found.upstream_status) == (shown, code, retryable, status)
    if status not in (401, 403):
        assert found.message == "what happened"


def test_a_bad_key_is_not_the_callers_fault() -> None:
    details = [{"@type": "ErrorInfo", "reason": "API_KEY_INVALID"}]
    found = error(400, {"error": {"code": 400, "message": "API key not valid", "details": details}})
    assert (found.status, found.code) == (502, "upstream_credentials")


def test_the_vendors_delay_is_passed_on() -> None:
    details = ["odd", {"@type": "QuotaFailure"}, {"@type": "RetryInfo", "retryDelay": "34.4s"}]
    value = {"error": {"code": 429, "message": "quota", "details": details}}
    assert error(429, value).retry_after == 34.4
    assert error(429, value, {"retry-after": "2"}).retry_after == 2.0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>nginx</html>", "the upstream answered with status 500"),
        (b"", "the upstream answered with status 500"),
        (b"upstream connect error", "upstream connect error"),
        (b'{"error": {"code": 500}}', "the upstream reported an error without a message"),
        (b'{"error": {"message": "key AIza-secret is bad"}}', "key *** is bad"),
        (b"\xff", "\ufffd"),
    ],
)
def test_odd_error_bodies_still_say_something(body: bytes, message: str) -> None:
    assert error(500, body).message == message


def test_long_messages_are_cut() -> None:
    assert len(error(400, {"error": {"message": "x" * 50_000}}).message) == 2000


def test_models_are_asked_for_and_read() -> None:
    listing = relay_gemini.list_models(upstream=target().upstream)
    assert (listing.request.method, listing.request.url) == ("GET", "https://api.test/v1beta/models?pageSize=1000")
    assert listing.request.headers == {"x-goog-api-key": "AIza-secret"}
    models = listing.parse(
        json.dumps(
            {
                "models": [
                    {
                        "name": "models/gemini-new",
                        "inputTokenLimit": 1_048_576,
                        "supportedGenerationMethods": ["generateContent", "countTokens"],
                        "thinking": True,
                    },
                    {"name": "models/embedder", "supportedGenerationMethods": ["embedContent"]},
                    {"name": "models/imagen", "supportedGenerationMethods": ["predict"]},
                    {"name": "models/odd", "supportedGenerationMethods": [["predict"], {}]},
                    {"name": "models/plain", "inputTokenLimit": "many"},
                    {"no": "name"},
                ]
            }
        ).encode()
    )
    assert [model.id for model in models] == ["gemini-new", "embedder", "plain"]
    assert (models[0].context_length, models[0].owned_by) == (1_048_576, "google")
    assert models[0].capabilities == {"reasoning": True}
    assert {name for name, can in models[1].capabilities.items() if can} == {"embeddings"}
    assert models[1].capabilities["chat"] is False
    assert models[2].context_length is None


@pytest.mark.parametrize("body", [b"{}", b"[]", b"no"])
def test_what_is_no_list_of_models_is_refused(body: bytes) -> None:
    with pytest.raises(UpstreamProtocol):
        relay_gemini.list_models(upstream=target().upstream).parse(body)


def test_the_family_says_what_it_is() -> None:
    (family,) = relay_gemini.relay_families()
    assert family.name == "gemini"
    assert family.dialects == {"gemini"}
    (host,) = family.hosts
    assert host.env == ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    assert host.base_url_env == ("GOOGLE_GEMINI_BASE_URL",)
    assert endpoint(Target(Upstream("g", "gemini", host.base_url), "m")).url.startswith(host.base_url)
