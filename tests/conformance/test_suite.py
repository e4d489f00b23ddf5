"""The suite notices what it is there for: each of these families breaks one rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from relay.testing import FamilySuite
from tests.conformance.test_families import from_the_pages
from tests.conformance.vectors import PARROT

pytestmark = pytest.mark.promise("P-08")

SECRET = "parrot-secret-0123456789"
AUTHORISED = '"authorization": target.upstream.api_key.reveal()'
HEADERS = '{"content-type": "application/json"}'
CLOSED = '[Failure(UpstreamProtocol("the parrot fell silent"))]'
FAULTS: Mapping[str, tuple[str, str, str]] = {
    "invents an end": (
        CLOSED,
        '[*self.start, PartStop(0), ChoiceStop(StopReason("stop")), MessageStop()]',
        "a_stream_that_breaks_off_is_a_failure",
    ),
    "tells no end": (CLOSED, "[]", "a_stream_that_breaks_off_is_a_failure"),
    "reads what has come so far": (
        "self.lines.feed(data)",
        "data.splitlines()",
        "any_cut_of_the_bytes_gives_the_same_events",
    ),
    "goes on after the end": (
        "        if self.done:\n            return []\n",
        "        if self.done: self.start = []\n",
        "what_comes_behind_the_end_changes_nothing",
    ),
    "believes every count": ('token_count(value["said"])', 'value["said"]', "counts_are_numbers_of_tokens_or_not_told"),
    "raises what it likes": (
        'value.get("word", "")',
        'value["word"]',
        "damaged_bytes_raise_nothing_that_is_not_declared",
    ),
    "starts no part": (', PartStart(0, Text(""))]', "]", "a_stream_says_what_it_says"),
    "stops for no reason": (
        'ChoiceStop(StopReason("stop")), ',
        "",
        "a_stream_says_what_it_says",
    ),
    "says something else at once": (
        "decoder.feed(body)",
        'decoder.feed(body.replace(b"Hello", b"Goodbye"))',
        "a_complete_answer_says_the_same",
    ),
    "forgets in silence": (
        "last_words(request, losses)",
        "request.messages[-1].text",
        "what_differs_is_written_differently_or_told",
    ),
    "declares no losses": (
        ", losses=[UNHEARD]",
        "",
        "requests_of_every_kind_are_written_or_refused_with_a_reason",
    ),
    "changes the request": (
        "    return dumps(",
        "    request.messages.append(request.messages[-1])\n    return dumps(",
        "requests_of_every_kind_are_written_or_refused_with_a_reason",
    ),
    "writes by chance": (
        '{"model": target.model,',
        '{"id": __import__("os").urandom(8).hex(), "model": target.model,',
        "requests_of_every_kind_are_written_or_refused_with_a_reason",
    ),
    "goes elsewhere": (
        'target.upstream.base_url + "/say"',
        '"http://elsewhere.test/say"',
        "requests_go_to_the_upstream_with_its_credential_and_nowhere_else",
    ),
    "leaves its path": (
        'target.upstream.base_url + "/say"',
        'target.upstream.base_url.removesuffix("/base") + "/say"',
        "requests_go_to_the_upstream_with_its_credential_and_nowhere_else",
    ),
    "tells its key in the address": (
        '+ "/say"',
        '+ "/say?key=" + target.upstream.api_key.reveal()',
        "requests_go_to_the_upstream_with_its_credential_and_nowhere_else",
    ),
    "sends no key": (
        AUTHORISED,
        '"x-parrot": "1"',
        "requests_go_to_the_upstream_with_its_credential_and_nowhere_else",
    ),
    "breaks a line": (
        AUTHORISED,
        AUTHORISED + ' + "\\r\\nx-evil: 1"',
        "requests_go_to_the_upstream_with_its_credential_and_nowhere_else",
    ),
    "shows a 401": (
        "class Decoder:",
        "@hookimpl\ndef translate_error(status):\n    return UpstreamProtocol('no', status=status)\n\n\nclass Decoder:",
        "refusals_are_told_and_the_relays_own_credentials_are_not_the_callers",
    ),
    "says that it calls functions": (
        ", losses=[UNHEARD]",
        ', losses=[UNHEARD], capabilities={"function_calling": True}',
        "calls_of_tools_arrive_with_their_arguments",
    ),
}
"""What is changed in the parrot of the README, and the test that notices."""


class Parrot(FamilySuite):
    __test__ = False
    family = "parrot"
    vectors = replace(PARROT, secret=SECRET)


def changed(folder: Path, before: str, after: str) -> type[FamilySuite]:
    file = from_the_pages("parrot.py", folder)
    text = file.read_text(encoding="utf-8").replace(HEADERS, "{" + AUTHORISED + "}")
    assert text.count(before) == 1 or before == after
    file.write_text(text.replace(before, after), encoding="utf-8")
    return type("Changed", (Parrot,), {"plugin": file})


def fails(suite: type[FamilySuite], test: str) -> bool:
    """Whether a test fails, as pytest would see it."""
    one = suite()
    plugins = suite.loaded()
    bound = plugins.families["parrot"]
    try:
        getattr(one, f"test_{test}")(bound, one.at(bound))
    except pytest.skip.Exception:
        return False
    except Exception:
        return True
    return False


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_noticed(tmp_path: Path, fault: str) -> None:
    before, after, test = FAULTS[fault]
    assert not fails(changed(tmp_path, "", ""), test), "without the fault it passes"
    assert fails(changed(tmp_path, before, after), test)
