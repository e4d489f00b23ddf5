"""What a text rests on, in this format's words."""

from __future__ import annotations

from typing import Any

from relay.ir import Citation
from relay_bedrock.wire import DIALECT

__all__ = ["citation_of", "citations_of"]


def citation_of(value: Any) -> Citation:
    """The source that a citation names: a page, a document of the request, or a result of a search."""
    if not isinstance(value, dict):
        return Citation()
    location, source, title = value.get("location"), value.get("source"), value.get("title")
    web = location.get("web") if isinstance(location, dict) else None
    url = web.get("url") if isinstance(web, dict) else None
    if not url and isinstance(source, str) and "://" in source:
        url = source
    words = value.get("sourceContent")
    quote = "".join(
        item["text"]
        for item in (words if isinstance(words, list) else ())
        if isinstance(item, dict) and isinstance(item.get("text"), str)
    )
    return Citation(
        url if isinstance(url, str) and url else None,
        title if isinstance(title, str) and title else None,
        quote or None,
        extra={DIALECT: value},
    )


def citations_of(value: Any) -> list[Citation]:
    """Those of a block."""
    return [citation_of(one) for one in value] if isinstance(value, list) else []
