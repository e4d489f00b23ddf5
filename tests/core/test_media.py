"""Media types by the ending of a URL."""

from __future__ import annotations

import re

import pytest

from relay.media import TYPES, media_type_at


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://a.example/cat.png", "image/png"),
        ("https://a.example/b.c/CAT.JPG?width=5.txt#a.b", "image/jpeg"),
        ("gs://bucket/folder/talk.flac", "audio/flac"),
        ("s3://bucket/report.pdf", "application/pdf"),
        ("https://a.example/v1.5/cat", None),
        ("https://a.example/png", None),
        ("https://a.example/cat.png/", None),
        ("https://a.example/cat.", None),
        ("https://[a/cat.png", None),
        ("", None),
    ],
)
def test_a_name_at_the_end_of_a_url_tells_its_media_type(url: str, wanted: str | None) -> None:
    assert media_type_at(url) == wanted


def test_the_table_has_types_as_vendors_spell_them() -> None:
    for ending, found in TYPES.items():
        assert re.fullmatch(r"[a-z0-9]+", ending), ending
        assert re.fullmatch(r"(application|audio|image|text|video)/[a-z0-9.+-]+", found), found
