"""What the core learns of a request before translation, and what is said without any."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from relay import Head, Model, Target, Upstream
from relay.errors import BadParameter, RateLimited
from relay.ir import Tool
from relay.kit import WholeEvents
from relay_gemini.dialect import GenerateContent
from relay_gemini.frames import ArrayFilter

DIALECT = GenerateContent()
TARGET = Target(Upstream("up", "gemini", "https://upstream.test"), "gemini-3-flash")


def peek(body: Any, operation: str = "generate", **path: str) -> Head:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return DIALECT.peek(raw, operation, {"collection": "models", "model": "m", **path}, {"x-goog-api-client": "c"})


def asking(**fields: Any) -> dict[str, Any]:
    return {"contents": [{"parts": [{"text": "Hi"}]}], **fields}


def test_what_limits_need_is_read_in_both_spellings() -> None:
    for config in ({"maxOutputTokens": 7, "candidateCount": 2}, {"max_output_tokens": "7", "candidate_count": 2.0}):
        for name in ("generationConfig", "generation_config"):
            head = peek(asking(**{name: config}))
            assert (head.max_output, head.choices) == (7, 2)
    assert (peek(asking()).max_output, peek(asking()).choices) == (None, 1)


def test_functions_make_tools_and_nothing_else_does() -> None:
    assert peek(asking(tools=[{"function_declarations": [{"name": "f"}]}])).has_tools
    assert not peek(asking(tools=[{"googleSearch": {}}])).has_tools
    assert not peek(asking(tools=[{"functionDeclarations": []}])).has_tools


def test_the_url_says_how_to_answer() -> None:
    assert not peek(asking()).stream
    events = peek(asking(), stream="streamGenerateContent", alt="sse")
    assert (events.stream, events.stream_type) == (True, "")
    for path in ({}, {"alt": "json"}):
        array = peek(asking(), stream="streamGenerateContent", **path)
        assert (array.stream, array.stream_type) == (True, "application/json; charset=UTF-8")
        assert isinstance(DIALECT.forward(array, TARGET).filter, ArrayFilter)
    assert isinstance(DIALECT.forward(events, TARGET).filter, WholeEvents)
    assert DIALECT.forward(peek(asking()), TARGET).filter is None


def test_tuned_models_keep_their_collection() -> None:
    assert peek(asking(), collection="tunedModels", model="a").model == "tunedModels/a"
    with pytest.raises(BadParameter, match="control characters"):
        peek(asking(), model="a\nb")


def test_media_count_flat_and_text_by_its_length() -> None:
    data = "A" * 100_000
    picture = peek(asking(contents=[{"parts": [{"inlineData": {"mimeType": "image/png", "data": data}}]}]))
    assert 1000 < picture.input_estimate < 2000
    nested = {"functionResponse": {"name": "f", "parts": [{"inline_data": {"mime_type": "image/png", "data": data}}]}}
    assert 1000 < peek(asking(contents=[{"parts": [nested]}])).input_estimate < 2000
    words = "word " * 1000
    for fields in (
        {"contents": [{"parts": [{"text": words}]}]},
        {"system_instruction": words},
        {"systemInstruction": {"parts": [{"text": words}]}},
        {"tools": [{"functionDeclarations": [{"name": "f", "description": words}]}]},
        {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"a": words}}}]}]},
        {"contents": [{"parts": [{"functionResponse": {"name": "f", "response": {"output": words}}}]}]},
        {"generationConfig": {"responseSchema": {"description": words}}},
    ):
        assert 1200 < peek(asking(**fields)).input_estimate < 1400, fields


@pytest.mark.parametrize("name", ["generateContentRequest", "generate_content_request"])
def test_a_count_may_hold_the_request_in_a_field(name: str) -> None:
    inner = asking(systemInstruction="Be brief.", tools=[{"functionDeclarations": [{"name": "f"}]}], model="models/m")
    head = peek({name: inner}, "count_tokens")
    assert DIALECT.parse(head).messages[0].text == "Be brief."
    assert head.has_tools
    sent = json.loads(DIALECT.forward(head, TARGET).body)
    assert sent == {name: {**inner, "model": "models/gemini-3-flash"}}
    plain = peek(asking(), "count_tokens")
    assert DIALECT.forward(plain, TARGET).body is plain.raw


def test_functions_are_named_by_the_path_of_their_schema() -> None:
    tools = [
        {"googleSearch": {}},
        {
            "functionDeclarations": [
                {"name": "f", "parameters": {"type": "OBJECT"}},
                {"name": "g", "parameters_json_schema": {"type": "object"}},
            ]
        },
    ]
    path = "tools[1].functionDeclarations"
    assert DIALECT.tools(peek(asking(tools=tools))) == [
        (f"{path}[0].parameters", Tool("f", parameters={"type": "object"})),
        (f"{path}[1].parametersJsonSchema", Tool("g", parameters={"type": "object"})),
    ]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"contents": [{}], "tools": [5]}', b"\xef\xbb\xbf{}"])
def test_what_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(BadParameter):
        peek(body)


# Said without a request.


def test_errors_carry_what_is_known() -> None:
    error = RateLimited("slow down", limit="key requests per minute", retry_after=1.2)
    body = json.loads(DIALECT.encode_error(error, "req_1"))["error"]
    assert (body["code"], body["status"], body["message"]) == (429, "RESOURCE_EXHAUSTED", "slow down")
    info, retry, request = body["details"]
    assert (info["reason"], retry["retryDelay"], request["requestId"]) == ("RATE_LIMIT_EXCEEDED", "2s", "req_1")


def test_lists_of_models_come_in_pages() -> None:
    models = [Model(f"m/{number}", context_length=number) for number in range(5)]
    names: list[str] = []
    token = ""
    for _ in range(3):
        page = json.loads(DIALECT.encode_models(models, {"pageSize": "2", "pageToken": token}))
        names += [model["name"] for model in page["models"]]
        token = page.get("nextPageToken", "")
    assert (names, token) == ([f"models/m/{number}" for number in range(5)], "")
    for size in ("0", "5", "99999"):
        assert "nextPageToken" not in json.loads(DIALECT.encode_models(models, {"pageSize": size}))
    assert json.loads(DIALECT.encode_models([], {"pageSize": "2"})) == {"models": []}
    for query in ({"pageSize": "x"}, {"pageSize": "-1"}, {"pageToken": "eA=="}, {"pageToken": "\u00e9"}):
        with pytest.raises(BadParameter):
            DIALECT.encode_models(models, query)


def test_a_model_tells_what_it_does() -> None:
    one = json.loads(DIALECT.encode_model(Model("e", capabilities={"chat": False, "embeddings": True})))
    assert one["supportedGenerationMethods"] == ["embedContent", "batchEmbedContents"]
    thinker = json.loads(DIALECT.encode_model(Model("t", capabilities={"reasoning": True})))
    assert (thinker["thinking"], "inputTokenLimit" in thinker) == (True, False)


def test_its_clients_are_known_by_where_they_put_their_keys() -> None:
    assert DIALECT.claims_models(CIMultiDict({"X-Goog-Api-Key": "k"}), {})
    assert DIALECT.claims_models(CIMultiDict(), {"key": "k"})
    assert not DIALECT.claims_models(CIMultiDict({"Authorization": "Bearer k"}), {"pageSize": "1"})
