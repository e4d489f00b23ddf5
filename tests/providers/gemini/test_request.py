"""What a hub request becomes in the Gemini API."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

import relay_gemini
from relay import Target, Upstream
from relay.errors import BadParameter, Unsupported
from relay.ir import (
    Cache,
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

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\nrest of the picture").decode()
SIGNED = {"gemini": {"thoughtSignature": "c2ln"}}


def send(request: Request, model: str = "gemini-2.5-flash", **options: Any) -> tuple[dict[str, Any], list[Loss]]:
    upstream = Upstream("g", "gemini", "https://upstream.test", options=options)
    losses: list[Loss] = []
    body = relay_gemini.translate_request(request=request, target=Target(upstream, model), losses=losses)
    value = json.loads(body)
    assert isinstance(value, dict)
    return value, losses


def user(*parts: Part | str) -> Message:
    return Message("user", [Text(part) if isinstance(part, str) else part for part in parts])


def assistant(*parts: Part | str) -> Message:
    return Message("assistant", [Text(part) if isinstance(part, str) else part for part in parts])


def system(*parts: Part | str) -> Message:
    return Message("system", [Text(part) if isinstance(part, str) else part for part in parts])


def ask(**fields: Any) -> Request:
    return Request(model="public-name", messages=[user("hi")], **fields)


def fields_of(losses: list[Loss]) -> list[str]:
    return [loss.field for loss in losses]


def test_a_plain_question_is_small() -> None:
    body, losses = send(ask(stream=True, user="u-1"))
    assert body == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    assert losses == []


def test_leading_system_messages_become_the_system_instruction() -> None:
    body, losses = send(Request("m", [system(Text("one", cache=Cache())), system("two"), user("hi")]))
    assert body["systemInstruction"] == {"parts": [{"text": "one"}, {"text": "two"}]}
    assert losses == []


def test_pictures_in_a_system_message_are_reported() -> None:
    _, losses = send(Request("m", [system("one", Media("image", data=PNG)), user("hi")]))
    assert fields_of(losses) == ["messages[0].content"]


def test_a_late_system_message_keeps_its_place() -> None:
    body, losses = send(Request("m", [user("a"), assistant("b"), system("from now on"), user("c")]))
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    assert body["contents"][2]["parts"] == [{"text": "from now on"}, {"text": "c"}]
    assert fields_of(losses) == ["messages[2].role"]


def test_a_prompt_of_system_messages_alone_still_asks() -> None:
    body, losses = send(Request("m", [system("be brief"), system("write a poem")]))
    assert body["systemInstruction"] == {"parts": [{"text": "be brief"}]}
    assert body["contents"] == [{"role": "user", "parts": [{"text": "write a poem"}]}]
    assert fields_of(losses) == ["messages[1].role"]


def test_an_empty_conversation_is_refused() -> None:
    with pytest.raises(Unsupported) as caught:
        send(Request("m", [user("")]))
    assert caught.value.param == "messages"


def test_results_follow_their_calls_and_name_the_function() -> None:
    request = Request(
        "m",
        [
            user("weather?"),
            assistant("Let me look.", ToolCall("c1", "sun", '{"b": 1.0, "a": 2}'), ToolCall("c2", "rain", "")),
            user(ToolResult("c1", [Text("warm"), Text("dry")])),
            user("and quickly", ToolResult("c2", [Text("broken")], is_error=True)),
            assistant("ok"),
        ],
    )
    body, losses = send(request)
    assert body["contents"][1]["parts"] == [
        {"text": "Let me look."},
        {"functionCall": {"name": "sun", "args": {"b": 1.0, "a": 2}, "id": "c1"}},
        {"functionCall": {"name": "rain", "args": {}, "id": "c2"}},
    ]
    assert body["contents"][2]["parts"] == [
        {"functionResponse": {"name": "sun", "response": {"output": "warm\ndry"}, "id": "c1"}},
        {"functionResponse": {"name": "rain", "response": {"error": "broken"}, "id": "c2"}},
        {"text": "and quickly"},
    ]
    assert losses == []


@pytest.mark.parametrize(
    ("text", "response"),
    [
        ('{"degrees": 21.0}', {"degrees": 21.0}),
        ("[1, 2]", {"output": "[1, 2]"}),
        ('{"cut": ', {"output": '{"cut": '}),
        ("", {"output": ""}),
    ],
)
def test_a_result_that_is_an_object_is_sent_as_one(text: str, response: Any) -> None:
    turns = [user("x"), assistant(ToolCall("c", "f", "{}")), user(ToolResult("c", [Text(text)]))]
    body, _ = send(Request("m", turns))
    assert body["contents"][2]["parts"][0]["functionResponse"]["response"] == response


def test_a_result_without_its_call_needs_a_name() -> None:
    body, _ = send(Request("m", [user(ToolResult("c9", [Text("x")], name="given"))]))
    assert body["contents"][0]["parts"][0]["functionResponse"]["name"] == "given"
    with pytest.raises(BadParameter) as caught:
        send(Request("m", [user("a"), user(ToolResult("c9", [Text("x")]))]))
    assert caught.value.param == "messages[1].tool_call_id"


def test_pictures_of_a_result_stand_beside_it_or_in_it() -> None:
    turns = [user("x"), assistant(ToolCall("c", "f", "{}")), user(ToolResult("c", [Media("image", data=PNG)]))]
    picture = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    response = {"name": "f", "response": {"output": ""}, "id": "c"}
    older, _ = send(Request("m", turns), "gemini-2.5-pro")
    assert older["contents"][2]["parts"] == [{"functionResponse": response}, picture]
    newer, _ = send(Request("m", turns), "gemini-3-flash-preview")
    assert newer["contents"][2]["parts"] == [{"functionResponse": {**response, "parts": [picture]}}]


def test_broken_arguments_are_wrapped_and_reported() -> None:
    body, losses = send(Request("m", [user("x"), assistant(ToolCall("c1", "get", '{"cut'))]))
    assert body["contents"][1]["parts"][0]["functionCall"]["args"] == {"arguments": '{"cut'}
    assert fields_of(losses) == ["messages[1].tool_calls[].function.arguments"]


def test_signatures_return_to_the_part_they_came_on() -> None:
    request = Request(
        "m",
        [
            user("x"),
            assistant(
                Thinking("mine", dialect="gemini", extra=SIGNED),
                Thinking("foreign", signature="s", dialect="anthropic-messages"),
                Text("", extra=SIGNED),
                "",
                ToolCall("c1", "f", "{}", extra=SIGNED),
                Refusal("no"),
            ),
        ],
    )
    body, losses = send(request)
    assert body["contents"][1]["parts"] == [
        {"text": "mine", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "", "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "f", "args": {}, "id": "c1"}, "thoughtSignature": "c2ln"},
        {"text": "no"},
    ]
    assert fields_of(losses) == ["messages[1].reasoning_content"]


def test_newer_models_get_a_stand_in_for_a_signature_that_never_was() -> None:
    turns = [user("x"), assistant(ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}"))]
    parts = send(Request("m", turns), "gemini-3.1-pro-preview")[0]["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["skip_thought_signature_validator", None]
    turns[1].parts[0].extra = SIGNED
    parts = send(Request("m", turns), "gemini-3.1-pro-preview")[0]["contents"][1]["parts"]
    assert [part.get("thoughtSignature") for part in parts] == ["c2ln", None]
    assert "skip_thought" not in json.dumps(send(Request("m", [user("x"), assistant("y")]), "gemini-3-pro")[0])


def test_unknown_parts_return_to_their_own_dialect_only() -> None:
    code = {"executableCode": {"language": "PYTHON", "code": "1"}, "thoughtSignature": "c2ln"}
    request = Request(
        "m",
        [
            user("x"),
            assistant(
                Opaque("gemini", code),
                Opaque("anthropic-messages", {"type": "x"}),
                ToolCall("s", "search", "{}", server=True),
            ),
        ],
    )
    body, losses = send(request)
    assert body["contents"][1]["parts"] == [code]
    assert fields_of(losses) == ["messages[1].content", "messages[1].tool_calls"]


@pytest.mark.parametrize(
    ("media", "part"),
    [
        (Media("image", "image/jpeg", data=PNG), {"inlineData": {"mimeType": "image/png", "data": PNG}}),
        (Media("image", data="AAAA"), {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),
        (
            Media("image", url="data:image/webp;base64,AAAA"),
            {"inlineData": {"mimeType": "image/webp", "data": "AAAA"}},
        ),
        (Media("audio", "audio/mp3", data="AAAA"), {"inlineData": {"mimeType": "audio/mp3", "data": "AAAA"}}),
        (Media("document", data="AAAA"), {"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}}),
        (
            Media("image", url="https://p.test/a.png?x=1"),
            {"fileData": {"fileUri": "https://p.test/a.png?x=1", "mimeType": "image/png"}},
        ),
        (Media("video", url="https://youtu.be/abc"), {"fileData": {"fileUri": "https://youtu.be/abc"}}),
        (
            Media("document", file_id="files/abc"),
            {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
        ),
        (
            Media("video", "video/mp4", file_id="gs://b/f.mp4", extra={"gemini": {"videoMetadata": {"fps": 1}}}),
            {"fileData": {"fileUri": "gs://b/f.mp4", "mimeType": "video/mp4"}, "videoMetadata": {"fps": 1}},
        ),
    ],
)
def test_media_are_sent_inline_or_by_reference(media: Media, part: dict[str, Any]) -> None:
    body, losses = send(Request("m", [user(media)]))
    assert body["contents"][0]["parts"] == [part]
    assert losses == []


def test_files_of_another_vendor_are_refused() -> None:
    with pytest.raises(Unsupported) as caught:
        send(Request("m", [user(Media("document", file_id="file-abc"))]))
    assert caught.value.param == "messages[0].content"


def test_a_broken_data_url_is_the_callers_fault() -> None:
    with pytest.raises(BadParameter):
        send(Request("m", [user(Media("image", url="data:image/png;base64,***"))]))


@pytest.mark.parametrize(
    ("details", "expected", "lost"),
    [
        (["low", "low"], "MEDIA_RESOLUTION_LOW", 0),
        (["high"], "MEDIA_RESOLUTION_HIGH", 0),
        (["auto", None], None, 0),
        (["low", "high"], None, 1),
        (["original"], None, 1),
    ],
)
def test_image_detail_holds_for_all_or_is_reported(details: list[str | None], expected: str | None, lost: int) -> None:
    media = [Media("image", data=PNG, detail=detail) for detail in details]
    body, losses = send(Request("m", [user(*media)]))
    assert body.get("generationConfig", {}).get("mediaResolution") == expected
    assert len(losses) == lost


def test_tools_keep_their_whole_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"type": ["string", "null"]}},
    }
    body, losses = send(
        ask(
            tools=[
                Tool("one", "does one", schema),
                Opaque("gemini", {"googleSearch": {}}),
                Tool("two"),
                Opaque("openai-responses", {"type": "file_search"}),
            ]
        )
    )
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {"name": "one", "description": "does one", "parametersJsonSchema": schema},
                {"name": "two"},
            ]
        },
        {"googleSearch": {}},
    ]
    assert losses == [Loss("tools[3]", "a tool of type 'file_search' exists only in openai-responses")]


@pytest.mark.parametrize(
    ("choice", "strict", "expected"),
    [
        (None, None, None),
        (None, True, {"mode": "VALIDATED"}),
        (ToolChoice("auto"), None, {"mode": "AUTO"}),
        (ToolChoice("auto"), True, {"mode": "VALIDATED"}),
        (ToolChoice("none"), True, {"mode": "NONE"}),
        (ToolChoice("required"), None, {"mode": "ANY"}),
        (ToolChoice("tool", "one"), None, {"mode": "ANY", "allowedFunctionNames": ["one"]}),
    ],
)
def test_tool_choice_in_every_form(choice: ToolChoice | None, strict: bool | None, expected: Any) -> None:
    body, losses = send(ask(tools=[Tool("one", strict=strict)], tool_choice=choice))
    assert body.get("toolConfig", {}).get("functionCallingConfig") == expected
    assert losses == []


def test_calls_side_by_side_cannot_be_forbidden() -> None:
    assert fields_of(send(ask(tools=[Tool("one")], parallel_tools=False))[1]) == ["parallel_tool_calls"]
    assert send(ask(tools=[Tool("one")], parallel_tools=True))[1] == []


def test_a_required_call_without_tools_is_refused() -> None:
    with pytest.raises(Unsupported) as caught:
        send(ask(tool_choice=ToolChoice("required")))
    assert caught.value.param == "tool_choice"


def test_the_answers_form_is_sent() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert send(ask(output=Output("json")))[0]["generationConfig"] == {"responseMimeType": "application/json"}
    assert send(ask(output=Output("schema", schema, name="n")))[0]["generationConfig"] == {
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
    }
    assert "generationConfig" not in send(ask(output=Output("text")))[0]


@pytest.mark.parametrize(
    ("model", "reasoning", "expected", "lost"),
    [
        ("gemini-3-flash", Reasoning(effort="medium"), {"includeThoughts": True, "thinkingLevel": "medium"}, []),
        ("gemini-3-flash", Reasoning(effort="none"), {"thinkingLevel": "minimal"}, ["reasoning_effort"]),
        (
            "gemini-3-flash",
            Reasoning(effort="xhigh"),
            {"includeThoughts": True, "thinkingLevel": "high"},
            ["reasoning_effort"],
        ),
        (
            "gemini-3-pro-preview",
            Reasoning(effort="medium"),
            {"includeThoughts": True, "thinkingLevel": "high"},
            ["reasoning_effort"],
        ),
        (
            "gemini-3.1-pro-preview",
            Reasoning(effort="minimal"),
            {"includeThoughts": True, "thinkingLevel": "low"},
            ["reasoning_effort"],
        ),
        ("gemini-9", Reasoning(budget=4096), {"includeThoughts": True, "thinkingBudget": 4096}, []),
        ("gemini-9", Reasoning(enabled=True), {"includeThoughts": True}, []),
        (
            "gemini-9",
            Reasoning(effort="low", summary="none"),
            {"includeThoughts": False, "thinkingLevel": "low"},
            [],
        ),
        ("gemini-2.5-flash", Reasoning(effort="high"), {"includeThoughts": True, "thinkingBudget": 24_576}, []),
        ("gemini-2.5-flash", Reasoning(effort="none"), {"thinkingBudget": 0}, []),
        ("gemini-2.5-flash", Reasoning(enabled=False), {"thinkingBudget": 0}, []),
        ("gemini-2.5-flash", Reasoning(enabled=True), {"includeThoughts": True, "thinkingBudget": -1}, []),
        (
            "gemini-2.5-flash-lite",
            Reasoning(budget=100),
            {"includeThoughts": True, "thinkingBudget": 512},
            ["reasoning.max_tokens"],
        ),
        ("gemini-2.5-pro", Reasoning(effort="none"), {"thinkingBudget": 128}, ["reasoning_effort"]),
        ("gemini-2.5-pro", Reasoning(effort="max"), {"includeThoughts": True, "thinkingBudget": 32_768}, []),
        ("gemini-2.0-flash", Reasoning(effort="high"), None, ["reasoning_effort"]),
        ("gemma-3-27b", Reasoning(effort="none"), None, []),
        ("gemini-2.5-flash", Reasoning(summary="auto"), None, []),
        ("gemini-2.5-flash", None, None, []),
    ],
)
def test_reasoning_by_generation(model: str, reasoning: Reasoning | None, expected: Any, lost: list[str]) -> None:
    body, losses = send(ask(reasoning=reasoning), model)
    assert body.get("generationConfig", {}).get("thinkingConfig") == expected
    assert fields_of(losses) == lost


def test_an_option_overrules_the_models_name() -> None:
    body, _ = send(ask(reasoning=Reasoning(effort="low")), "my-model", thinking="budget")
    assert body["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 1024


def test_sampling_is_carried_in_full() -> None:
    sampling = Sampling(
        max_tokens=5,
        temperature=0.0,
        top_p=0.5,
        top_k=3,
        stop=["a", "b"],
        seed=7,
        choices=2,
        frequency_penalty=0.1,
        presence_penalty=-0.2,
        logprobs=True,
        top_logprobs=4,
    )
    body, losses = send(ask(sampling=sampling))
    assert body["generationConfig"] == {
        "maxOutputTokens": 5,
        "temperature": 0.0,
        "topP": 0.5,
        "topK": 3,
        "seed": 7,
        "candidateCount": 2,
        "frequencyPenalty": 0.1,
        "presencePenalty": -0.2,
        "stopSequences": ["a", "b"],
        "responseLogprobs": True,
        "logprobs": 4,
    }
    assert losses == []


def test_what_does_not_fit_is_cut_to_size() -> None:
    sampling = Sampling(stop=list("abcdef"), seed=2**40 + 5, logprobs=True, top_logprobs=0)
    body, losses = send(ask(sampling=sampling))
    assert body["generationConfig"] == {"seed": 5, "stopSequences": list("abcde"), "responseLogprobs": True}
    assert fields_of(losses) == ["stop"]


def test_fields_without_an_equivalent_are_reported() -> None:
    extra = {"openai-chat": {"logit_bias": {"5": 1}, "store": True, "metadata": {}}, "anthropic-messages": {"x": 1}}
    request = ask(extra=extra)
    request.messages[0].name = "bob"
    assert fields_of(send(request)[1]) == ["messages[].name", "logit_bias", "x"]


def test_the_dialects_own_fields_come_back() -> None:
    own = {"generationConfig": {"topK": 9, "speechConfig": {}}, "safetySettings": ["own"], "cachedContent": "c"}
    request = ask(sampling=Sampling(top_k=1, top_p=0.5), extra={"gemini": own})
    body, losses = send(request, safety_settings=["configured"])
    assert body["generationConfig"] == {"topK": 9, "topP": 0.5, "speechConfig": {}}
    assert body["safetySettings"] == ["own"]
    assert body["cachedContent"] == "c"
    assert losses == []
    assert send(ask(), safety_settings=["configured"])[0]["safetySettings"] == ["configured"]
