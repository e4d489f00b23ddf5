"""Bodies that are read without their long texts: nothing that is asked of them may come out otherwise."""

from __future__ import annotations

import copy
import json
import os
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import relay.outline
from relay.body import read_body
from relay.errors import BadParameter
from relay.kit import estimate_tokens, renamed
from relay.outline import COMPILED, LONG, LONGEST, MODEL, Outline, Texts, read_outline
from relay_anthropic.dialect import AnthropicMessages
from relay_openai.dialect import OpenAIChat

TEXTS = Texts((b"messages", b"system"), (b"content", b"text", b"system"), (b"url",))
compiled = pytest.mark.skipif(not COMPILED, reason="the part in C could not be built")


def test_the_one_in_c_is_there_where_it_is_demanded() -> None:
    if os.environ.get("I8RELAY_REQUIRE_COMPILED"):
        assert COMPILED


def outline(raw: bytes) -> tuple[bytes, int, int, int] | None:
    assert relay.outline._outline is not None
    return relay.outline._outline(raw, LONGEST, *TEXTS, MODEL)


def blanked(value: Any, key: str | None, field: str | None, lost: list[str]) -> Any:
    """The same by hand, on a body that was read whole."""
    if isinstance(value, dict):
        return {name: blanked(one, name, field or name, lost) for name, one in value.items()}
    if isinstance(value, list):
        return [blanked(one, None, field, lost) for one in value]
    if not isinstance(value, str) or key is None or field is None:
        return value
    spelled = json.dumps(value, ensure_ascii=False)[1:-1]
    if field.encode() not in TEXTS.fields or len(spelled.encode()) < LONGEST:
        return value
    if key.encode() in TEXTS.texts:
        lost.append(value)
        return ""
    return "" if key.encode() in TEXTS.bulk else value


LETTERS = st.text(st.sampled_from('ab ,:{}[]"\\/\n\t\x1féß€漢😀'), max_size=40)
TEXT = st.one_of(LETTERS, st.builds(lambda text, times: text * times, LETTERS, st.integers(1, 60)))
KEYS = st.sampled_from(["content", "text", "url", "type", "model", "messages", "x", "system"])
VALUES = st.recursive(
    st.one_of(TEXT, st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
BODIES = st.fixed_dictionaries(
    {}, optional={"model": TEXT, "messages": VALUES, "system": VALUES, "tools": VALUES, "x": VALUES}
)
SPACES = st.sampled_from([(",", ":"), (", ", ": "), (",\n\t ", "\r : ")])


@compiled
@settings(deadline=None, max_examples=400)
@given(BODIES, SPACES)
@example({"model": "m", "messages": [{"content": "x" * LONGEST}]}, (",", ":"))
@example({"model": "m", "messages": [{"content": "ä" * LONGEST}, {"content": '"\\' * LONGEST}]}, (",", ":"))
@example({"messages": [["x" * LONGEST], {"text": ["x" * LONGEST]}], "system": "s" * LONGEST}, (",", ":"))
@example({"messages": {"url": "u" * LONGEST, "x": "u" * LONGEST}, "x": {"content": "x" * LONGEST}}, (",", ":"))
def test_what_is_left_is_the_body_without_the_texts(body: dict[str, Any], spaces: tuple[str, str]) -> None:
    raw = json.dumps(body, ensure_ascii=False, separators=spaces).encode()
    lost: list[str] = []
    wanted = blanked(body, None, None, lost)
    found = outline(raw)
    if found is None:
        # Nothing was long, or something is spelled by its number.
        assert wanted == body or b"\\u" in raw
        return
    short, tokens, begin, end = found
    assert orjson.loads(short) == wanted
    assert tokens == sum(map(estimate_tokens, lost))
    assert (orjson.loads(raw[begin:end]) if end else None) == body.get("model")


@compiled
@settings(deadline=None, max_examples=600)
@given(st.data())
def test_what_is_no_json_does_not_become_any(data: st.DataObject) -> None:
    body = {"model": "m", "messages": [{"content": data.draw(TEXT) * 3 + "x" * LONGEST}, {"url": data.draw(TEXT) * 9}]}
    raw = bytearray(json.dumps(body, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        kind = data.draw(st.sampled_from(["set", "del", "add", "cut"]))
        byte = data.draw(st.one_of(st.sampled_from(list(b'"\\{}[]:,\x00\n\x80\xff\xc3\xed')), st.integers(0, 255)))
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


LONG_TEXT = "x" * LONGEST


@compiled
@pytest.mark.parametrize(
    "raw",
    [
        b'{"messages":[{"content":"%b\\u0041"}]}' % LONG_TEXT.encode(),
        b'{"messages":[{"content":"%b\\ud800"}]}' % LONG_TEXT.encode(),
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
        ("text", 1, (), (), (), ()),
        (b"{}", "1", (), (), (), ()),
        (b"{}", 1, [], (), (), ()),
        (b"{}", 1, ("a",), (), (), ()),
        (b"{}", 1, (), (), (), (), ()),
        (b"{}", 2**70, (), (), (), ()),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments: tuple[Any, ...]) -> None:
    assert relay.outline._outline is not None
    with pytest.raises((TypeError, OverflowError)):
        relay.outline._outline(*arguments)


def test_a_short_body_is_read_whole() -> None:
    body = {"model": "m", "messages": [{"content": LONG_TEXT}]}
    assert read_outline(orjson.dumps(body), TEXTS) == Outline(body)


@compiled
def test_a_long_one_is_not() -> None:
    found = read_outline(orjson.dumps({"model": "m", "messages": [{"content": "x" * LONG}]}), TEXTS)
    assert found == Outline({"model": "m", "messages": [{"content": ""}]}, LONG // 4, (9, 12))


@pytest.mark.parametrize("end", [b',"a":nan}', b',"model":"b"}', b',"Model":"b"}', b"}}", b""])
def test_what_is_wrong_with_a_long_body_is_said_of_all_of_it(end: bytes) -> None:
    raw = b'{"model":"a","messages":[{"content":"%b"}]' % (b"x" * LONG) + end
    with pytest.raises(BadParameter) as whole:
        read_body(raw)
    with pytest.raises(BadParameter) as outlined:
        read_outline(raw, TEXTS)
    assert str(outlined.value) == str(whole.value)


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
    ],
)
def test_what_the_core_learns_of_a_long_body_is_what_it_would_read(
    dialect: OpenAIChat | AnthropicMessages, body: dict[str, Any], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = json.dumps({"model": model, **body}, ensure_ascii=False).encode()
    assert len(raw) >= LONG
    short = dialect.peek(raw, "generate", {}, {})
    tools = dialect.tools(short)
    assert short.spot is not None
    assert short.fields != {"model": model, **body}
    monkeypatch.setattr(relay.outline, "_outline", None)
    whole = dialect.peek(raw, "generate", {}, {})
    assert whole.spot is None
    names = ("operation", "model", "raw", "stream", "max_output", "choices", "input_estimate", "has_tools", "headers")
    for name in names:
        assert getattr(short, name) == getattr(whole, name), name
    assert tools == dialect.tools(whole)
    assert dialect.parse(copy.copy(short)) == dialect.parse(whole)
    assert short.data == whole.data == short.fields


@compiled
@pytest.mark.parametrize("name", ["mine", "another", 'with "quotes"', "ünïcode"])
def test_another_model_is_put_in_its_place_and_nothing_else_is_touched(name: str) -> None:
    raw = b'{ "x":{"model":"mine"}, "model" :  "mine" , "messages":[{"content":"%b"}]}' % (b"x" * LONG)
    head = OpenAIChat().peek(raw, "generate", {}, {})
    assert head.spot is not None
    begin, rest = raw.split(b':  "mine"')
    assert renamed(head, name) == begin + b":  " + json.dumps(name, ensure_ascii=False).encode() + rest


def test_a_head_with_another_body_has_all_of_it() -> None:
    raw = orjson.dumps({"model": "m", "messages": [{"content": "x" * LONG}]})
    head = OpenAIChat().peek(raw, "generate", {}, {}).with_body(b"{}", {"a": 1})
    assert (head.raw, head.data, head.fields, head.spot) == (b"{}", {"a": 1}, {"a": 1}, None)
