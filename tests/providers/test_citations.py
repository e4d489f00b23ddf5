"""What answers rest on, from every format to every other: the same pages, and the words that rest on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import Head, Target, Upstream
from relay.events import ChoiceStop, MessageStart, MessageStop, PartExtra, PartStart, PartStop, TextDelta
from relay.fold import Fold, unfold
from relay.ir import Choice, Citation, Response, StopReason, Text
from relay.kit import Losses
from relay_anthropic.citation import citation_of
from relay_anthropic.content import blocks_of
from relay_anthropic.dialect import AnthropicMessages
from relay_gemini.citation import citations_of, grounding
from relay_gemini.dialect import GenerateContent
from relay_gemini.stream import AnswerReader
from relay_openai.dialect import OpenAIChat
from relay_openai.responses.dialect import OpenAIResponses
from tests import hub
from tests.effort import times

STOP = StopReason("stop", "stop")
Cited = list[tuple[str, str]]
"""Pages, each with the words that rest on it."""


# Plain readings of the vendors' formats.


def in_chat(body: Any) -> Cited:
    message = body["choices"][0]["message"]
    notes = [note["url_citation"] for note in message.get("annotations", ())]
    return [(note["url"], message["content"][note["start_index"] : note["end_index"]]) for note in notes]


def in_responses(body: Any) -> Cited:
    parts = [part for item in body["output"] if item["type"] == "message" for part in item["content"]]
    return [
        (note["url"], part["text"][note["start_index"] : note["end_index"]])
        for part in parts
        for note in part["annotations"]
    ]


def in_messages(body: Any) -> Cited:
    return [(note["url"], block["text"]) for block in body["content"] for note in block.get("citations", ())]


def in_gemini(body: Any) -> Cited:
    (candidate,) = body["candidates"]
    said = "".join(part["text"] for part in candidate["content"]["parts"]).encode()
    metadata = candidate.get("groundingMetadata", {})
    found = []
    for support in metadata.get("groundingSupports", ()):
        segment = support["segment"]
        words = said[segment["startIndex"] : segment["endIndex"]].decode()
        assert words == segment["text"]
        found += [
            (metadata["groundingChunks"][number]["web"]["uri"], words) for number in support["groundingChunkIndices"]
        ]
    return found


READERS: Mapping[str, tuple[Any, Callable[[Any], Cited]]] = {
    "openai-chat": (OpenAIChat(now=lambda: 0.0, new_id=lambda: "new"), in_chat),
    "openai-responses": (OpenAIResponses(now=lambda: 0.0, new_id=lambda: "resp_new"), in_responses),
    "anthropic-messages": (AnthropicMessages(new_id=lambda: "new"), in_messages),
    "gemini": (GenerateContent(lambda: "new"), in_gemini),
}


def head(name: str, *, stream: bool) -> Head:
    data = {"input": "Hi"} if name == "openai-responses" else {}
    return Head("generate", "m", b"{}", {"model": "m", **data}, stream=stream)


@st.composite
def cited_texts(draw: Any) -> list[Text]:
    """Texts of which each rests on at most two pages: with all of its words, or with some."""
    texts = []
    for _ in range(draw(st.integers(1, 3))):
        text = draw(hub.TEXTS)
        citations = []
        for url in draw(st.lists(hub.URLS, max_size=2, unique=True)):
            start = draw(st.integers(0, len(text) - 1))
            span = draw(st.sampled_from([(None, None), (start, draw(st.integers(start + 1, len(text))))]))
            citations.append(Citation(url, draw(hub.maybe(hub.NAMES)), start=span[0], end=span[1]))
        texts.append(Text(text, citations=citations or None))
    return texts


def wanted(texts: list[Text], name: str) -> Cited:
    """One format puts citations on the whole block."""
    return [
        (str(one.url), text.text if name == "anthropic-messages" else text.text[one.start : one.end])
        for text in texts
        for one in text.citations or ()
    ]


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=times(40), deadline=None)
@given(texts=cited_texts())
def test_every_format_names_the_pages_and_the_words_that_rest_on_them(name: str, texts: list[Text]) -> None:
    dialect, read = READERS[name]
    response = Response("resp_1", "m", [Choice([*texts], STOP)])
    body = json.loads(dialect.encode_response(response, head(name, stream=False)))
    assert sorted(read(body)) == sorted(wanted(texts, name))


def streamed(name: str, events: list[Any]) -> Cited:
    """The same out of a stream that is put together as clients do it."""
    dialect, read = READERS[name]
    encoder = dialect.stream_encoder(head(name, stream=True))
    data = b"".join(encoder.encode([event]) for event in events)
    values = [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: {")]
    if name == "openai-chat":
        deltas = [value["choices"][0]["delta"] for value in values]
        message = {
            "content": "".join(delta.get("content") or "" for delta in deltas),
            "annotations": [note for delta in deltas for note in delta.get("annotations", ())],
        }
        return read({"choices": [{"message": message}]})
    if name == "openai-responses":
        added = [value["annotation"] for value in values if value["type"] == "response.output_text.annotation.added"]
        last = values[-1]["response"]
        assert [note for item in last["output"] for part in item["content"] for note in part["annotations"]] == added
        return read(last)
    if name == "anthropic-messages":
        blocks: dict[int, dict[str, Any]] = {}
        for value in values:
            if value["type"] == "content_block_delta":
                block = blocks.setdefault(value["index"], {"text": "", "citations": []})
                block["text"] += value["delta"].get("text", "")
                block["citations"] += [value["delta"]["citation"]] if "citation" in value["delta"] else []
        return read({"content": list(blocks.values())})
    parts = [part for value in values for part in value["candidates"][0]["content"]["parts"]]
    return read({"candidates": [{**values[-1]["candidates"][0], "content": {"parts": parts}}]})


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=times(30), deadline=None)
@given(texts=cited_texts())
def test_streams_say_the_same(name: str, texts: list[Text]) -> None:
    events = unfold(Response("resp_1", "m", [Choice([*texts], STOP)]))
    assert sorted(streamed(name, events)) == sorted(wanted(texts, name))


# The one format that tells it behind everything else.


def read_gemini(*chunks: dict[str, Any]) -> tuple[Response, list[Any]]:
    reader = AnswerReader()
    for chunk in chunks:
        reader.read({"candidates": [{"index": 0, **chunk}], "responseId": "r", "modelVersion": "m"})
    reader.end()
    events = [*reader.take(), MessageStop()]
    fold = Fold()
    fold.add(events)
    return fold.response(), events


PAGES = [{"web": {"uri": "https://a.test", "title": "A"}}, {"web": {"uri": "https://b.test"}}]
SUPPORTS = [
    # "Zürich" has seven bytes.
    {"segment": {"endIndex": 7, "text": "Zürich"}, "groundingChunkIndices": [0]},
    {"segment": {"startIndex": 11, "endIndex": 14, "text": "big"}, "groundingChunkIndices": [0, 1, 9]},
]
METADATA = {"groundingChunks": PAGES, "groundingSupports": SUPPORTS}


def test_bytes_of_the_whole_answer_become_characters_of_a_text() -> None:
    response, _ = read_gemini(
        {"content": {"parts": [{"text": "Zürich is"}]}},
        {"content": {"parts": [{"text": " big."}]}, "finishReason": "STOP", "groundingMetadata": METADATA},
    )
    (text,) = response.choices[0].parts
    assert text == Text(
        "Zürich is big.",
        citations=[
            Citation("https://a.test", "A", start=0, end=6),
            Citation("https://a.test", "A", start=10, end=13),
            Citation("https://b.test", start=10, end=13),
        ],
    )


@pytest.mark.parametrize("name", READERS)
def test_the_last_text_is_open_until_its_sources_are_known(name: str) -> None:
    _, events = read_gemini(
        {"content": {"parts": [{"text": "Zürich is big."}]}},
        {
            "content": {"parts": [{"text": "", "thoughtSignature": "c2ln"}]},
            "finishReason": "STOP",
            "groundingMetadata": METADATA,
        },
    )
    stops = [event for event in events if not isinstance(event, ChoiceStop)] + [ChoiceStop(STOP)]
    found = streamed(name, [event for event in stops if not isinstance(event, MessageStop)] + [MessageStop()])
    both = [("https://a.test", "Zürich"), ("https://a.test", "big"), ("https://b.test", "big")]
    if name == "anthropic-messages":
        both = [(url, "Zürich is big.") for url, _ in both]
    assert sorted(found) == sorted(both)


@pytest.mark.parametrize(
    ("segment", "found"),
    [
        ({"startIndex": 0, "endIndex": 2}, (0, 2)),
        ({"startIndex": 3, "endIndex": 5, "text": "ab"}, (0, 2)),
        ({"startIndex": 0, "endIndex": 99, "text": "cd"}, (2, 4)),
        ({"text": "not there"}, (None, None)),
        ({"startIndex": "x"}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_segments_that_do_not_fit_are_looked_for_by_their_words(segment: Any, found: tuple[Any, Any]) -> None:
    metadata = {
        "groundingChunks": PAGES[:1],
        "groundingSupports": [{"segment": segment, "groundingChunkIndices": [0]}],
    }
    ((place, citation),) = citations_of({"groundingMetadata": metadata}, ["abcd"])
    assert (place, citation.start, citation.end) == (0, *found)


def test_sources_of_which_nobody_says_what_rests_on_them_belong_to_all_of_it() -> None:
    found = list(citations_of({"groundingMetadata": {"groundingChunks": [*PAGES, "x", {}]}}, ["ab", "cd"]))
    assert found == [(1, Citation("https://a.test", "A")), (1, Citation("https://b.test"))]
    recited = {"citationMetadata": {"citationSources": [{"startIndex": 1, "endIndex": 3, "uri": "https://c.test"}]}}
    assert list(citations_of(recited, ["ab", "cd"])) == [(0, Citation("https://c.test", start=1, end=2))]


def test_documents_are_sources_for_the_format_that_has_a_place_for_them() -> None:
    document = citation_of({"type": "char_location", "document_title": "Book", "cited_text": "It is blue."})
    chunk = {"retrievedContext": {"title": "Book", "text": "It is blue."}}
    support = {"segment": {"startIndex": 0, "endIndex": 5, "text": "Blue."}, "groundingChunkIndices": [0]}
    assert grounding([("Blue.", [document])]) == {"groundingChunks": [chunk], "groundingSupports": [support]}


def test_what_the_relay_cites_for_others_never_reaches_the_vendor_whose_words_it_uses() -> None:
    dialect = AnthropicMessages(new_id=lambda: "new")
    cited = Text("Blue.", citations=[Citation("https://a.test")])
    body = json.loads(dialect.encode_response(Response("r", "m", [Choice([cited], STOP)]), head("m", stream=False)))
    own = {"type": "page_location", "cited_text": "x", "document_index": 0}
    content = [*body["content"], {"type": "text", "text": "Red.", "citations": [own]}]
    data = {"model": "m", "max_tokens": 9, "messages": [{"role": "assistant", "content": content}]}
    asked = dialect.peek(json.dumps(data).encode(), "generate", {}, {})
    forward = dialect.forward(asked, Target(Upstream("up", "anthropic", "https://upstream.test"), "m"))
    sent = json.loads(forward.body)["messages"][0]["content"]
    assert sent == [{"type": "text", "text": "Blue."}, {"type": "text", "text": "Red.", "citations": [own]}]
    assert [(loss.kind.id, loss.hint) for loss in forward.losses if loss.kind is not None] == [
        ("native.citations", True)
    ]
    # The same where the request is translated: the page is known again, and not written for that vendor.
    (turn,) = dialect.parse(asked).messages
    assert isinstance(turn.parts[0], Text)
    assert turn.parts[0].citations == [Citation("https://a.test")]
    lost: list[Any] = []
    assert blocks_of(turn.parts, "x", Losses(lost)) == sent
    assert [loss.kind.id for loss in lost] == ["messages.citations"]


def test_a_citation_that_comes_too_late_for_its_text_is_told_where_that_can_be() -> None:
    events = [
        MessageStart("resp_1", "m"),
        PartStart(0, Text("")),
        TextDelta(0, "Blue."),
        PartStop(0),
        PartStart(1, Text("")),
        TextDelta(1, "Red."),
        PartStop(1),
        PartExtra(0, citation=Citation("https://a.test")),
        ChoiceStop(STOP),
        MessageStop(),
    ]
    found = {name: streamed(name, events) for name in READERS}
    assert found["openai-chat"] == found["gemini"] == [("https://a.test", "Blue.")]
    assert found["openai-responses"] == found["anthropic-messages"] == []
