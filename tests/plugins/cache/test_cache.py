"""The cache by itself: its options, what makes two questions the same, what it keeps and for how long."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import Given, Head, Price, Question, Rates, Source, Target, Upstream
from relay.manager import Plugins
from relay_cache import on_call
from relay_cache.policy import AnswerCache, Wishes
from relay_cache.question import READ, canonical, place, question_digest
from relay_cache.settings import CacheSettings, read_settings
from relay_cache.shelf import OVERHEAD, Answers

UPSTREAM = Upstream("up", "x", "http://up", dialects=frozenset({"d"}), headers={"a": "b"}, options={"o": 1})
SOURCE = Source(Target(UPSTREAM, "m-1"), "package p 1.0", Price(Rates(input=1, output=2)))
BODY: dict[str, Any] = {
    "model": "m",
    "temperature": 0.5,
    "user": "u",
    "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Hi"}],
    "metadata": {"a": 1, "b": 2},
}


def head(body: Any = BODY, **fields: Any) -> Head:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Head(**{"operation": "generate", "model": "m", "raw": raw, "data": json.loads(raw), **fields})


def question(**fields: Any) -> Question:
    known: dict[str, Any] = {
        "key": 1,
        "key_name": "k",
        "strict": False,
        "model": "m",
        "dialect": "d",
        "head": head(),
        "plugin": "package p 1.0",
        "repeatable": True,
        "wishes": "",
        "sources": [SOURCE],
    }
    return Question(**{**known, **fields})


def answer(body: bytes = b"{}", **fields: Any) -> Given:
    known: dict[str, Any] = {"headers": {}, "content_type": "application/json", "stream": False, "source": SOURCE}
    return Given(**{**known, "body": body, "stops": ("stop",), **fields})


def changed(**fields: Any) -> Question:
    """The question with another body."""
    return question(head=head({**BODY, **fields}))


OTHERS = {
    "key": question(key=2),
    "strict": question(strict=True),
    "model": question(model="n"),
    "spelling of the model": question(head=head(model="up/m")),
    "dialect": question(dialect="e"),
    "version of the dialect": question(plugin="package p 1.1"),
    "operation": question(head=head(operation="embeddings")),
    "stream": question(head=head(stream=True)),
    "form of the stream": question(head=head(stream_type="application/json")),
    "header that passes": question(head=head(headers={"anthropic-beta": "x"})),
    "system text": changed(messages=[{"role": "system", "content": "t"}, BODY["messages"][1]]),
    "order of messages": changed(messages=BODY["messages"][::-1]),
    "order of tools": changed(tools=["b", "a"]),
    "temperature": changed(temperature=0.6),
    "user": changed(user="v"),
    "field that nobody knows": changed(x=None),
    "kind of a number": changed(temperature="0.5"),
}


@pytest.mark.promise("L-12")
@pytest.mark.parametrize("what", OTHERS)
def test_whatever_could_change_the_answer_makes_another_question(what: str) -> None:
    assert question_digest(OTHERS[what], shared=False) != question_digest(question(), shared=False)
    found = {question_digest(one, shared=False) for one in OTHERS.values()}
    assert len(found) == len(OTHERS), "each difference is one of its own"


@pytest.mark.promise("L-12")
@pytest.mark.parametrize(
    "source",
    [
        replace(SOURCE, plugin="package p 1.1"),
        replace(SOURCE, price=None),
        replace(SOURCE, price=Price(Rates(input=1, output=3))),
        replace(SOURCE, target=Target(UPSTREAM, "m-2")),
        *(
            replace(SOURCE, target=Target(replace(UPSTREAM, **{name: value}), "m-1"))
            for name, value in {
                "name": "other",
                "family": "y",
                "base_url": "http://other",
                "dialects": frozenset(),
                "headers": {"a": "c"},
                "options": {"o": 2},
            }.items()
        ),
    ],
)
def test_whatever_changes_about_the_target_makes_another_place(source: Source) -> None:
    digest = question_digest(question(), shared=False)
    assert place(digest, source) != place(digest, SOURCE)


def test_a_target_that_was_only_read_again_is_the_same() -> None:
    digest = question_digest(question(), shared=False)
    again = replace(SOURCE, target=Target(replace(UPSTREAM), "m-1"))
    assert place(digest, again) == place(digest, SOURCE)


def test_neither_blanks_nor_the_order_of_keys_nor_escapes_matter() -> None:
    raws = [
        json.dumps(BODY).encode(),
        json.dumps(BODY, indent=2).encode(),
        json.dumps(dict(reversed(BODY.items())), separators=(",", ":")).encode(),
        json.dumps(BODY).replace('"Hi"', '"\\u0048i"').encode(),
    ]
    assert len({question_digest(question(head=head(raw)), shared=False) for raw in raws}) == 1


@pytest.mark.promise("L-12")
@pytest.mark.parametrize(
    ("one", "other"),
    [
        # Read alike, and perhaps not by whoever gets the bytes: who takes the first of two keys, or exact numbers.
        (b'{"a": 1, "a": 2}', b'{"a": 2}'),
        (b'{"x": {"a": 1, "a": 2}}', b'{"x": {"a": 2}}'),
        (b'{"a": 1, "\\u0061": 2}', b'{"a": 2}'),
        (b'{"seed": 9007199254740993.0}', b'{"seed": 9007199254740992.0}'),
        (b'{"seed": 100000000000000000000001}', b'{"seed": 100000000000000000000000}'),
        (b'{"a": 1}', b'{"a": 1.0}'),
        (b'{"a": true}', b'{"a": 1}'),
        (b'{"a": null}', b"{}"),
        (b'{"a": "1"}', b'{"a": 1}'),
        (b'{"a": [1]}', b'{"a": 1}'),
    ],
)
def test_bodies_that_somebody_could_read_otherwise_are_not_the_same(one: bytes, other: bytes) -> None:
    import orjson

    assert canonical(one, orjson.loads(one)) != canonical(other, orjson.loads(other))


def test_what_is_too_long_or_too_deep_to_be_looked_through_is_compared_byte_for_byte() -> None:
    import orjson

    for raw in (b'{"a": "%b"}' % (b"x" * READ), b'{"a": %b1%b}' % (b"[" * 300, b"]" * 300)):
        assert canonical(raw, orjson.loads(raw)) == b"raw " + raw


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, width=32) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def told_apart(value: Any) -> str:
    """A value so that 1, 1.0 and True are three."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name!r}:{told_apart(value[name])}" for name in sorted(value)) + "}"
    return f"[{','.join(map(told_apart, value))}]" if isinstance(value, list) else f"{type(value).__name__} {value!r}"


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), st.dictionaries(st.text(max_size=3), VALUES))
def test_equal_spellings_are_equal_values(one: dict[str, Any], other: dict[str, Any]) -> None:
    spelled = [canonical(json.dumps(value).encode(), value) for value in (one, other)]
    assert (spelled[0] == spelled[1]) <= (told_apart(one) == told_apart(other))
    again = json.dumps(dict(reversed(one.items())), indent=1).encode()
    if spelled[0].startswith(b"json ") and not canonical(again, one).startswith(b"raw "):
        assert canonical(again, one) == spelled[0]


@pytest.mark.promise("L-12")
def test_shared_answers_are_those_to_questions_without_tools() -> None:
    mine, yours = question(key=1), question(key=2)
    assert question_digest(mine, shared=True) == question_digest(yours, shared=True)
    tools = head(has_tools=True)
    mine, yours = question(key=1, head=tools), question(key=2, head=tools)
    assert question_digest(mine, shared=True) != question_digest(yours, shared=True)


# What is kept.


def test_answers_are_bounded_in_bytes_and_the_unused_go_first() -> None:
    kept = Answers(3 * (OVERHEAD + 100), 60.0)
    for name in (b"a", b"b", b"c"):
        kept.put(name, answer(b"x" * 100), 0.0)
    assert kept.get(b"a", 1.0) is not None
    kept.put(b"d", answer(b"x" * 100), 2.0)
    assert [kept.get(name, 2.0) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]
    assert kept.size == 3 * (OVERHEAD + 100)
    kept.put(b"e", answer(b"x" * 10_000), 2.0)
    assert kept.get(b"e", 2.0) is None, "what is larger than all of it is not kept"
    assert len(kept) == 3


def test_what_is_put_again_counts_once() -> None:
    kept = Answers(10_000, 60.0)
    for number in range(5):
        kept.put(b"a", answer(b"x" * number), float(number))
    assert (len(kept), kept.size) == (1, OVERHEAD + 4)
    found = kept.get(b"a", 5.0)
    assert found is not None
    assert (found[0].body, found[1]) == (b"xxxx", 1.0)


@pytest.mark.promise("L-12")
def test_answers_grow_old() -> None:
    kept = Answers(10_000, 60.0)
    kept.put(b"a", answer(), 100.0)
    assert kept.get(b"a", 130.0, youngest=29.0) is None
    assert kept.get(b"a", 130.0, youngest=30.0) is not None
    assert kept.get(b"a", 159.9) is not None
    assert kept.get(b"a", 160.0) is None
    assert kept.size == 0
    kept.put(b"a", answer(), 100.0)
    assert kept.get(b"a", 99.0) is None, "a clock that was set back makes nothing young"


# What it is told.


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("", Wishes()),
        ("no-cache", Wishes(True, 0.0)),
        ("no-store", Wishes(False)),
        (" No-Store , no-cache", Wishes(False, 0.0)),
        ("max-age=30", Wishes(True, 30.0)),
        ("max-age=30, max-age=5", Wishes(True, 5.0)),
        ("max-age=0", Wishes(True, 0.0)),
        ("max-age=-1, private, max-age=x, no-cach", Wishes()),
    ],
)
def test_a_clients_wishes_are_understood(said: str, meant: Wishes) -> None:
    assert Wishes.read(said) == meant
    assert Wishes.read(said).anew is (meant.youngest == 0.0)


@pytest.mark.parametrize("options", [{}, {"enabled": False}, {"models": ["m"]}])
def test_it_is_off_until_it_is_switched_on(options: dict[str, Any]) -> None:
    assert on_call(options) is None
    assert Plugins.load(options={"cache": options}).policies() == []


def test_models_and_keys_are_named_or_all() -> None:
    def wanted(**options: Any) -> list[bool]:
        cache = AnswerCache(read_settings({"enabled": True, **options}))
        return [cache.wants(key, model) for key in ("ci", "bob") for model in ("gpt-4o", "o3")]

    assert wanted() == [True, True, True, True]
    assert wanted(models=["gpt-*"]) == [True, False, True, False]
    assert wanted(keys=["ci"]) == [True, True, False, False]
    assert wanted(keys=["ci"], models=["gpt-*"]) == [True, False, False, False]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"enable": True}, "no option 'enable'"),
        ({"enabled": 1}, "enabled must be true or false"),
        ({"models": "m"}, "models must be a list"),
        ({"models": []}, "models must be a list"),
        ({"keys": [1]}, "keys must be a list"),
        ({"seconds": 0}, "seconds must be a number from"),
        ({"seconds": True}, "seconds must be a number from"),
        ({"megabytes": "64"}, "megabytes must be a number from"),
        ({"megabytes": float("nan")}, "megabytes must be a number from"),
        ({"largest_kilobytes": -1}, "largest_kilobytes must be a number from"),
        ({"wait_seconds": 1e9}, "wait_seconds must be a number from"),
        ({"shared": "yes"}, "shared must be true or false"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        on_call(options)


def test_no_answer_is_recorded_beyond_all_the_room_there_is() -> None:
    small = AnswerCache(CacheSettings(megabytes=1.0, largest_kilobytes=4096.0))
    assert (small.room, small.largest) == (1024 * 1024, 1024 * 1024)
