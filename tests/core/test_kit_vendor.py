"""The pieces of the kit that read and write vendors' JSON."""

from __future__ import annotations

import base64
import json

import pytest

from relay import kit
from relay.errors import UpstreamProtocol
from relay.events import Event, Failure, MessageStart, PartStart, PartStop, TextDelta
from relay.ir import Loss, LossKind, Request, Text


@pytest.mark.parametrize("value", [0, 1, 10**9])
def test_a_plausible_count_is_kept(value: int) -> None:
    assert kit.token_count(value) == value


@pytest.mark.parametrize("value", [-1, 10**9 + 1, 2**63, True, False, 1.0, "12", None, [], {}, float("nan")])
def test_an_implausible_count_is_not_reported(value: object) -> None:
    assert kit.token_count(value) is None


def test_json_objects_are_written_again_as_they_stand() -> None:
    text = '{"b": 1.0,  "a":1e2, "long": 123456789012345678901234567890}'
    assert kit.dumps({"input": kit.json_object(text)}) == b'{"input":' + text.encode() + b"}"


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_empty_arguments_are_an_empty_object(text: str) -> None:
    assert kit.json_object(text) == {}


@pytest.mark.parametrize("text", ["[1]", '"text"', "null", "1", '{"cut": "of', "{'a': 1}"])
def test_what_is_not_an_object_is_refused(text: str) -> None:
    assert kit.json_object(text) is None


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": "\\ud800"}'])
def test_sloppy_objects_become_valid_json(text: str) -> None:
    written = kit.dumps({"input": kit.json_object(text)})
    assert list(json.loads(written)["input"]) == ["a"]
    assert b"NaN" not in written


def test_ready_json_survives_beside_a_lone_surrogate() -> None:
    written = kit.dumps({"input": kit.json_object('{"b":2, "a":1}'), "text": "\ud83d"})
    assert json.loads(written) == {"input": {"b": 2, "a": 1}, "text": "\ud83d"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\x89PNG\r\n\x1a\nrest", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"%PDF-1.7", "application/pdf"),
        (b"plain text", None),
        (b"", None),
    ],
)
def test_media_types_are_read_from_the_data(data: bytes, expected: str | None) -> None:
    assert kit.media_type_of(base64.b64encode(data).decode()) == expected


def test_web_pages_are_not_shown_as_messages() -> None:
    assert kit.plain_message(b"<html><body>secret</body></html>", 502) == "the upstream answered with status 502"
    assert kit.plain_message(b"", 500) == "the upstream answered with status 500"
    assert kit.plain_message(b" Not Found \n", 404) == "Not Found"
    assert len(kit.plain_message(b"x" * 100_000, 500)) == kit.MAX_MESSAGE
    assert kit.plain_message(b"\xff\xfe", 500) == "\ufffd\ufffd"


def test_foreign_fields_are_losses_unless_they_change_nothing() -> None:
    request = Request(
        model="m",
        messages=[],
        extra={
            "openai-chat": {
                "logit_bias": {"1": 5},
                "service_tier": "auto",
                "store": True,
                "metadata": {"a": "b"},
                "modalities": ["text", "audio"],
                "prediction": None,
                "web_search_options": False,
                "plugins": [],
            },
            "mine": {"anything": 1},
        },
    )
    assert kit.foreign_fields(request, "mine") == [
        Loss("logit_bias", "the target has no equivalent of this openai-chat field"),
        Loss("modalities", "the target has no equivalent of this openai-chat field"),
    ]


def test_an_empty_object_asks_for_a_feature_with_its_defaults() -> None:
    fields = {"web_search_options": {}, "logit_bias": {}, "metadata": {}}
    request = Request(model="m", messages=[], extra={"openai-chat": fields})
    assert [loss.field for loss in kit.foreign_fields(request, "mine")] == ["web_search_options"]


def test_a_loss_is_reported_once() -> None:
    seed, tool = LossKind("seed", "seed", "no", "always"), LossKind("tool", "tools[{place}]", "no {type}", "always")
    found = [Loss("seed", "no")]
    losses = kit.Losses(found)
    losses.add(seed)
    losses.add(tool, place=1, type="look")
    losses.add(tool, place=1, type="look")
    losses.take(Loss("tools[1]", "no look"))
    assert found == [Loss("seed", "no"), Loss("tools[1]", "no look")]
    assert [loss.kind for loss in found] == [None, tool]


def test_fields_that_only_shape_how_an_answer_comes_about_are_hints() -> None:
    fields = {"verbosity": "low", "tools[3].format": {"type": "grammar"}, "web_search_options": {}}
    losses = kit.foreign_fields(Request(model="m", messages=[], extra={"openai-chat": fields}), "mine")
    assert [(loss.field, loss.hint) for loss in losses] == [
        ("verbosity", True),
        ("tools[3].format", True),
        ("web_search_options", False),
    ]


def test_events_fold_into_a_response_or_raise() -> None:
    events: list[Event] = [MessageStart("id", "model"), PartStart(0, Text("")), TextDelta(0, "a"), PartStop(0)]
    assert kit.folded(events).choices[0].text == "a"
    with pytest.raises(UpstreamProtocol, match="broke"):
        kit.folded([*events, Failure(UpstreamProtocol("broke"))])


@pytest.mark.parametrize(("status", "again"), [(401, False), (403, False), (402, False), (429, None), (500, None)])
def test_clients_are_told_where_trying_again_is_no_use(status: int, again: bool | None) -> None:
    assert kit.error_for_status(status, "no", {}).should_retry is again
