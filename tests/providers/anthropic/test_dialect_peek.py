from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from relay import Head, LimitView, Model, Target, Upstream
from relay.errors import BadParameter
from relay.kit import WholeEvents
from relay_anthropic.dialect import AnthropicMessages
from relay_anthropic.foreign import label_of

DIALECT = AnthropicMessages(now=lambda: 1_700_000_000.4)
TARGET = Target(Upstream("up", "anthropic", "https://up.test"), "upstream-model")
HI: list[Any] = [{"role": "user", "content": "Hi"}]
BASE: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": HI}


def peek(body: Any, operation: str = "generate", **headers: str) -> Head:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return DIALECT.peek(raw, operation, {}, named)


def test_the_routes() -> None:
    assert {(route.path, route.operation) for route in DIALECT.routes} == {
        ("/v1/messages", "generate"),
        ("/messages", "generate"),
        ("/v1/messages/count_tokens", "count_tokens"),
        ("/messages/count_tokens", "count_tokens"),
    }


def test_what_the_core_must_know() -> None:
    head = peek({**BASE, "stream": True, "tools": [{"name": "f"}]})
    assert (head.model, head.stream, head.max_output, head.choices, head.has_tools) == ("m", True, 9, 1, True)
    plain = peek(BASE)
    assert (plain.stream, plain.has_tools, plain.headers) == (False, False, {})


def test_a_count_needs_no_limit_and_never_streams() -> None:
    head = peek({"model": "m", "messages": HI, "stream": True}, "count_tokens")
    assert (head.operation, head.stream, head.max_output) == ("count_tokens", False, None)


def test_only_the_api_version_and_beta_features_pass() -> None:
    head = peek(
        BASE,
        Anthropic_Version="2023-06-01",
        anthropic_beta="a,b",
        anthropic_dangerous_direct_browser_access="true",
        x_api_key="sk-relay-secret",
        X_Claude_Code_Session_Id="s",
    )
    assert head.headers == {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"[1]", None),
        (b'{"model":"a","max_tokens":1,"messages":[{}],"model":"b"}', "model"),
        ({"max_tokens": 9, "messages": HI}, "model"),
        ({**BASE, "model": ""}, "model"),
        ({"model": "m", "messages": HI}, "max_tokens"),
        ({**BASE, "max_tokens": 0}, "max_tokens"),
        ({**BASE, "max_tokens": True}, "max_tokens"),
        ({"model": "m", "max_tokens": 9}, "messages"),
        ({**BASE, "messages": []}, "messages"),
        ({**BASE, "messages": ["x"]}, "messages[0]"),
        ({**BASE, "stream": "yes"}, "stream"),
        ({**BASE, "tools": [5]}, "tools[0]"),
        ({**BASE, "tools": {}}, "tools"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(body: Any, param: str | None) -> None:
    with pytest.raises(BadParameter) as raised:
        peek(body)
    assert raised.value.param == param


def test_everything_that_a_model_reads_counts_in_the_estimate() -> None:
    least = peek(BASE).input_estimate
    words = "many words " * 40
    for fields in (
        {"system": words},
        {"system": [{"type": "text", "text": words}]},
        {"messages": [*HI, {"role": "assistant", "content": [{"type": "thinking", "thinking": words}]}]},
        {"messages": [*HI, {"role": "assistant", "content": [{"type": "tool_use", "input": {"a": words}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": words}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"text": words}]}]}]},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": words}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "data": "A"}}]}]},
        {"tools": [{"name": "f", "description": words}]},
        {"output_config": {"format": {"schema": {"description": words}}}},
    ):
        assert peek({**BASE, **fields}).input_estimate >= least + 90, fields
    odd = {"messages": [{"role": "user", "content": [5, {"type": ["x"]}, {"content": 7, "source": 3}]}]}
    assert peek({**BASE, **odd}).input_estimate > 0


def test_bytes_go_out_as_they_came_but_for_the_models_name() -> None:
    raw = b'{ "max_tokens":9, "model" : "m","messages":[{"role":"user","content":"\\u00e9"}],\n "x": 1.0}'
    head = peek(raw)
    sent = DIALECT.forward(head, TARGET)
    assert sent.body == raw.replace(b'"model" : "m"', b'"model" : "upstream-model"')
    assert (sent.filter, sent.losses) == (None, ())
    assert isinstance(DIALECT.forward(peek({**BASE, "stream": True}), TARGET).filter, WholeEvents)


def test_another_vendors_reasoning_does_not_reach_this_vendor() -> None:
    label = label_of("gemini", "sig", None)
    foreign = {"type": "thinking", "thinking": "hm", "signature": label}
    hidden = {"type": "redacted_thinking", "data": label}
    own = {"type": "thinking", "thinking": "hm", "signature": "sig"}
    text = {"type": "text", "text": "So."}
    messages = [
        *HI,
        {"role": "assistant", "content": [foreign, own, text]},
        {"role": "user", "content": "And?"},
        {"role": "assistant", "content": [hidden]},
        {"role": "user", "content": [text]},
    ]
    forward = DIALECT.forward(peek({**BASE, "messages": messages, "x": 1}), TARGET)
    assert [loss.field for loss in forward.losses] == ["thinking"]
    assert json.loads(forward.body) == {
        **BASE,
        "model": "upstream-model",
        "x": 1,
        "messages": [*HI, {"role": "assistant", "content": [own, text]}, messages[2], messages[4]],
    }


def test_text_that_only_looks_like_a_label_changes_nothing() -> None:
    blocks = b'[{"type":"text",  "text":"relay:"}]'
    raw = b'{"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": %b}]}' % blocks
    assert DIALECT.forward(peek(raw), TARGET).body == raw.replace(b'"m"', b'"upstream-model"')


def test_limits_are_named_in_the_vendors_headers_too() -> None:
    headers = DIALECT.limit_headers(LimitView(50, 49, 1.2), None)
    assert headers == {
        "x-ratelimit-limit-requests": "50",
        "x-ratelimit-remaining-requests": "49",
        "x-ratelimit-reset-requests": "1.2s",
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:22Z",
    }
    assert "anthropic-ratelimit-tokens-reset" in DIALECT.limit_headers(None, LimitView(9, 1, 0))


MODELS = [Model(f"m{number}", created=1_700_000_000 + number, context_length=1000) for number in range(5)]


def page(**query: str) -> tuple[list[str], bool, str | None, str | None]:
    value = json.loads(DIALECT.encode_models(MODELS, query))
    assert value.keys() == {"data", "has_more", "first_id", "last_id"}
    return [model["id"] for model in value["data"]], value["has_more"], value["first_id"], value["last_id"]


def test_pages_of_the_model_list() -> None:
    assert page() == (["m0", "m1", "m2", "m3", "m4"], False, "m0", "m4")
    assert page(limit="1000") == page()
    assert page(limit="2") == (["m0", "m1"], True, "m0", "m1")
    assert page(limit="2", after_id="m1") == (["m2", "m3"], True, "m2", "m3")
    assert page(limit="2", after_id="m3") == (["m4"], False, "m4", "m4")
    assert page(limit="2", before_id="m3") == (["m1", "m2"], True, "m1", "m2")
    assert page(after_id="m4") == ([], False, None, None)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"after_id": "none"}, "after_id"),
        ({"before_id": "none"}, "before_id"),
        ({"after_id": "m0", "before_id": "m1"}, "before_id"),
    ],
)
def test_a_page_that_does_not_exist_is_refused(query: dict[str, str], param: str) -> None:
    with pytest.raises(BadParameter) as raised:
        DIALECT.encode_models(MODELS, query)
    assert raised.value.param == param


def test_one_model() -> None:
    assert json.loads(DIALECT.encode_model(Model("a/b", context_length=7)))["created_at"] == "1970-01-01T00:00:00Z"
    assert json.loads(DIALECT.encode_model(MODELS[0])) == {
        "type": "model",
        "id": "m0",
        "display_name": "m0",
        "created_at": "2023-11-14T22:13:20Z",
        "max_input_tokens": 1000,
        "max_tokens": None,
        "lifecycle": "active",
    }


def test_model_lists_are_claimed_by_the_api_version() -> None:
    assert DIALECT.claims_models(CIMultiDict({"Anthropic-Version": "2026-10-21"}), {})
    assert not DIALECT.claims_models(CIMultiDict({"Authorization": "Bearer x"}), {})


def test_a_count() -> None:
    assert json.loads(DIALECT.encode_count(12)) == {"input_tokens": 12}
