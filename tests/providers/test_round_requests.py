"""Any request that a dialect claims to carry survives being written for an upstream of it and read again.

Equal up to what the encoders say of themselves: null fields, defaults, and the fields that the relay adds.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from relay import Target, Upstream
from relay.ir import (
    Loss,
    Media,
    Message,
    Opaque,
    Output,
    Part,
    Reasoning,
    Refusal,
    Request,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
)
from relay_anthropic.caller import parse_request as parse_messages
from relay_anthropic.citation import citation_of as messages_citation
from relay_anthropic.request import body_of
from relay_openai.compose import compose_request as compose_chat
from relay_openai.custom import arguments_of, custom_tool
from relay_openai.request import parse_request as parse_chat
from relay_openai.responses.compose import compose_request as compose_responses
from relay_openai.responses.request import parse_request as parse_responses
from tests import hub
from tests.effort import times

ROUNDS = settings(max_examples=times(60), deadline=None)
CHAT, RESPONSES, MESSAGES = "openai-chat", "openai-responses", "anthropic-messages"
CUSTOM_CALL = {"type": "custom", "id": "ctc_1"}
EFFORTS = st.sampled_from(["low", "medium", "high"])


def target(family: str, dialect: str, model: str = "m", **options: Any) -> Target:
    return Target(Upstream("up", family, "https://up.test/v1", dialects=frozenset((dialect,)), options=options), model)


def choices_of(request: Request) -> st.SearchStrategy[ToolChoice | None]:
    names = [ToolChoice("tool", name) for name in request.tool_names()]
    return st.sampled_from([None, ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"), *names])


# Chat Completions.

CHAT_MEDIA = st.one_of(
    hub.media("image", "image/png", "image/jpeg", detail=st.sampled_from([None, "low", "high"]), cache=hub.CACHES),
    hub.linked("image", detail=st.sampled_from([None, "auto"])),
    hub.media("audio", "audio/wav", "audio/mpeg"),
    hub.media("document", "application/pdf", name=hub.NAMES),
    hub.linked("video"),
)


CHAT_OWN = st.builds(lambda at: Opaque(CHAT, {"type": "new_part", "at": at}), hub.COUNTS)
GRAMMAR = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: X"}}


def chat_custom(name: str, form: Any) -> Tool:
    own = {"type": "custom", "custom": {"name": name, **({"format": form} if form else {})}}
    return custom_tool(name, "", form, {CHAT: own})


CHAT_CUSTOMS = st.builds(chat_custom, st.just("patch"), st.sampled_from([None, {"type": "text"}]))


def chat_thought(text: str) -> Thinking:
    return Thinking(text, dialect=CHAT, extra={CHAT: {"reasoning_content": text}})


@st.composite
def chat_requests(draw: Any) -> Request:
    messages: list[Message] = []
    names = hub.maybe(hub.NAMES)
    if draw(st.booleans()):
        own = draw(st.sampled_from([None, {CHAT: {"role": "developer"}}]))
        messages.append(Message("system", [draw(hub.texts(hub.CACHES))], draw(names), own))
    for _ in range(draw(st.integers(1, 3))):
        parts = draw(st.lists(st.one_of(hub.texts(hub.CACHES), CHAT_MEDIA, CHAT_OWN), min_size=1, max_size=3))
        messages.append(Message("user", parts, draw(names)))
        said: list[Part] = [chat_thought(draw(hub.WORDS))] if draw(st.booleans()) else []
        said += [Text(draw(hub.WORDS))] if draw(st.booleans()) else [Refusal(draw(hub.WORDS))]
        called = draw(hub.calls(cache=hub.CACHES))
        if draw(st.booleans()):
            written = arguments_of(draw(hub.TEXTS))
            called.append(ToolCall("custom-call", "patch", written, extra={CHAT: {"type": "custom"}}))
        messages.append(Message("assistant", [*said, *called], draw(names)))
        for call in called:
            messages.append(Message("user", [ToolResult(call.id, [Text(draw(hub.TEXTS))], cache=draw(hub.CACHES))]))
    request = Request(
        "m",
        messages,
        tools=[
            *draw(hub.tools(strict=hub.maybe(st.booleans()), cache=hub.CACHES)),
            *draw(st.lists(CHAT_CUSTOMS, max_size=1)),
            *draw(st.lists(st.just(Opaque(CHAT, {"type": "web_search"})), max_size=1)),
        ],
        output=draw(st.one_of(st.none(), st.just(Output("json")), hub.outputs(hub.NAMES, hub.maybe(st.booleans())))),
        sampling=draw(
            hub.sampling(
                max_tokens=st.integers(1, 9999),
                temperature=hub.SHARES,
                top_p=hub.SHARES,
                top_k=st.integers(0, 99),
                stop=hub.STOPS,
                seed=st.integers(-(2**53), 2**53),
                choices=st.integers(1, 9),
                frequency_penalty=hub.PENALTIES,
                presence_penalty=hub.PENALTIES,
                logprobs=st.booleans(),
                top_logprobs=st.integers(0, 9),
            )
        ),
        reasoning=draw(hub.maybe(st.builds(Reasoning, EFFORTS))),
        stream=draw(st.booleans()),
        user=draw(hub.maybe(hub.WORDS)),
        extra=draw(st.sampled_from([None, {CHAT: {"logit_bias": {"1": 5}, "metadata": {"a": "b"}}}])),
    )
    if request.tools:
        request.tool_choice = draw(choices_of(request))
        request.parallel_tools = draw(st.sampled_from([None, True, False]))
    return request


@ROUNDS
@given(chat_requests())
def test_chat_completions(request: Request) -> None:
    losses: list[Loss] = []
    options = {"top_k": True, "cache_control": True, "developer_role": True}
    body = json.loads(compose_chat(request, target("openai", CHAT, **options), losses))
    assert not losses
    read = parse_chat(body)
    own = dict(read.own(CHAT))
    if own.pop("stream_options", None):
        # The relay's own wish to count.
        read.extra = {CHAT: own} if own else None
    assert read == request


# Responses.

RESPONSES_MEDIA = st.one_of(
    hub.media("image", "image/png", detail=st.sampled_from([None, "low"])),
    hub.linked("image", detail=st.none()),
    st.builds(Media, st.just("image"), file_id=hub.IDS),
    hub.media("document", "application/pdf", name=hub.NAMES),
    hub.linked("document", name=hub.maybe(hub.NAMES)),
    hub.media("audio", "audio/wav", "audio/flac"),
)


@st.composite
def responses_thoughts(draw: Any) -> Thinking:
    text = draw(hub.WORDS)
    own = {"id": draw(hub.IDS), "summary": [{"type": "summary_text", "text": text}]}
    return Thinking(text, draw(hub.maybe(hub.IDS)), dialect=RESPONSES, extra={RESPONSES: own})


RESPONSES_OWN = st.builds(
    lambda name: Opaque(RESPONSES, {"type": "web_search_call", "id": f"ws_{name}", "status": "completed"}), hub.IDS
)
RESPONSES_TOOLS = st.sampled_from(
    [
        custom_tool("patch", "", None, {RESPONSES: {"type": "custom", "name": "patch"}}),
        Opaque(RESPONSES, {"type": "web_search"}),
        Opaque(RESPONSES, {"type": "image_generation", "size": "auto"}),
    ]
)


@st.composite
def responses_requests(draw: Any) -> Request:
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message("system", [Text(draw(hub.WORDS))]))
    taken: set[str] = set()
    for _ in range(draw(st.integers(1, 3))):
        parts = draw(st.lists(st.one_of(hub.texts(), RESPONSES_MEDIA), min_size=1, max_size=3))
        messages.append(Message("user", parts))
        if draw(st.booleans()):
            messages.append(Message("system", [Text(draw(hub.WORDS))], extra={RESPONSES: {"role": "developer"}}))
        said: list[Part] = draw(st.lists(responses_thoughts(), max_size=2))
        said += draw(st.lists(st.one_of(hub.texts(), st.builds(Refusal, hub.WORDS)), min_size=1, max_size=2))
        said += draw(st.lists(RESPONSES_OWN, max_size=1))
        called = [call for call in draw(hub.calls()) if call.id not in taken]
        if "custom" not in taken and draw(st.booleans()):
            called.append(ToolCall("custom", "patch", arguments_of(draw(hub.TEXTS)), extra={RESPONSES: CUSTOM_CALL}))
        taken |= {call.id for call in called}
        messages.append(Message("assistant", [*said, *called]))
        answers = st.one_of(
            st.lists(hub.texts(), min_size=1, max_size=1), st.tuples(hub.texts(), RESPONSES_MEDIA).map(list)
        )
        if called:
            messages.append(Message("user", [ToolResult(call.id, draw(answers), name=call.name) for call in called]))
    request = Request(
        "m",
        messages,
        tools=[*draw(hub.tools(strict=st.booleans())), *draw(st.lists(RESPONSES_TOOLS, max_size=2, unique_by=id))],
        output=draw(
            st.one_of(
                st.none(), st.sampled_from([Output("text"), Output("json")]), hub.outputs(hub.NAMES, st.booleans())
            )
        ),
        sampling=draw(
            hub.sampling(
                max_tokens=st.integers(1, 9999), temperature=hub.SHARES, top_p=hub.SHARES, logprobs=st.just(True)
            )
        ),
        reasoning=draw(hub.maybe(st.builds(Reasoning, EFFORTS, summary=st.sampled_from(["auto", "detailed"])))),
        stream=draw(st.booleans()),
        user=draw(hub.maybe(hub.WORDS)),
        extra=draw(st.sampled_from([None, {RESPONSES: {"truncation": "auto", "metadata": {"a": "b"}}}])),
    )
    if request.sampling.logprobs:
        request.sampling.top_logprobs = draw(hub.maybe(st.integers(0, 20)))
    if request.tools:
        request.tool_choice = draw(choices_of(request))
        request.parallel_tools = draw(st.sampled_from([None, True, False]))
    return request


@ROUNDS
@given(responses_requests())
def test_responses(request: Request) -> None:
    losses: list[Loss] = []
    read = parse_responses(json.loads(compose_responses(request, target("openai", RESPONSES), losses)))
    assert not losses
    # The relay says these by itself: what the answer is to hold, and that the vendor need not keep it.
    own = {name: value for name, value in read.own(RESPONSES).items() if name not in ("store", "include")}
    assert replace(read, extra={RESPONSES: own} if own else None) == request


# Messages.

MESSAGES_MEDIA = st.one_of(
    hub.media("image", "image/png", "image/webp", cache=hub.CACHES),
    hub.linked("image"),
    st.builds(Media, st.just("image"), file_id=hub.IDS.map(lambda name: f"file_{name}")),
    hub.media("document", "application/pdf", name=hub.maybe(hub.NAMES), cache=hub.CACHES),
    hub.linked("document", name=hub.maybe(hub.NAMES)),
)
CITED = st.lists(
    st.builds(lambda at: messages_citation({"type": "page_location", "start_page_number": at}), hub.COUNTS), min_size=1
)
MESSAGES_TEXTS = st.builds(Text, hub.WORDS, citations=hub.maybe(CITED), cache=hub.CACHES)
MESSAGES_THOUGHTS = st.one_of(
    st.builds(Thinking, hub.WORDS, hub.IDS, dialect=st.just(MESSAGES)),
    st.builds(Thinking, st.just(""), hub.IDS, redacted=st.just(True), dialect=st.just(MESSAGES)),
)


MESSAGES_OWN = st.sampled_from(
    [
        Opaque(MESSAGES, {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "a"}}),
        Opaque(MESSAGES, {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": []}),
        Opaque(MESSAGES, {"type": "search_result", "source": "https://a.test", "title": "A", "content": []}),
    ]
)
MESSAGES_TOOLS = st.sampled_from(
    [
        Opaque(MESSAGES, {"type": "web_search_20250305", "name": "web_search"}),
        Opaque(MESSAGES, {"type": "bash_20250124", "name": "bash"}),
    ]
)


def messages_thinking() -> st.SearchStrategy[tuple[Reasoning | None, bool]]:
    """How much is thought, and whether that leaves sampling to the caller."""
    shown = st.sampled_from(["auto", "none"])
    word = st.builds(Reasoning, EFFORTS, enabled=st.just(True), summary=shown)
    count = st.builds(Reasoning, budget=st.integers(1024, 4000), enabled=st.just(True))
    off = st.builds(Reasoning, enabled=st.just(False))
    return st.one_of(
        st.tuples(st.none() | word | off, st.just(True)),
        st.tuples(count, st.just(False)),
    )


@st.composite
def messages_requests(draw: Any) -> Request:
    messages: list[Message] = []
    if draw(st.booleans()):
        messages.append(Message("system", draw(st.lists(hub.texts(hub.CACHES), min_size=1, max_size=2))))
    called: list[ToolCall] = []
    for _ in range(draw(st.integers(1, 3))):
        answers = st.one_of(
            st.lists(hub.texts(), max_size=1), st.tuples(hub.texts(hub.CACHES), MESSAGES_MEDIA).map(list)
        )
        results: list[Part] = [
            ToolResult(call.id, draw(answers), is_error=draw(st.booleans()), cache=draw(hub.CACHES)) for call in called
        ]
        parts = draw(st.lists(st.one_of(MESSAGES_TEXTS, MESSAGES_MEDIA), min_size=1, max_size=3))
        messages.append(Message("user", [*results, *parts]))
        called = draw(hub.calls(cache=hub.CACHES))
        # Models that think by a budget go on only from calls that they thought about.
        said = [draw(MESSAGES_THOUGHTS)]
        said += draw(st.lists(st.one_of(MESSAGES_TEXTS, MESSAGES_THOUGHTS, MESSAGES_OWN), max_size=3))
        messages.append(Message("assistant", [*said, *called]))
    reasoning, free = draw(messages_thinking())
    request = Request(
        "claude-opus-4-6",
        messages if draw(st.booleans()) else messages[:-1],
        tools=[
            *draw(hub.tools(strict=st.sampled_from([None, True]), cache=hub.CACHES)),
            *draw(st.lists(MESSAGES_TOOLS, max_size=2, unique_by=id)),
        ],
        output=draw(hub.maybe(hub.outputs(st.none(), st.none()))),
        sampling=draw(hub.sampling(temperature=hub.SHARES, stop=hub.STOPS) if free else hub.sampling(stop=hub.STOPS)),
        reasoning=reasoning,
        stream=draw(st.booleans()),
    )
    request.sampling.max_tokens = draw(st.integers(8000, 20_000))
    if free:
        request.sampling.top_k = draw(hub.maybe(st.integers(1, 99)))
        if request.sampling.temperature is None:
            request.sampling.top_p = draw(hub.maybe(hub.SHARES))
    if request.tools:
        request.tool_choice = draw(choices_of(request) if free else st.sampled_from([None, ToolChoice("auto")]))
        if request.tool_choice is not None and request.tool_choice.mode != "none":
            request.parallel_tools = draw(st.sampled_from([None, False]))
    if draw(st.booleans()):
        request.user = draw(hub.WORDS)
        request.extra = {MESSAGES: {"metadata": {"user_id": request.user}, "service_tier": "auto"}}
    return request


@ROUNDS
@given(messages_requests())
def test_messages(request: Request) -> None:
    losses: list[Loss] = []
    read = parse_messages(json.loads(body_of(request, target("anthropic", MESSAGES, request.model), losses)))
    assert not losses
    assert read == request
