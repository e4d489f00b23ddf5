from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from relay import Target, Upstream
from relay.errors import BadParameter
from relay.ir import (
    Cache,
    Media,
    Message,
    Opaque,
    Output,
    Reasoning,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from relay_anthropic.caller import parse_request
from relay_anthropic.dialect import AnthropicMessages
from relay_anthropic.foreign import label_of
from relay_anthropic.request import body_of

DIALECT = "anthropic-messages"
BASE: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}


def parse(**fields: Any) -> Request:
    return parse_request({**BASE, **fields})


def parts(*blocks: dict[str, Any], role: str = "user") -> list[Any]:
    return parse(messages=[{"role": role, "content": list(blocks)}]).messages[0].parts


def test_the_plain_form() -> None:
    request = parse(system="Be brief.", stream=True, temperature=0.5, top_p=0.9, top_k=5, stop_sequences=["END"])
    assert request.messages == [Message("system", [Text("Be brief.")]), Message("user", [Text("Hi")])]
    assert (request.model, request.stream, request.extra) == ("m", True, None)
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.top_k) == (9, 0.5, 0.9, 5)
    assert sampling.stop == ["END"]


def test_system_text_stands_wherever_it_was_written() -> None:
    request = parse(
        system=[{"type": "text", "text": "one", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        messages=[
            {"role": "user", "content": "Hi"},
            {"role": "system", "content": [{"type": "text", "text": "two"}]},
            {"role": "assistant", "content": "Hello"},
        ],
    )
    assert [message.role for message in request.messages] == ["system", "user", "system", "assistant"]
    assert request.messages[0].parts == [Text("one", cache=Cache("1h"))]
    assert request.messages[2].text == "two"


def test_an_empty_system_prompt_is_none() -> None:
    assert parse(system=[]).messages[0].role == "user"


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"type": "text", "text": "a", "citations": None}, Text("a")),
        ({"type": "text", "text": "a", "x": 1}, Text("a", extra={DIALECT: {"x": 1}})),
        ({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, Text("a", cache=Cache())),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            Media("image", "image/png", data="AAAA"),
        ),
        (
            {"type": "image", "source": {"type": "url", "url": "https://x.test/a"}},
            Media("image", url="https://x.test/a"),
        ),
        ({"type": "image", "source": {"type": "file", "file_id": "file_1"}}, Media("image", file_id="file_1")),
        (
            {"type": "document", "title": "T", "source": {"type": "url", "url": "https://x.test/a"}},
            Media("document", url="https://x.test/a", name="T"),
        ),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain \u00e9"}},
            Media("document", "text/plain", data=base64.b64encode("plain \u00e9".encode()).decode()),
        ),
        ({"type": "tool_use", "id": "t", "name": "f", "input": {"b": 1, "a": 2}}, ToolCall("t", "f", '{"b":1,"a":2}')),
        ({"type": "tool_result", "tool_use_id": "t"}, ToolResult("t", [])),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": "no", "is_error": True},
            ToolResult("t", [Text("no")], is_error=True),
        ),
        (
            {
                "type": "tool_result",
                "tool_use_id": "t",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                ],
            },
            ToolResult("t", [Text("see"), Media("image", "image/png", data="AAAA")]),
        ),
        ({"type": "thinking", "thinking": "hm", "signature": "s"}, Thinking("hm", "s", dialect=DIALECT)),
        ({"type": "thinking", "thinking": "hm", "signature": ""}, Thinking("hm", None, dialect=DIALECT)),
        ({"type": "redacted_thinking", "data": "d"}, Thinking("", "d", redacted=True, dialect=DIALECT)),
    ],
)
def test_blocks(block: dict[str, Any], part: Any) -> None:
    assert parts(block, role="assistant") == [part]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "web_search_result"}]},
        {"type": "search_result", "source": "a", "title": "b", "content": [{"type": "text", "text": "c"}]},
        {"type": "document", "source": {"type": "content", "content": "x"}},
        {"type": "image", "source": {"type": "something_new", "a": 1}},
        {"type": "something_new", "cache_control": {"type": "ephemeral"}},
    ],
)
def test_what_the_hub_does_not_know_is_carried_as_it_stands(block: dict[str, Any]) -> None:
    assert parts(block) == [Opaque(DIALECT, block)]


def test_tools() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    request = parse(
        tools=[
            {"name": "f", "description": "d", "input_schema": schema, "strict": True, "defer_loading": True},
            {"type": "custom", "name": "g", "input_schema": schema, "cache_control": {"type": "ephemeral"}},
            search,
            {"type": "bash_20250124", "name": "bash"},
        ]
    )
    assert request.tools == [
        Tool("f", "d", schema, True, extra={DIALECT: {"defer_loading": True}}),
        Tool("g", None, schema, cache=Cache()),
        Opaque(DIALECT, search),
        Opaque(DIALECT, {"type": "bash_20250124", "name": "bash"}),
    ]


@pytest.mark.parametrize(
    ("value", "choice", "parallel"),
    [
        ({"type": "auto"}, ToolChoice("auto"), None),
        ({"type": "any", "disable_parallel_tool_use": False}, ToolChoice("required"), True),
        ({"type": "tool", "name": "f", "disable_parallel_tool_use": True}, ToolChoice("tool", "f"), False),
        ({"type": "none"}, ToolChoice("none"), None),
    ],
)
def test_tool_choice(value: Any, choice: ToolChoice, parallel: bool | None) -> None:
    request = parse(tool_choice=value)
    assert (request.tool_choice, request.parallel_tools) == (choice, parallel)


@pytest.mark.parametrize(
    ("fields", "reasoning"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, Reasoning(budget=2000, enabled=True)),
        ({"thinking": {"type": "disabled"}}, Reasoning(enabled=False)),
        ({"thinking": {"type": "adaptive"}}, Reasoning(enabled=True)),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, Reasoning(enabled=True, summary="none")),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, Reasoning(enabled=True, summary="auto")),
        ({"output_config": {"effort": "high"}}, Reasoning(effort="high")),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
            Reasoning(effort="low", enabled=True),
        ),
    ],
)
def test_reasoning(fields: dict[str, Any], reasoning: Reasoning) -> None:
    request = parse(**fields)
    assert request.reasoning == reasoning
    assert request.extra is None


def test_thinking_in_words_of_tomorrow_stays() -> None:
    request = parse(thinking={"type": "adaptive", "display": "updates"})
    assert request.reasoning == Reasoning(enabled=True, summary="auto")
    assert request.own(DIALECT) == {"thinking": {"display": "updates"}}
    assert parse(thinking={"type": "deep"}).own(DIALECT) == {"thinking": {"type": "deep"}}


@pytest.mark.parametrize(
    "fields",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
        {"output_format": {"type": "json_schema", "schema": {"type": "object"}}},
    ],
)
def test_structured_output(fields: dict[str, Any]) -> None:
    request = parse(**fields)
    assert request.output == Output("schema", schema={"type": "object"})
    assert request.extra is None


def test_what_only_the_vendor_knows_stays_for_it() -> None:
    own = {
        "context_management": {"edits": []},
        "mcp_servers": [{"type": "url", "url": "https://x.test", "name": "x"}],
        "service_tier": "auto",
    }
    request = parse(**own, container=None, output_config={"task_budget": {"type": "tokens", "total": 9}})
    assert request.own(DIALECT) == {**own, "output_config": {"task_budget": {"type": "tokens", "total": 9}}}


def test_the_users_name_is_short_enough_for_every_vendor_and_stays_whole_for_its_own() -> None:
    blob = json.dumps({"device_id": "d" * 64, "account_uuid": "", "session_id": "s" * 36})
    request = parse(metadata={"user_id": blob})
    assert request.user is not None
    assert len(request.user) == 64
    assert request.user == parse(metadata={"user_id": blob}).user
    assert request.user != parse(metadata={"user_id": blob + " "}).user
    assert request.own(DIALECT) == {"metadata": {"user_id": blob}}
    assert parse(metadata={"user_id": "u1"}).user == "u1"
    assert parse(metadata={"user_id": None}).user is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}]},
            "messages[0].content[0].source.media_type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{}]}]},
                ]
            },
            "messages[0].content[0].content[0].type",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f"}]}]},
            "messages[0].content[0].input",
        ),
        ({"system": 5}, "system"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"stop_sequences": ["a", 5]}, "stop_sequences[1]"),
        ({"metadata": "u"}, "metadata"),
        ({"metadata": {"user_id": 5}}, "metadata.user_id"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ],
)
def test_faults_are_named_by_their_path(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadParameter) as raised:
        parse(**fields)
    assert raised.value.param == param
    assert param in raised.value.message


FULL: dict[str, Any] = {
    "model": "claude-test",
    "max_tokens": 5000,
    "stream": True,
    "system": [{"type": "text", "text": "one", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "see"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": "AAAA"}},
                {
                    "type": "document",
                    "source": {"type": "url", "url": "https://x.test/a"},
                    "title": "T",
                    "context": "c",
                },
                {"type": "search_result", "source": "a", "title": "b", "content": [{"type": "text", "text": "c"}]},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig"},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "text", "text": "I will."},
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                {
                    "type": "tool_use",
                    "id": "t",
                    "name": "f",
                    "input": {"b": 1, "a": [2.5]},
                    "caller": {"type": "direct"},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": "failed", "is_error": True},
                {"type": "text", "text": "go on", "cache_control": {"type": "ephemeral"}},
            ],
        },
    ],
    "tools": [
        {"name": "f", "description": "d", "input_schema": {"type": "object"}, "strict": True, "defer_loading": True},
        {"type": "web_search_20250305", "name": "web_search"},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "adaptive", "display": "summarized"},
    "output_config": {
        "effort": "high",
        "format": {"type": "json_schema", "schema": {"type": "object", "additionalProperties": False}},
        "task_budget": {"type": "tokens", "total": 9},
    },
    "stop_sequences": ["END"],
    "metadata": {"user_id": "x" * 100, "more": 1},
    "context_management": {"edits": []},
}


def test_what_is_read_is_written_again_as_it_was() -> None:
    losses: list[Any] = []
    target = Target(Upstream("up", "anthropic", "https://up.test", dialects=frozenset()), "claude-test")
    assert json.loads(body_of(parse_request(FULL), target, losses)) == FULL
    assert losses == []


def test_reasoning_of_another_vendor_finds_its_way_back() -> None:
    extra = {"gemini": {"thoughtSignature": "abc"}}
    label = label_of("gemini", "sig", extra)
    assert parts({"type": "thinking", "thinking": "hm", "signature": label}, role="assistant") == [
        Thinking("hm", "sig", dialect="gemini", extra=extra)
    ]
    hidden = label_of("other", "data", None)
    assert parts({"type": "redacted_thinking", "data": hidden}, role="assistant") == [
        Thinking("", "data", redacted=True, dialect="other")
    ]


@pytest.mark.parametrize("label", ["relay:", "relay:!!!", "relay:e30=", "relay:WzFd", "relay:\u00e9"])
def test_a_label_that_cannot_be_read_belongs_to_nobody(label: str) -> None:
    block = {"type": "thinking", "thinking": "hm", "signature": label}
    assert parts(block, role="assistant") == [Thinking("hm", None, dialect=None)]


def test_the_functions_are_found_with_the_path_of_their_schema() -> None:
    dialect = AnthropicMessages()
    body = {**BASE, "tools": [{"type": "bash_20250124", "name": "bash"}, {"name": "f", "input_schema": {}}]}
    head = dialect.peek(json.dumps(body).encode(), "generate", {}, {})
    assert dialect.tools(head) == [("tools[1].input_schema", Tool("f", None, {}))]
    assert head.has_tools
