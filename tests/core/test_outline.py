"""Bodies that are read without their long texts: nothing that is asked of them may come out otherwise."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import relay.outline
from relay import Dialect
from relay.body import read_body
from relay.errors import BadParameter
from relay.kit import estimate_tokens, renamed
from relay.outline import (
    COMPILED,
    DATA,
    LEAST,
    LONG,
    LONGEST,
    MANY,
    MODEL,
    ONE,
    REST,
    TEXT,
    WORD,
    Field,
    Known,
    Outline,
    Texts,
    read_outline,
)
from relay_anthropic.dialect import AnthropicMessages
from relay_gemini.dialect import GenerateContent
from relay_openai.dialect import OpenAIChat
from relay_openai.responses.dialect import OpenAIResponses
from tests.core.bodies import SPACES, STRING, compiled, values
from tests.effort import times

PART = Field(b"type", WORD, (b"text", b"more")), Field(b"text", TEXT), Field(b"content", TEXT)
PLAIN = (
    Field(b"type", WORD),
    Field(b"text", TEXT),
    Field(b"content", TEXT | MANY, PART),
    Field(b"model", ONE, PART, 3),
    Field(b"url", DATA, (b"system",), 5),
    Field(b"messages", REST),
)
TEXTS = Texts(
    (b"messages", b"system"),
    (b"content", b"text", b"system"),
    (b"url",),
    (b"tools",),
    (b"label:",),
    (b"messages",),
    PLAIN,
)


def test_the_one_in_c_is_there_where_it_is_demanded() -> None:
    if os.environ.get("I8RELAY_REQUIRE_COMPILED"):
        assert COMPILED


def outline(raw: bytes, *known: bytes) -> tuple[bytes, int, int, int, int, int, int, bool] | None:
    assert relay.outline._outline is not None
    return relay.outline._outline(raw, LONGEST, TEXTS, MODEL, known)


def wordy(spelled: str) -> bool:
    """Whether what is bulk by its key begins with words."""
    return any(
        not "!" <= one <= "~" or (one == "\\" and spelled[place + 1] != "/") for place, one in enumerate(spelled[:64])
    )


def blanked(value: Any, key: str | None, field: str | None, lost: list[str], plain: bool) -> Any:
    """The same by hand, on a body that was read whole. `plain`: what is not ASCII was sent as its number."""
    if isinstance(value, dict):
        return {name: blanked(one, name, field or name, lost, plain) for name, one in value.items()}
    if isinstance(value, list):
        return [blanked(one, None, field, lost, plain) for one in value]
    if not isinstance(value, str) or key is None or field is None:
        return value
    spelled = json.dumps(value, ensure_ascii=plain)[1:-1]
    if field.encode() not in TEXTS.fields or len(spelled.encode()) < LONGEST:
        return value
    if key.encode() in TEXTS.texts:
        lost.append(value)
        return ""
    return "" if key.encode() in TEXTS.bulk and not wordy(spelled) else value


def counted(element: Any, fields: tuple[Any, ...]) -> int | None:
    """What an object counts for that is plain; None: it is not."""
    total = 0
    for name, value in element.items():
        tokens = None
        for field in fields:
            if field.name == name.encode():
                tokens = value_of(value, field)
        if tokens is None:
            return None
        total += tokens
    return total


def value_of(value: Any, field: Field) -> int | None:
    found: int | None = 0 if field.forms & REST or value is None else None
    if isinstance(value, str) and field.forms & TEXT:
        found = estimate_tokens(value)
    elif isinstance(value, str) and field.forms & WORD:
        found = 0 if not field.inner or value.encode() in field.inner else None
    elif isinstance(value, (bool, int)) and field.forms & WORD and not field.inner:
        found = 0
    elif isinstance(value, list) and field.forms & MANY:
        each = [counted(one, field.inner) if isinstance(one, dict) else None for one in value]
        found = None if None in each else sum(one or 0 for one in each)
    elif isinstance(value, dict) and field.forms & ONE:
        found = counted(value, field.inner)
        found = None if found is None else found + field.tokens
    elif isinstance(value, dict) and field.forms & DATA and not {key.encode() for key in value} & {*field.inner}:
        found = field.tokens + len(orjson.dumps(value)) // 4
    return found


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys(inner)


def without_plain(body: dict[str, Any], plain: bool) -> tuple[dict[str, Any], int]:
    """The body with empty objects for those elements, and what they count for."""
    given, total = body.get("messages"), 0
    if not isinstance(given, list):
        return body, 0
    messages: list[Any] = []
    for element in given:
        tokens = counted(element, PLAIN) if isinstance(element, dict) else None
        if tokens is None or (plain and not "".join(keys(element)).isascii()):
            # A key that is escaped is not compared.
            messages.append(element)
        else:
            messages.append({})
            total += tokens
    return {**body, "messages": messages}, total


def strings(value: Any) -> Iterator[str]:
    """Those that are no keys."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from strings(inner)


def is_label(text: str) -> bool:
    return text.startswith("label:")


KEYS = st.sampled_from(["content", "text", "url", "type", "model", "messages", "größe", "system"])


VALUES = values(KEYS)
BODIES = st.fixed_dictionaries(
    {}, optional={"model": STRING, "messages": VALUES, "system": VALUES, "tools": VALUES, "x": VALUES}
)


@compiled
@settings(deadline=None, max_examples=times(140))
@given(BODIES, SPACES, st.booleans())
@example({"model": "m", "messages": [{"content": "x" * LONGEST}]}, (",", ":"), False)
@example({"model": "m", "messages": [{"content": "ä" * LONGEST}, {"content": '"\\' * LONGEST}]}, (",", ":"), False)
@example({"messages": [["x" * LONGEST], {"text": ["x" * LONGEST]}], "system": "s" * LONGEST}, (",", ":"), False)
@example({"messages": {"url": "u" * LONGEST, "x": "u" * LONGEST}, "x": {"content": "x" * LONGEST}}, (",", ":"), False)
@example(
    {"messages": [{"content": "\x1b[31mred\x1b[0m \x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U0010ffff" * 9}]},
    (",", ":"),
    True,
)
def test_what_is_left_is_the_body_without_the_texts(body: dict[str, Any], spaces: tuple[str, str], plain: bool) -> None:
    raw = json.dumps(body, ensure_ascii=plain, separators=spaces).encode()
    lost: list[str] = []
    shorter, counts = without_plain(body, plain)
    wanted = blanked(shorter, None, None, lost, plain)
    found = outline(raw)
    if found is None:
        # Nothing was long.
        assert wanted == body
        return
    short, tokens, begin, end, first, last, number, labelled = found
    assert orjson.loads(short) == wanted
    assert tokens == counts + sum(map(estimate_tokens, lost))
    assert (orjson.loads(raw[begin:end]) if end else None) == body.get("model")
    tools = body.get("tools")
    assert (orjson.loads(raw[first:last]) if last else None) == (tools if isinstance(tools, list) else None)
    assert number == -1
    assert labelled == any(map(is_label, strings(body)))
    if last:
        again = outline(raw, b'["another"]', raw[first:last])
        assert again is not None
        assert orjson.loads(again[0]) == {**wanted, "tools": []}
        assert again[1:] == (tokens, begin, end, first, last, 1, any(map(is_label, strings({**body, "tools": None}))))


@compiled
@settings(deadline=None, max_examples=times(210))
@given(st.data())
def test_what_is_no_json_does_not_become_any(data: st.DataObject) -> None:
    number = data.draw(st.one_of(st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False)))
    plain = {"type": number, "content": [{"type": "more", "text": data.draw(STRING)}], "model": {"content": "label:"}}
    any_value = {"url": {"a": [number, True, False, None], "b": {"c": data.draw(STRING)}}, "messages": [number]}
    messages = [{"content": data.draw(STRING) * 3 + "x" * LONGEST}, {"url": data.draw(STRING) * 9}, plain, any_value]
    body = {"model": "m", "messages": data.draw(st.permutations(messages))}
    raw = bytearray(json.dumps(body, ensure_ascii=data.draw(st.booleans())).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(["set", "del", "add", "cut"]))
        byte = data.draw(
            st.one_of(st.sampled_from(list(b'"\\{}[]:,-+.e01ux\x00\n\x80\xff\xc3\xed')), st.integers(0, 255))
        )
        if kind == "set":
            raw[place] = byte
        elif kind == "add":
            raw.insert(place, byte)
        elif len(raw) > 1:
            del raw[place : place + 1 if kind == "del" else len(raw)]
        if not raw:
            raw += b"{"
    found = outline(bytes(raw))
    if found is None:
        return
    try:
        orjson.loads(bytes(raw))
    except orjson.JSONDecodeError:
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(found[0])
    else:
        orjson.loads(found[0])


@compiled
@pytest.mark.parametrize(
    "element",
    [
        b'{"text":"a","text":"a"}',
        b'{"model":{"text":"a","type":"text","text":"a"}}',
        b'{"content":[{"text":"a"},{"text":"a","text":"b"}]}',
        b'{"url":{"a":1,"a":1}}',
        b'{"url":{"a":{"b":1,"b":1}}}',
        b'{"url":{"system":1}}',
        b'{"url":{"\\u0061":1}}',
        b'{"messages":[{"a":1,"a":1}]}',
        b'{"messages":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"url":{%b}}' % b",".join(b'"%d":0' % number for number in range(65)),
        b'{"unknown":"a"}',
        b'{"t\\u0065xt":"a"}',
        b'{"text":5}',
        b'{"text":{}}',
        b'{"text":[]}',
        b'{"model":[]}',
        b'{"url":[]}',
        b'{"url":"a"}',
        b'{"content":[[]]}',
        b'{"content":["a"]}',
        b'{"content":[{"type":"other"}]}',
        b'{"content":[{"type":5}]}',
        b'{"type":1e400}',
        b'{"type":123456789012345678901}',
    ],
)
def test_what_is_not_plain_stays(element: bytes) -> None:
    found = outline(b'{"messages":[{"text":"a"},%b]}' % element)
    assert found is not None
    assert found[0] == b'{"messages":[{},%b]}' % element


LONG_TEXT = "x" * LONGEST


@compiled
@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages":[{"content":"%b\\u00g1"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\\u004' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\\u004"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\\ud800"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\\ud800\\u0041"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\\ud800\\ud800"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\\ud800\\ue000"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\\udc00\\ud800"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\\x"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\n"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\xed\xa0\x80"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\xc0\x80"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\xf4\x90\x80\x80"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\xe2\x82"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\\' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b"}]}]' % LONG_TEXT.encode(),
        b'{"m\\u006fdel":"a","messages":[{"content":"%b"}]}' % LONG_TEXT.encode(),
        b'{"model":"a","model":"b","messages":[{"content":"%b"}]}' % LONG_TEXT.encode(),
        b'{"messages":' + b"[" * 70 + b'{"content":"%b"}' % LONG_TEXT.encode() + b"]" * 70 + b"}",
        b'{"tools":[],"tools":[1],"messages":[{"content":"%b"}]}' % LONG_TEXT.encode(),
        b'{"tools":null,"tools":[1],"messages":[{"content":"%b"}]}' % LONG_TEXT.encode(),
        b'{"model":1,"model":"b","messages":[{"content":"%b"}]}' % LONG_TEXT.encode(),
        b'{"messages":[]}',
        b'"%b"' % LONG_TEXT.encode(),
        b"",
    ],
)
def test_what_is_unusual_is_read_whole(raw: bytes) -> None:
    assert outline(raw) is None


@compiled
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("text", 1, TEXTS, (), ()),
        (b"{}", "1", TEXTS, (), ()),
        (b"{}", 1, list(TEXTS), (), ()),
        (b"{}", 1, TEXTS[:6], (), ()),
        (b"{}", 1, (*TEXTS[:5], [b"a"], PLAIN), (), ()),
        (b"{}", 1, (*TEXTS[:6], [*PLAIN]), (), ()),
        (b"{}", 1, (*TEXTS[:6], ([b"a", WORD, (), 0],)), (), ()),
        (b"{}", 1, (*TEXTS[:6], ((b"a", WORD, ()),)), (), ()),
        (b"{}", 1, (*TEXTS[:6], (("a", WORD, (), 0),)), (), ()),
        (b"{}", 1, (*TEXTS[:6], ((b"a", "1", (), 0),)), (), ()),
        (b"{}", 1, (*TEXTS[:6], ((b"a", WORD, [b"b"], 0),)), (), ()),
        (b"{}", 1, (*TEXTS[:6], ((b"a", WORD, ("b",), 0),)), (), ()),
        (b"{}", 1, (*TEXTS[:6], ((b"a", ONE, (b"b",), 0),)), (), ()),
        (b"{}", 1, (*TEXTS[:6], ((b"a", DATA, PLAIN, 0),)), (), ()),
        (b"{}", 1, (*TEXTS[:6], ((b"a", WORD, (), 2**40),)), (), ()),
        (b"{}", 1, (*TEXTS[:6], ((b"a", WORD, (), 0),) * 65), (), ()),
        (b"{}", 1, (("a",), *TEXTS[1:]), (), ()),
        (b"{}", 1, TEXTS, ("a",), ()),
        (b"{}", 1, TEXTS, (), [b"a"]),
        (b"{}", 1, TEXTS, (), (), ()),
        (b"{}", 2**70, TEXTS, (), ()),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments: tuple[Any, ...]) -> None:
    assert relay.outline._outline is not None
    with pytest.raises((TypeError, ValueError, OverflowError)):
        relay.outline._outline(*arguments)


def test_a_short_body_is_read_whole() -> None:
    body = {"model": "m", "messages": [{"content": LONG_TEXT}]}
    assert read_outline(orjson.dumps(body), TEXTS, Known()) == Outline(body)


@compiled
def test_a_long_one_is_not() -> None:
    found = read_outline(orjson.dumps({"model": "m", "messages": [{"content": "x" * LONG}]}), TEXTS, Known())
    short = {"model": "m", "messages": [{}]}
    assert found == Outline(short, LONG // 4, (9, 12), None, False, (orjson.dumps(short), short))


@pytest.mark.parametrize("end", [b',"a":nan}', b',"model":"b"}', b',"Model":"b"}', b"}}", b""])
def test_what_is_wrong_with_a_long_body_is_said_of_all_of_it(end: bytes) -> None:
    raw = b'{"model":"a","messages":[{"content":"%b"}]' % (b"x" * LONG) + end
    with pytest.raises(BadParameter) as whole:
        read_body(raw)
    with pytest.raises(BadParameter) as outlined:
        read_outline(raw, TEXTS, Known())
    assert str(outlined.value) == str(whole.value)


TOOLS = orjson.dumps([{"name": f"tool-{number}", "description": "Does. " * 20} for number in range(20)])
LONG_BODY = b'{"model":"m","tools":%b,"messages":[{"content":"%b"}]}'


def whole(tools: bytes) -> bytes:
    return LONG_BODY % (tools, b"x" * LONG)


@compiled
def test_a_list_that_came_before_is_not_read_again() -> None:
    known = Known()
    first = read_outline(whole(TOOLS), TEXTS, known)
    again = read_outline(whole(TOOLS), TEXTS, known)
    assert first[:-1] == again[:-1]
    assert first == Outline({**orjson.loads(whole(TOOLS)), "messages": [{}]}, *first[1:])
    assert first.listed is again.listed
    assert first.listed == TOOLS
    assert first.data["tools"] is again.data["tools"]
    spaced = orjson.dumps(orjson.loads(TOOLS), option=orjson.OPT_INDENT_2)
    other = read_outline(whole(spaced), TEXTS, known)
    assert other[:-1] == first[:-1]
    assert other.data["tools"] is not first.data["tools"]
    # All keys there are, or none: of a list that was written otherwise nobody knows whether it has one twice.
    short = {**again.data, "tools": []}
    assert first.keyed == (whole(TOOLS).replace(b'"content":"%b"' % (b"x" * LONG), b""), first.data)
    assert again.keyed == (orjson.dumps(short), short)
    assert read_outline(whole(spaced), TEXTS, known).keyed is None


@compiled
@pytest.mark.parametrize("tools", [b"[]", b"null", b'"none"', b"{}", b"[1,2]", TOOLS[: LEAST // 2] + b'"}]'])
def test_a_short_list_and_what_is_none_are_read_each_time(tools: bytes) -> None:
    known = Known()
    found = read_outline(whole(tools), TEXTS, known)
    assert found.data["tools"] == orjson.loads(tools)
    assert found.listed is None
    assert not known.lists


@compiled
@pytest.mark.parametrize("after", [b"5", b".5", b"[]", b'"a"', b"]", b"}", b":1", b"\x00", b" 1"])
def test_what_is_wrong_behind_a_known_list_is_found(after: bytes) -> None:
    known = Known()
    read_outline(whole(TOOLS), TEXTS, known)
    with pytest.raises(BadParameter) as error:
        read_outline(whole(TOOLS + after), TEXTS, known)
    with pytest.raises(BadParameter) as other:
        read_body(whole(TOOLS + after))
    assert str(error.value) == str(other.value)


@compiled
def test_a_list_of_which_nothing_can_be_read_is_not_remembered() -> None:
    known = Known()
    with pytest.raises(BadParameter):
        read_outline(whole(TOOLS[:-1] + b",nan]"), TEXTS, known)
    deep = b"[" * 600 + b"]" * 600
    assert read_outline(whole(deep), TEXTS, known).listed is None
    assert not known.lists


def test_lists_are_remembered_up_to_a_bound_and_the_one_used_last_stays() -> None:
    known = Known(most=3, most_bytes=100)
    lists = [b"[%d]" % number for number in range(4)]
    for one in lists[:3]:
        known.learn(one, orjson.loads(one))
    assert known.lists == (b"[2]", b"[1]", b"[0]")
    assert known.take(2) == ([0], b"[0]", True)
    known.learn(lists[3], [3])
    assert known.lists == (b"[3]", b"[0]", b"[2]")
    assert [known.take(number).value for number in range(3)] == [[3], [0], [2]]
    large = b'["%b"]' % (b"x" * 90)
    known.learn(large, orjson.loads(large))
    assert (known.lists, known.size) == ((large, b"[2]", b"[0]"), 100)
    known.learn(b"[10]", [10])
    assert (known.lists, known.size) == ((b"[10]", large), 98)
    assert known.learn(b" " * 101, [4]).value == [4]
    assert known.lists == (b"[10]", large)


def conversation(count: int, text: str) -> list[dict[str, Any]]:
    parts: list[Any] = [
        text,
        [{"type": "text", "text": text}, {"type": "text", "text": "short"}],
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9000}}],
    ]
    return [{"role": ("user", "assistant")[place % 2], "content": parts[place % 3]} for place in range(count)]


CLAUDE = {
    "system": [{"type": "text", "text": "You " * 200, "cache_control": {"type": "ephemeral"}}],
    "max_tokens": 5,
    "tools": [{"name": "write", "description": "Writes. " * 99, "input_schema": {"type": "object"}}],
    "messages": [
        {"role": "user", "content": "Ünïcödé " * 1200},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm. " * 300, "signature": "c2ln" * 300},
                {"type": "text", "text": "I will.\n" * 300},
                {"type": "tool_use", "id": "t", "name": "write", "input": {"path": "a", "n": 5}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "done " * 400}]},
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR/+" * 900}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "It is. " * 900}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "Is " * 90}]}},
            ],
        },
    ],
}
RESPONSES = {
    "instructions": "You " * 200,
    "store": False,
    "tools": [{"type": "function", "name": "write", "description": "Writes. " * 99, "parameters": {"type": "object"}}],
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Ünïcödé " * 1200}]},
        {"type": "reasoning", "summary": [], "encrypted_content": "c2ln" * 300},
        {"type": "function_call", "name": "write", "call_id": "c", "arguments": '{"text":"%s"}' % ("a" * 900)},
        {"type": "function_call_output", "call_id": "c", "output": "done " * 400},
        {"type": "custom_tool_call", "name": "patch", "call_id": "d", "input": "*** " * 400},
        {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64," + "A" * 900}]},
    ],
}
SEARCHED = {
    **RESPONSES,
    "input": [
        *RESPONSES["input"],
        {
            "type": "tool_search_output",
            "call_id": "e",
            "tools": [{"type": "function", "name": "found", "parameters": {}}],
        },
    ],
}
GEMINI = {
    "systemInstruction": {"parts": [{"text": "You " * 200}]},
    "generationConfig": {"maxOutputTokens": 9},
    "tools": [{"functionDeclarations": [{"name": "write", "description": "Writes. " * 99, "parameters": {}}]}],
    "contents": [
        {"role": "user", "parts": [{"text": "Ünïcödé " * 1200}]},
        {"role": "model", "parts": [{"text": "Hm. " * 300, "thought": True, "thoughtSignature": "c2ln" * 300}]},
        {"role": "model", "parts": [{"functionCall": {"name": "write", "args": {"path": "a", "n": 5}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "write", "response": {"output": "done " * 400}}}]},
        {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": "A" * 900}}]},
    ],
}
CHAT = {
    "tools": [{"type": "function", "function": {"name": "f", "description": "Does. " * 99, "parameters": {}}}],
    "max_tokens": 7,
    "n": 2,
}


@compiled
@pytest.mark.parametrize("model", ["mine", "longer/than-that", "ünïcode"])
@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (OpenAIChat(), {"messages": conversation(7, "Some text, not short. " * 99), **CHAT}),
        (OpenAIChat(), {"messages": conversation(5, 'Quotes " and \\ and\nlines. ' * 99), "stream": True}),
        (OpenAIChat(), {"messages": conversation(2, "漢字かな交じり文。" * 500)}),
        (AnthropicMessages(), CLAUDE),
        (OpenAIResponses(), RESPONSES),
        (OpenAIResponses(), SEARCHED),
        (OpenAIResponses(), {"input": "Some text. " * 999, "tools": RESPONSES["tools"], "stream": True}),
        (GenerateContent(), GEMINI),
    ],
)
def test_what_the_core_learns_of_a_long_body_is_what_it_would_read(
    dialect: Dialect, body: dict[str, Any], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {} if isinstance(dialect, GenerateContent) else {"model": model}
    raw = json.dumps({**named, **body}, ensure_ascii=False).encode()
    assert len(raw) >= LONG
    place = {"model": model}
    first = dialect.peek(raw, "generate", place, {})
    short = dialect.peek(raw, "generate", place, {})
    assert first.definitions is short.definitions
    assert (short.definitions is not None) == ("tools" in body and body is not SEARCHED)
    assert short.outline is not None
    assert short.outline.spot is not None
    assert short.fields != {**named, **body}
    tools = dialect.tools(short)
    monkeypatch.setattr(relay.outline, "_outline", None)
    whole = dialect.peek(raw, "generate", place, {})
    assert whole.outline is not None
    assert whole.outline.spot is None
    names = ("operation", "model", "raw", "stream", "max_output", "choices", "input_estimate", "has_tools", "headers")
    for name in names:
        assert getattr(short, name) == getattr(first, name) == getattr(whole, name), name
    assert tools == dialect.tools(whole)
    assert dialect.parse(copy.copy(short)) == dialect.parse(whole)
    assert short.data == whole.data == short.fields


@compiled
@pytest.mark.parametrize("name", ["mine", "another", 'with "quotes"', "ünïcode"])
def test_another_model_is_put_in_its_place_and_nothing_else_is_touched(name: str) -> None:
    raw = b'{ "x":{"model":"mine"}, "model" :  "mine" , "messages":[{"content":"%b"}]}' % (b"x" * LONG)
    head = OpenAIChat().peek(raw, "generate", {}, {})
    assert head.outline is not None
    assert head.outline.spot is not None
    begin, rest = raw.split(b':  "mine"')
    assert renamed(head, name) == begin + b":  " + json.dumps(name, ensure_ascii=False).encode() + rest


def test_a_head_with_another_body_has_all_of_it() -> None:
    raw = orjson.dumps({"model": "m", "messages": [{"content": "x" * LONG}]})
    head = OpenAIChat().peek(raw, "generate", {}, {}).with_body(b"{}", {"a": 1})
    assert (head.raw, head.data, head.fields, head.outline) == (b"{}", {"a": 1}, {"a": 1}, None)
