"""What a text rests on, in this format's words: citations stand on their block, and are about all of it."""

from __future__ import annotations

from typing import Any

from relay.ir import Citation
from relay_anthropic.wire import DIALECT, LABEL, is_labelled

__all__ = ["citation_block", "citation_blocks", "citation_of", "is_foreign_citation"]


def citation_of(value: Any) -> Citation:
    """The source that a citation names: a page, a document, or a result of a search."""
    if not isinstance(value, dict):
        return Citation()
    url, source, title, document, quote, file = (
        value.get(name) for name in ("url", "source", "title", "document_title", "cited_text", "file_id")
    )
    if isinstance(source, str) and "://" in source:
        url = source
    return Citation(
        url if isinstance(url, str) and url else None,
        next((text for text in (title, document) if isinstance(text, str) and text), None),
        quote if isinstance(quote, str) and quote else None,
        file_id=file if isinstance(file, str) and file else None,
        # What the relay wrote for another vendor's citation is none of this vendor's.
        extra=None if is_foreign_citation(value) else {DIALECT: value},
    )


def citation_block(citation: Citation) -> dict[str, Any] | None:
    """A citation; None for one of another vendor's that names no page, for which there is no form.

    The vendor's own go with what only it can read, which stands as a label where there is none.
    """
    own = (citation.extra or {}).get(DIALECT)
    if own:
        return own
    if not citation.url:
        return None
    return {
        "type": "web_search_result_location",
        "url": citation.url,
        "title": citation.title,
        "cited_text": citation.quote or "",
        "encrypted_index": LABEL,
    }


def citation_blocks(citations: list[Citation] | None) -> list[dict[str, Any]]:
    """Those of the citations for which there is a form."""
    return [block for citation in citations or () if (block := citation_block(citation)) is not None]


def is_foreign_citation(value: Any) -> bool:
    """Whether the relay wrote this citation for another vendor's."""
    return isinstance(value, dict) and is_labelled(value.get("encrypted_index"))
