"""Addresses, signatures, errors and model lists."""

from __future__ import annotations

import json
from typing import Any

import pytest

import relay_bedrock
from relay import ModelListing, Secret, Target, Upstream, UpstreamRequest
from relay.discovery import from_environment
from relay.errors import Unsupported, UpstreamBusy, UpstreamError, UpstreamProtocol, UpstreamRefused
from relay_bedrock.endpoint import credentials_of, region_of
from relay_bedrock.signature import Credentials, signed

HERE = "https://bedrock-runtime.eu-west-1.amazonaws.com"
MODEL = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"


def target(base_url: str = HERE, model: str = MODEL, **fields: Any) -> Target:
    fields.setdefault("api_key", Secret("ABSK-secret"))
    return Target(Upstream("b", "bedrock", base_url, **fields), model)


def endpoint(where: Target, operation: str = "generate", *, stream: bool = False) -> UpstreamRequest:
    return relay_bedrock.endpoint(target=where, operation=operation, body=b"{}", stream=stream)


@pytest.mark.parametrize(
    ("stream", "method"),
    [(False, "converse"), (True, "converse-stream")],
)
def test_model_and_method_stand_in_the_address(stream: bool, method: str) -> None:
    sent = endpoint(target(), stream=stream)
    assert sent.url == f"{HERE}/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/{method}"
    assert (sent.method, sent.body) == ("POST", b"{}")


PROFILE = "arn:aws:bedrock:us-east-1:1:application-inference-profile/x"


@pytest.mark.parametrize(
    "model", [MODEL, MODEL.removeprefix("eu."), f"arn:aws:bedrock:eu-west-1:1:inference-profile/{MODEL}", PROFILE]
)
def test_tokens_are_counted_for_the_model_itself(model: str) -> None:
    sent = endpoint(target(model=model, options={"profiles": {PROFILE: MODEL}}), "count_tokens")
    assert sent.url == f"{HERE}/model/anthropic.claude-sonnet-4-5-20250929-v1%3A0/count-tokens"


def test_a_name_is_one_segment_whatever_it_holds() -> None:
    name = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a b"
    sent = endpoint(target("http://proxy.test/aws/", name))
    assert sent.url == (
        "http://proxy.test/aws/model/"
        "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Aapplication-inference-profile%2Fa%20b/converse"
    )


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(Unsupported):
        endpoint(target(), "embeddings")


def test_a_key_of_the_service_is_shown_and_needs_no_region() -> None:
    sent = endpoint(target("https://gateway.test", headers={"X-Team": "blue"}))
    assert sent.headers == {
        "content-type": "application/json",
        "authorization": "Bearer ABSK-secret",
        "x-team": "blue",
    }
    assert "authorization" not in endpoint(target(api_key=None)).headers
    own = endpoint(target(headers={"Authorization": "Custom x"}))
    assert own.headers["authorization"] == "Custom x"


def test_an_access_key_signs_and_is_not_shown() -> None:
    sent = endpoint(target(api_key=Secret("AKID:half/secret+:token==")))
    assert sent.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert (
        "/eu-west-1/bedrock/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, "
        in (sent.headers["authorization"])
    )
    assert sent.headers["x-amz-security-token"] == "token=="
    assert "half/secret" not in str(sent)


@pytest.mark.parametrize("key", ["AKID:secret", "AKID:secret:", " AKID : secret :"])
def test_a_lasting_access_key_has_no_token(key: str) -> None:
    assert credentials_of(target(api_key=Secret(key)).upstream) == Credentials("AKID", "secret")
    assert "x-amz-security-token" not in endpoint(target(api_key=Secret(key))).headers


@pytest.mark.parametrize("key", [":secret", "AKID:", "::token"])
def test_half_an_access_key_is_told_from_a_whole_one(key: str) -> None:
    with pytest.raises(UpstreamError, match="half an access key") as caught:
        endpoint(target(api_key=Secret(key)))
    assert caught.value.code == "upstream_unconfigured"


@pytest.mark.parametrize(
    ("base_url", "region"),
    [
        (HERE, "eu-west-1"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com/", "us-gov-west-1"),
        ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("https://vpce-1a2b.bedrock-runtime.ap-southeast-2.vpce.amazonaws.com", "ap-southeast-2"),
    ],
)
def test_the_region_stands_in_the_vendors_addresses(base_url: str, region: str) -> None:
    assert region_of(target(base_url).upstream) == region
    assert region_of(target(base_url, options={"region": "us-west-2"}).upstream) == "us-west-2"


def test_where_nothing_tells_the_region_that_is_said() -> None:
    with pytest.raises(UpstreamError, match="needs its option region"):
        endpoint(target("https://gateway.test", api_key=Secret("AKID:secret")))


AT = 1_760_000_000.0
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("credentials", "region", "method", "url", "body", "signature"),
    [
        (
            Credentials("AKIDEXAMPLE", SECRET),
            "eu-central-1",
            "POST",
            "https://bedrock-runtime.eu-central-1.amazonaws.com/model/"
            "eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse",
            b'{"messages":[]}',
            "0fbfb30fcff25601104d247fb4c443d255e87c585ae953500b713a656605d666",
        ),
        (
            Credentials("ASIAEXAMPLE", "secret", "token/with+signs=="),
            "us-east-1",
            "POST",
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012"
            "%3Aapplication-inference-profile%2Fabc123/converse-stream",
            '{"x":"\u00e4"}'.encode(),
            "7cc117e4008f81dde1cd05bb038c5dc14ade461e0eef13c02888dc345a6aeaca",
        ),
        (
            Credentials("AKIDEXAMPLE", "secret"),
            "us-west-2",
            "GET",
            "https://bedrock.us-west-2.amazonaws.com/inference-profiles?maxResults=1000",
            b"",
            "db20cf042b509fca3027c6b41515a100d4d94dc9391a35e4cf73ae230a324cf2",
        ),
        (
            Credentials("AKIDEXAMPLE", "secret"),
            "us-east-1",
            "POST",
            "http://127.0.0.1:8080/base/model/a%20b%3A1~x/converse",
            b"{}",
            "91af6934645b4abbd08a30e91212ab0f92f1390b4e76f72442dc56125f6256de",
        ),
        (
            Credentials("AKIDEXAMPLE", "secret", "t"),
            "ap-southeast-2",
            "GET",
            "http://localhost/foundation-models",
            b"",
            "b17c5271742f4c8300c9c268e6a40a0a2a8e37ae88c0b02c1ce3c135c61afcb9",
        ),
    ],
    ids=["model", "profile with a token", "query", "port and path", "usual port"],
)
def test_signatures_are_those_of_the_vendors_own_client(
    credentials: Credentials, region: str, method: str, url: str, body: bytes, signature: str
) -> None:
    """What botocore 1.44.8 signs for the same keys, requests and second."""
    headers = {"content-type": "application/json"} if body else {}
    sent = signed(credentials, region, method, url, body, headers, AT)
    assert sent["authorization"].rpartition("Signature=")[2] == signature
    assert sent["x-amz-date"] == "20251009T085320Z"


# Errors.


def judged(status: int, body: Any, headers: dict[str, str] | None = None, **fields: Any) -> UpstreamError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return relay_bedrock.translate_error(target=target(**fields), status=status, headers=headers or {}, body=raw)


KIND = "x-amzn-errortype"


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "shown", "code", "words"),
    [
        (
            400,
            {KIND: "ValidationException:http://internal.amazon.com/coral/"},
            {"message": "Too long"},
            UpstreamRefused,
            400,
            "ValidationException",
            "Too long",
        ),
        (404, {KIND: "ResourceNotFoundException"}, {"Message": "Gone"}, UpstreamRefused, 404, None, "Gone"),
        (403, {KIND: "ExpiredTokenException"}, {"message": "expired"}, UpstreamError, 502, "upstream_credentials", ""),
        (429, {}, {"message": "Slow"}, UpstreamBusy, 429, None, "Slow"),
        (503, {KIND: "ServiceUnavailableException"}, {"message": "Later"}, UpstreamBusy, 503, None, "Later"),
        (424, {KIND: "ModelErrorException"}, {"message": "It broke"}, UpstreamError, 502, None, "It broke"),
        (408, {KIND: "ModelTimeoutException"}, {"message": "Slow model"}, UpstreamError, 502, None, "Slow model"),
        (400, {}, {"__type": "a.b#SerializationException"}, UpstreamRefused, 400, "SerializationException", "{"),
        (500, {}, b"<html>", UpstreamError, 502, None, "status 500"),
    ],
)
def test_errors_are_told_in_the_vendors_words(
    status: int, headers: dict[str, str], body: Any, kind: type[Exception], shown: int, code: str | None, words: str
) -> None:
    error = judged(status, body, headers)
    assert type(error) is kind
    assert error.status == shown
    assert words in error.message
    assert code in (None, error.code)


def test_no_half_of_a_key_comes_back_in_an_error() -> None:
    key = Secret("AKID:half/secret:temporary==")
    error = judged(400, {"message": "signed with half/secret and temporary=="}, api_key=key)
    assert error.message == "signed with *** and ***"


# Models.

SUMMARIES = {
    "modelSummaries": [
        {
            "modelId": "anthropic.claude-3-haiku-20240307-v1:0",
            "providerName": "Anthropic",
            "inputModalities": ["TEXT", "IMAGE"],
            "outputModalities": ["TEXT"],
            "responseStreamingSupported": True,
            "inferenceTypesSupported": ["ON_DEMAND"],
            "modelLifecycle": {"status": "ACTIVE", "startOfLifeTime": "2024-03-13T00:00:00Z"},
        },
        {
            "modelId": "amazon.titan-image",
            "outputModalities": ["IMAGE"],
            "inferenceTypesSupported": ["ON_DEMAND"],
        },
        {
            "modelId": "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "outputModalities": ["TEXT"],
            "inferenceTypesSupported": ["INFERENCE_PROFILE"],
        },
        {"modelId": 7},
        "nonsense",
    ]
}
PROFILES = {
    "inferenceProfileSummaries": [
        {"inferenceProfileId": MODEL, "type": "SYSTEM_DEFINED", "status": "ACTIVE"},
        {
            "inferenceProfileId": "1arbu5hu2sjr",
            "inferenceProfileArn": "arn:aws:bedrock:eu-west-1:1:application-inference-profile/1arbu5hu2sjr",
            "type": "APPLICATION",
            "status": "ACTIVE",
            "createdAt": "2025-10-01T00:00:00Z",
        },
        {"inferenceProfileId": "old", "type": "SYSTEM_DEFINED", "status": "GONE"},
    ]
}


def test_models_are_those_that_answer_by_themselves_and_the_profiles() -> None:
    listing = relay_bedrock.list_models(upstream=target(api_key=Secret("AKID:secret")).upstream)
    assert isinstance(listing, ModelListing)
    (more,) = listing.more
    assert listing.request.url == "https://bedrock.eu-west-1.amazonaws.com/foundation-models"
    assert more.request.url == "https://bedrock.eu-west-1.amazonaws.com/inference-profiles?maxResults=1000"
    for request in (listing.request, more.request):
        assert (request.method, request.body) == ("GET", b"")
        assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
    (model,) = listing.parse(json.dumps(SUMMARIES).encode())
    assert (model.id, model.owned_by, model.created) == (
        "anthropic.claude-3-haiku-20240307-v1:0",
        "anthropic",
        1_710_288_000,
    )
    assert model.capabilities == {"vision": True, "audio": False, "streaming": True}
    found = more.parse(json.dumps(PROFILES).encode())
    assert [(one.id, one.owned_by) for one in found] == [
        (MODEL, "anthropic"),
        ("arn:aws:bedrock:eu-west-1:1:application-inference-profile/1arbu5hu2sjr", "aws"),
    ]


@pytest.mark.parametrize(
    "base_url", ["https://gateway.test", "https://vpce-1.bedrock-runtime.eu-west-1.vpce.amazonaws.com"]
)
def test_elsewhere_the_lists_are_looked_for_where_the_models_are(base_url: str) -> None:
    listing = relay_bedrock.list_models(upstream=target(base_url).upstream)
    assert isinstance(listing, ModelListing)
    assert listing.request.url == f"{base_url}/foundation-models"


def test_what_else_a_model_in_the_list_says_may_be_anything() -> None:
    entry = SUMMARIES["modelSummaries"][0] | {"modelLifecycle": "ACTIVE", "providerName": 5, "inputModalities": None}
    listing = relay_bedrock.list_models(upstream=target().upstream)
    assert isinstance(listing, ModelListing)
    (model,) = listing.parse(json.dumps({"modelSummaries": [entry]}).encode())
    assert (model.created, model.owned_by, model.capabilities["vision"]) == (None, "aws", False)


def test_what_is_no_list_of_models_is_refused() -> None:
    listing = relay_bedrock.list_models(upstream=target().upstream)
    assert isinstance(listing, ModelListing)
    for parse in (listing.parse, listing.more[0].parse):
        with pytest.raises(UpstreamProtocol, match="has no "):
            parse(b"{}")


# Discovery.


@pytest.mark.parametrize(
    ("environ", "base_url"),
    [
        ({}, "https://bedrock-runtime.us-east-1.amazonaws.com"),
        ({"AWS_DEFAULT_REGION": "eu-north-1"}, "https://bedrock-runtime.eu-north-1.amazonaws.com"),
        ({"AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "x"}, "https://bedrock-runtime.eu-west-3.amazonaws.com"),
        ({"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://gateway.test"}, "http://gateway.test"),
    ],
)
def test_a_key_of_the_service_is_found_and_the_region_with_it(environ: dict[str, str], base_url: str) -> None:
    family = relay_bedrock.family_of(environ)
    hosts = [(family, host) for host in family.hosts]
    (found,) = from_environment(hosts, {**environ, "AWS_BEARER_TOKEN_BEDROCK": "ABSK-1"})
    assert found.upstream.base_url == base_url
    assert found.upstream.api_key == Secret("ABSK-1")
    # These open more than this service.
    assert not from_environment(hosts, {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"})
