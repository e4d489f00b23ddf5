"""Requests in the form of Converse, and what they lose on their way into it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

import relay_bedrock
from relay import Target, Upstream
from relay.errors import BadParameter, Unsupported
from relay.ir import (
    Cache,
    Citation,
    Loss,
    Media,
    Message,
    Opaque,
    Output,
    Part,
    Reasoning,
    Refusal,
    Request,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)

CLAUDE = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
NEWEST = "global.anthropic.claude-opus-5-1"
HAIKU_3 = "anthropic.claude-3-haiku-20240307-v1:0"
NOVA_2 = "us.amazon.nova-2-lite-v1:0"
NOVA = "amazon.nova-lite-v1:0"
R1 = "us.deepseek.r1-v1:0"
OSS = "openai.gpt-oss-120b-1:0"
MISTRAL = "mistral.mistral-large-2407-v1:0"
LLAMA = "us.meta.llama4-maverick-17b-instruct-v1:0"
TURN = Message("user", [Text("Hi")])
PNG = "iVBORw0KGgo="
OWN, THEIRS = "bedrock-converse", "anthropic-messages"


def sent(request: Request, model: str = CLAUDE, **options: Any) -> tuple[dict[str, Any], list[str]]:
    """The body, and the ids of what was lost."""
    found: list[Loss] = []
    target = Target(Upstream("b", "bedrock", "https://x.test", options=options), model)
    body = json.loads(relay_bedrock.translate_request(request=request, target=target, losses=found))
    assert all(loss.kind is not None for loss in found)
    return body, [loss.kind.id for loss in found if loss.kind is not None]


def asked(*messages: Message, **fields: Any) -> Request:
    return Request("m", [*messages] or [TURN], **fields)


def turns(*parts: Part, model: str = CLAUDE) -> tuple[list[dict[str, Any]], list[str]]:
    """The blocks of an assistant's turn of these parts."""
    body, lost = sent(asked(TURN, Message("assistant", [*parts]), TURN), model)
    return body["messages"][1]["content"], lost


def user(*parts: Part, model: str = CLAUDE) -> tuple[list[dict[str, Any]], list[str]]:
    body, lost = sent(asked(Message("user", [*parts])), model)
    return body["messages"][0]["content"], lost


# Messages.


def test_a_plain_request_is_plain() -> None:
    request = asked(
        Message("system", [Text("Be brief.")]),
        TURN,
        Message("assistant", [Text("Yes?")]),
        TURN,
        sampling=Sampling(max_tokens=9, temperature=0.5, stop=["END"]),
        user="ann@example.com",
        stream=True,
    )
    assert sent(request) == (
        {
            "system": [{"text": "Be brief."}],
            "messages": [
                {"role": "user", "content": [{"text": "Hi"}]},
                {"role": "assistant", "content": [{"text": "Yes?"}]},
                {"role": "user", "content": [{"text": "Hi"}]},
            ],
            "inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "stopSequences": ["END"]},
            "requestMetadata": {"user": "ann@example.com"},
        },
        [],
    )


def test_turns_alternate_and_hold_something() -> None:
    request = asked(TURN, Message("user", [Text(" "), Text("there")]), Message("assistant", [Text("")]), TURN)
    assert sent(request)[0]["messages"] == [
        {"role": "user", "content": [{"text": "Hi"}, {"text": "there"}, {"text": "Hi"}]}
    ]


def test_nothing_to_answer_is_refused() -> None:
    with pytest.raises(Unsupported, match="every message is empty"):
        sent(asked(Message("user", [Text(" ")])))


def test_system_messages_alone_are_the_prompt() -> None:
    body, lost = sent(asked(Message("system", [Text("One.")]), Message("system", [Text("Go.")])))
    assert body == {"system": [{"text": "One."}], "messages": [{"role": "user", "content": [{"text": "Go."}]}]}
    assert lost == ["messages.lone_system"]


def test_system_messages_between_turns_are_user_text_unless_they_can_be_native() -> None:
    request = asked(TURN, Message("assistant", [Text("Yes?")]), Message("system", [Text("Be brief.")]))
    body, lost = sent(request)
    assert (body["messages"][-1]["role"], lost) == ("user", ["messages.late_system"])
    body, lost = sent(request, system_messages="native")
    assert (body["messages"][-1]["role"], lost) == ("system", [])


def test_an_answer_to_continue_has_no_blank_end() -> None:
    body, _ = sent(asked(TURN, Message("assistant", [Text("So, \n")])))
    assert body["messages"][-1]["content"] == [{"text": "So,"}]


def test_what_a_system_message_cannot_hold_is_told() -> None:
    body, lost = sent(asked(Message("system", [Text("A"), Media("image", data=PNG)]), TURN))
    assert (body["system"], lost) == ([{"text": "A"}], ["messages.system"])


def test_names_refusals_and_citations() -> None:
    cited = Text("So.", citations=[Citation("https://a.test")])
    body, lost = sent(
        asked(Message("user", [Text("Hi")], name="ann"), Message("assistant", [cited, Refusal("No.")]), TURN)
    )
    assert body["messages"][1]["content"] == [{"text": "So."}, {"text": "No."}]
    assert lost == ["messages.name", "messages.citations"]


# Reasoning that comes back.


def reasoning(text: str, signature: str | None = None) -> dict[str, Any]:
    shown = {"text": text} if signature is None else {"text": text, "signature": signature}
    return {"reasoningContent": {"reasoningText": shown}}


SAID = {"text": "So."}


@pytest.mark.parametrize(
    ("model", "thought", "blocks", "lost"),
    [
        (CLAUDE, Thinking("Hm.", "sig", dialect=THEIRS), [reasoning("Hm.", "sig")], []),
        (CLAUDE, Thinking("Hm.", dialect=THEIRS), [], ["messages.unsigned"]),
        (CLAUDE, Thinking("Hm.", "sig", dialect="gemini"), [], ["messages.thinking"]),
        (
            CLAUDE,
            Thinking("", "QUJD", redacted=True, dialect=OWN),
            [{"reasoningContent": {"redactedContent": "QUJD"}}],
            [],
        ),
        # What the vendor itself hides has another form.
        (CLAUDE, Thinking("", "QUJD", redacted=True, dialect=THEIRS), [], ["messages.thinking"]),
        (NOVA, Thinking("Hm.", "sig", dialect=THEIRS), [], ["messages.thinking"]),
        (NOVA, Thinking("", "QUJD", redacted=True, dialect=OWN), [], ["messages.thinking"]),
        (NOVA_2, Thinking("Hm.", dialect=OWN), [], ["messages.replay"]),
        (R1, Thinking("Hm.", dialect=OWN), [reasoning("Hm.")], []),
    ],
)
def test_reasoning_goes_back_only_where_it_came_from(
    model: str, thought: Thinking, blocks: list[Any], lost: list[str]
) -> None:
    assert turns(thought, Text("So."), model=model) == ([*blocks, SAID], lost)


def test_a_turn_of_nothing_but_reasoning_is_left_out() -> None:
    body, _ = sent(asked(TURN, Message("assistant", [Thinking("Hm.", "sig", dialect=THEIRS)]), TURN))
    assert body["messages"] == [{"role": "user", "content": [{"text": "Hi"}, {"text": "Hi"}]}]


# Media.


def test_a_picture_has_the_type_that_it_shows() -> None:
    picture = Media("image", "image/jpeg", data=PNG, detail="low")
    assert user(Text("What?"), picture) == (
        [{"text": "What?"}, {"image": {"format": "png", "source": {"bytes": PNG}}}],
        ["messages.detail"],
    )
    assert user(Media("image", url=f"data:image/webp;base64,{PNG}"))[0][0]["image"]["format"] == "png"
    assert user(Media("image", "image/webp", data="AAAA"))[0][0]["image"]["format"] == "webp"
    assert user(Media("image", data="AAAA"))[0][0]["image"]["format"] == "png"


def test_documents_have_names_that_are_allowed_and_differ() -> None:
    plain = Media("document", "text/plain; charset=utf-8", data="SGk=", name="Plan (1)")
    blocks, lost = user(
        plain,
        Media("document", "application/pdf", data="JVBERi0=", name="plan_v1.pdf"),
        Media("document", data="JVBERi0="),
        Media("document", data="JVBERi0="),
        Media("document", "text/x-python", data="SGk=", name="Plan (1)"),
    )
    shown = [(block["document"]["format"], block["document"]["name"]) for block in blocks]
    assert shown == [
        ("txt", "Plan (1)"),
        ("pdf", "plan v1 pdf"),
        ("pdf", "document"),
        ("pdf", "document 2"),
        ("txt", "Plan (1) 2"),
    ]
    assert lost == ["messages.document_name"]


def test_sound_and_video_have_the_vendors_words() -> None:
    blocks, lost = user(
        Media("video", "video/3gpp", data="AAAA"),
        Media("video", "video/mp4", url="s3://bucket/clip.mp4"),
        Media("audio", "audio/mpeg", data="AAAA"),
        Media("image", url="s3://bucket/a.jpeg"),
    )
    assert blocks == [
        {"video": {"format": "three_gp", "source": {"bytes": "AAAA"}}},
        {"video": {"format": "mp4", "source": {"s3Location": {"uri": "s3://bucket/clip.mp4"}}}},
        {"audio": {"format": "mp3", "source": {"bytes": "AAAA"}}},
        {"image": {"format": "jpeg", "source": {"s3Location": {"uri": "s3://bucket/a.jpeg"}}}},
    ]
    assert not lost


@pytest.mark.parametrize(
    ("part", "kind", "words"),
    [
        (Media("image", url="https://a.test/b.png"), Unsupported, "fetches nothing from the web"),
        (Media("document", file_id="file-1"), Unsupported, "lives at another vendor"),
        (Media("image", "image/tiff", data="AAAA"), Unsupported, "no image of the type image/tiff"),
        (Media("document", "application/zip", data="AAAA"), Unsupported, "no document of the type application/zip"),
        (Media("image", url="data:nonsense"), BadParameter, "data: URL"),
    ],
)
def test_media_that_cannot_be_sent_are_refused_with_their_place(part: Media, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        user(part)
    assert getattr(caught.value, "param", None) == "messages[0].content"


# Tools.

LOOK = Tool("look", "Look.", {"properties": {"at": {"type": "string"}}}, strict=True)
SPEC = {
    "toolSpec": {
        "name": "look",
        "description": "Look.",
        "inputSchema": {"json": {"type": "object", "properties": {"at": {"type": "string"}}}},
        "strict": True,
    }
}
CALLED = Message("assistant", [Thinking("Hm.", "sig", dialect=THEIRS), ToolCall("c.1", "look", '{"at": "x"}')])


def test_calls_and_results_find_each_other() -> None:
    odd = "call|" + "9" * 90
    request = asked(
        TURN,
        Message("assistant", [ToolCall("c.1", "look", '{"at":1.50}'), ToolCall(odd, "look", "?")]),
        Message(
            "user", [Text("Go on."), ToolResult("c.1", [Text("blue")]), ToolResult(odd, [Text("")], is_error=True)]
        ),
        tools=[LOOK],
    )
    body, lost = sent(request)
    first, second = (block["toolUse"] for block in body["messages"][1]["content"])
    one, two, text = body["messages"][2]["content"]
    assert first == {"toolUseId": "c.1", "name": "look", "input": {"at": 1.5}}
    assert second["input"] == {"arguments": "?"}
    assert one == {"toolResult": {"toolUseId": "c.1", "content": [{"text": "blue"}]}}
    assert two == {
        "toolResult": {
            "toolUseId": second["toolUseId"],
            "content": [{"json": {"output": ""}}],
            "status": "error",
        }
    }
    assert text == {"text": "Go on."}
    assert len(second["toolUseId"]) <= 64
    assert lost == ["messages.arguments"]


def test_results_hold_media_and_tell_of_the_rest() -> None:
    result = ToolResult(
        "c.1",
        [
            Media("image", data=PNG),
            Media("document", "text/csv", data="YTti", name="a"),
            Media("audio", "audio/wav", data="AAAA"),
            Opaque("gemini", {"x": 1}),
        ],
    )
    body, lost = sent(asked(TURN, CALLED, Message("user", [result]), tools=[LOOK]))
    content = body["messages"][2]["content"][0]["toolResult"]["content"]
    assert [next(iter(block)) for block in content] == ["image", "document"]
    assert lost == ["messages.result"]


@pytest.mark.parametrize(("text", "value"), [('{"a": 1}', {"a": 1}), ("blue", {"output": "blue"})])
def test_models_that_insist_on_json_get_it(text: str, value: Any) -> None:
    request = asked(TURN, CALLED, Message("user", [ToolResult("c.1", [Text(text)])]), tools=[LOOK])
    body, _ = sent(request, MISTRAL)
    assert body["messages"][2]["content"][0]["toolResult"]["content"] == [{"json": value}]


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        (None, None),
        (ToolChoice("auto"), None),
        (ToolChoice("required"), {"any": {}}),
        (ToolChoice("tool", "look"), {"tool": {"name": "look"}}),
    ],
)
def test_the_choice_of_a_tool(choice: ToolChoice | None, wire: Any) -> None:
    body, lost = sent(asked(tools=[LOOK], tool_choice=choice))
    assert body["toolConfig"] == {"tools": [SPEC]} | ({} if wire is None else {"toolChoice": wire})
    assert not lost


def test_no_choice_is_no_tools_unless_some_were_used() -> None:
    body, lost = sent(asked(tools=[LOOK], tool_choice=ToolChoice("none")))
    assert ("toolConfig" in body, lost) == (False, [])
    answered = asked(TURN, CALLED, Message("user", [ToolResult("c.1", [Text("blue")])]))
    answered.tools, answered.tool_choice = [LOOK], ToolChoice("none")
    body, lost = sent(answered)
    assert (body["toolConfig"], lost) == ({"tools": [SPEC]}, ["tools.none"])


def test_tools_that_were_used_are_named_where_the_request_has_none() -> None:
    body, lost = sent(asked(TURN, CALLED, Message("user", [ToolResult("c.1", [Text("blue")])])))
    bare = {"name": "look", "inputSchema": {"json": {"type": "object", "properties": {}}}}
    assert (body["toolConfig"], lost) == ({"tools": [{"toolSpec": bare}]}, ["tools.bare"])


def test_a_call_cannot_be_required_without_tools() -> None:
    with pytest.raises(Unsupported, match="no tools"):
        sent(asked(tool_choice=ToolChoice("required")))


@pytest.mark.parametrize(
    ("model", "choice", "own", "lost"),
    [
        (CLAUDE, None, {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, []),
        (CLAUDE, ToolChoice("required"), None, ["tools.parallel"]),
        (HAIKU_3, None, None, ["tools.parallel"]),
        (NOVA, None, None, ["tools.parallel"]),
    ],
)
def test_one_call_at_a_time_where_that_can_be_said(
    model: str, choice: ToolChoice | None, own: Any, lost: list[str]
) -> None:
    body, found = sent(asked(tools=[LOOK], tool_choice=choice, parallel_tools=False), model)
    assert (body.get("additionalModelRequestFields"), found) == (own, lost)


def test_tools_of_other_vendors_are_told() -> None:
    body, lost = sent(asked(tools=[Opaque("openai-chat", {"type": "web_search"}), LOOK]))
    assert (body["toolConfig"]["tools"], lost) == ([SPEC], ["tools.type"])


def test_calls_that_ran_elsewhere_and_blocks_of_others_are_told() -> None:
    blocks, lost = turns(ToolCall("1", "search", "{}", server=True), Opaque("gemini", {"x": 1}), Text("So."))
    assert (blocks, lost) == ([SAID], ["messages.server_call", "messages.block"])
    assert turns(Opaque(OWN, {"guardContent": {"text": {"text": "x"}}}))[0] == [
        {"guardContent": {"text": {"text": "x"}}}
    ]


# Cache markers.

POINT = {"cachePoint": {"type": "default"}}
HOUR = {"cachePoint": {"type": "default", "ttl": "1h"}}


@pytest.mark.parametrize(
    ("model", "ttl", "options", "point", "tool_point", "lost"),
    [
        (CLAUDE, None, {}, [POINT], [POINT], []),
        (CLAUDE, "1h", {}, [HOUR], [HOUR], []),
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", "1h", {}, [POINT], [POINT], ["cache"]),
        (NOVA, "5m", {}, [POINT], [], ["cache"]),
        (HAIKU_3, None, {}, [], [], ["cache"]),
        (LLAMA, None, {}, [], [], ["cache"]),
        (LLAMA, None, {"cache": True}, [POINT], [], ["cache"]),
        (CLAUDE, None, {"cache": False}, [], [], ["cache"]),
    ],
)
def test_markers_stand_behind_what_they_mark_where_the_model_knows_them(
    model: str, ttl: str | None, options: Any, point: list[Any], tool_point: list[Any], lost: list[str]
) -> None:
    cache = Cache(ttl)
    request = asked(
        Message("system", [Text("S", cache=cache)]),
        Message("user", [Text("Hi", cache=cache), Text("there")]),
        tools=[Tool("look", cache=cache)],
    )
    body, found = sent(request, model, **options)
    assert body["system"] == [{"text": "S"}, *point]
    assert body["messages"][0]["content"] == [{"text": "Hi"}, *point, {"text": "there"}]
    assert body["toolConfig"]["tools"][1:] == tool_point
    assert found == lost


# The form of the answer, sampling.


def test_an_answer_by_a_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "object"}}}
    body, lost = sent(asked(output=Output("schema", schema, name="place", description="A place.")))
    form = body["outputConfig"]["textFormat"]
    inner = form["structure"]["jsonSchema"]
    assert (form["type"], inner["name"], inner["description"], lost) == ("json_schema", "place", "A place.", [])
    closed = {"type": "object", "additionalProperties": False}
    assert json.loads(inner["schema"]) == {**closed, "properties": {"a": closed}}
    assert sent(asked(output=Output("json")))[1] == ["output.json"]
    assert sent(asked(output=Output("text")))[0].keys() == {"messages"}


@pytest.mark.parametrize(
    ("model", "sampling", "config", "own", "lost"),
    [
        (CLAUDE, Sampling(temperature=1.5), None, None, ["sampling.temperature"]),
        (NOVA, Sampling(temperature=1.5), {"temperature": 1}, None, ["sampling.temperature"]),
        (CLAUDE, Sampling(temperature=0.2, top_p=0.5), {"temperature": 0.2}, None, ["sampling.top_p"]),
        (NOVA, Sampling(temperature=0.2, top_p=0.5), {"temperature": 0.2, "topP": 0.5}, None, []),
        (CLAUDE, Sampling(top_k=5), None, {"top_k": 5}, []),
        (NOVA, Sampling(top_k=5), None, {"inferenceConfig": {"topK": 5}}, []),
        (LLAMA, Sampling(top_k=5), None, None, ["sampling.unknown_top_k"]),
        (NEWEST, Sampling(temperature=0.2, top_k=5), None, None, ["sampling.none", "sampling.no_top_k"]),
        (CLAUDE, Sampling(stop=["\n"]), None, None, ["sampling.stop"]),
        (NOVA, Sampling(stop=["\n", ""]), {"stopSequences": ["\n"]}, None, ["sampling.stop"]),
        (
            NOVA,
            Sampling(seed=0, logprobs=False, frequency_penalty=0, presence_penalty=0.5),
            None,
            None,
            ["sampling.seed", "sampling.presence_penalty"],
        ),
    ],
)
def test_sampling(model: str, sampling: Sampling, config: Any, own: Any, lost: list[str]) -> None:
    body, found = sent(asked(sampling=sampling), model)
    assert body.get("inferenceConfig") == config
    assert body.get("additionalModelRequestFields") == own
    assert found == lost


def test_several_choices_are_refused() -> None:
    with pytest.raises(Unsupported, match="one choice"):
        sent(asked(sampling=Sampling(choices=2)))


# Reasoning.


@pytest.mark.parametrize(
    ("model", "wanted", "own", "lost"),
    [
        (CLAUDE, Reasoning(budget=2000), {"thinking": {"type": "enabled", "budget_tokens": 2000}}, []),
        (CLAUDE, Reasoning(effort="none"), {"thinking": {"type": "disabled"}}, []),
        (
            NEWEST,
            Reasoning(effort="high"),
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}},
            [],
        ),
        (HAIKU_3, Reasoning(effort="high"), None, ["reasoning.none"]),
        ("anthropic.claude-v2:1", Reasoning(effort="high"), None, ["reasoning.none"]),
        (NOVA_2, Reasoning(effort="low"), {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}, []),
        (
            NOVA_2,
            Reasoning(budget=20_000),
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}},
            ["reasoning.budget"],
        ),
        (NOVA_2, Reasoning(enabled=False), {"reasoningConfig": {"type": "disabled"}}, []),
        (NOVA_2, Reasoning(enabled=True), {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}, []),
        (NOVA, Reasoning(effort="low"), None, ["reasoning.none"]),
        (OSS, Reasoning(effort="minimal"), {"reasoning_effort": "low"}, ["reasoning.effort"]),
        (OSS, Reasoning(effort="off"), None, ["reasoning.off"]),
        ("qwen.qwen3-32b-v1:0", Reasoning(effort="high"), {"reasoning_config": "high"}, []),
        (R1, Reasoning(summary="auto"), None, []),
    ],
)
def test_how_much_a_model_thinks_is_said_in_its_own_words(
    model: str, wanted: Reasoning, own: Any, lost: list[str]
) -> None:
    body, found = sent(asked(reasoning=wanted), model)
    assert (body.get("additionalModelRequestFields"), found) == (own, lost)


def test_claude_does_not_think_when_it_is_forced_to_call() -> None:
    request = asked(tools=[LOOK], tool_choice=ToolChoice("required"), reasoning=Reasoning(effort="high"))
    body, lost = sent(request)
    assert ("additionalModelRequestFields" in body, lost) == (False, ["reasoning.forced"])
    request.tool_choice = None
    body, lost = sent(request)
    assert (body["additionalModelRequestFields"]["thinking"]["type"], lost) == ("enabled", [])


def test_what_cannot_be_set_while_claude_thinks_is_told() -> None:
    sampling = Sampling(temperature=0.2, top_k=5)
    body, lost = sent(asked(sampling=sampling, reasoning=Reasoning(budget=2000)))
    assert (body.get("inferenceConfig"), lost) == (None, ["sampling.thinking", "sampling.top_k"])


# The upstream's own settings.


def test_options_are_added_to_each_request() -> None:
    body, lost = sent(
        asked(),
        guardrail={"id": "g-1", "version": "DRAFT", "trace": "enabled"},
        latency="optimized",
        service_tier="priority",
        fields={"anthropic_beta": ["context-1m"]},
    )
    assert body == {
        "messages": [{"role": "user", "content": [{"text": "Hi"}]}],
        "guardrailConfig": {"guardrailIdentifier": "g-1", "guardrailVersion": "DRAFT", "trace": "enabled"},
        "performanceConfig": {"latency": "optimized"},
        "serviceTier": {"type": "priority"},
        "additionalModelRequestFields": {"anthropic_beta": ["context-1m"]},
    }
    assert not lost


def test_the_model_behind_a_profile_can_be_named() -> None:
    arn = "arn:aws:bedrock:us-east-1:1:application-inference-profile/1arbu5hu2sjr"
    request = asked(reasoning=Reasoning(budget=2000))
    assert sent(request, arn)[1] == ["reasoning.none"]
    body, lost = sent(request, arn, profiles={arn: CLAUDE})
    assert (body["additionalModelRequestFields"]["thinking"]["budget_tokens"], lost) == (2000, [])
    named = "arn:aws:bedrock:us-east-1:1:inference-profile/" + CLAUDE
    assert sent(request, named)[1] == []


def test_labels_that_are_not_accepted_and_fields_of_others_are_told() -> None:
    body, lost = sent(asked(user="ann\u00e4", extra={"openai-chat": {"logit_bias": {"1": 2}}}))
    assert ("requestMetadata" in body, lost) == (False, ["user", "foreign.field"])


def test_the_question_for_a_count_has_only_what_is_counted() -> None:
    request = asked(
        Message("system", [Text("S")]),
        TURN,
        tools=[LOOK],
        sampling=Sampling(max_tokens=9000),
        reasoning=Reasoning(budget=2000),
        user="ann",
    )
    target = Target(Upstream("b", "bedrock", "https://x.test"), CLAUDE)
    body = json.loads(relay_bedrock.count_request(request=request, target=target))
    assert body["input"]["converse"].keys() == {"messages", "system", "toolConfig", "additionalModelRequestFields"}
    assert relay_bedrock.count_response(body=b'{"inputTokens": 12}') == 12


def test_a_long_name_of_a_document_is_cut() -> None:
    document = Media("document", "text/plain", data=base64.b64encode(b"x").decode(), name="n" * 300)
    blocks, lost = user(document, document)
    assert all(len(block["document"]["name"]) <= 200 for block in blocks)
    assert blocks[0] != blocks[1]
    assert lost == ["messages.document_name"]
