"""What an answer rests on, in this format's words: sources beside the candidate, and which of its words rest on which.

The vendor counts bytes, over all that the candidate says; the hub counts characters, within one text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from relay.ir import Citation

__all__ = ["Cited", "citations_of", "grounding", "is_shown"]

Wire = dict[str, Any]
Cited = tuple[str, Sequence[Citation]]
"""A text, and what it rests on."""
_KINDS = ("web", "retrievedContext", "maps")


# From the vendor's answers.


def citations_of(candidate: Mapping[str, Any], texts: Sequence[str]) -> Iterator[tuple[int, Citation]]:
    """What the texts of a candidate rest on, each with the number of its text."""
    said = "".join(texts)
    coded = said.encode("utf-8", "surrogatepass")
    metadata = candidate.get("groundingMetadata")
    if isinstance(metadata, dict):
        sources = [_source(chunk) for chunk in _list(metadata, "groundingChunks")]
        supported = False
        for support in _list(metadata, "groundingSupports"):
            if not isinstance(support, dict):
                continue
            segment = support.get("segment")
            span = _span(segment if isinstance(segment, dict) else {}, said, coded)
            for number in _list(support, "groundingChunkIndices"):
                if type(number) is int and 0 <= number < len(sources) and (source := sources[number]) is not None:
                    supported = True
                    yield _placed(source, span, texts)
        if not supported:
            # Nobody says which words rest on them.
            yield from (_placed(source, None, texts) for source in sources if source is not None)
    recited = candidate.get("citationMetadata")
    if isinstance(recited, dict):
        for entry in (*_list(recited, "citationSources"), *_list(recited, "citations")):
            if isinstance(entry, dict) and (source := _named(entry)) is not None:
                yield _placed(source, _span(entry, said, coded), texts)


def _list(fields: Mapping[str, Any], name: str) -> list[Any]:
    value = fields.get(name)
    return value if isinstance(value, list) else []


def _source(chunk: Any) -> Citation | None:
    """The source that a chunk is, as a citation of everything."""
    fields = next((chunk[kind] for kind in _KINDS if chunk.get(kind)), None) if isinstance(chunk, dict) else None
    return _named(fields) if isinstance(fields, dict) else None


def _named(fields: Mapping[str, Any]) -> Citation | None:
    url, title, quote = (fields.get(name) for name in ("uri", "title", "text"))
    known = Citation(
        url if isinstance(url, str) and url else None,
        title if isinstance(title, str) and title else None,
        quote if isinstance(quote, str) and quote else None,
    )
    return known if known != Citation() else None


def _span(segment: Mapping[str, Any], said: str, coded: bytes) -> tuple[int, int] | None:
    """Where in what was said a segment stands, in characters; None if that cannot be told."""
    start, end, words = segment.get("startIndex", 0), segment.get("endIndex"), segment.get("text")
    if type(start) is int and type(end) is int and 0 <= start < end <= len(coded):
        try:
            before, found = coded[:start].decode("utf-8", "surrogatepass"), coded[start:end]
            shown = found.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            shown = ""
        if shown and (not isinstance(words, str) or shown == words):
            return len(before), len(before) + len(shown)
    if isinstance(words, str) and words and (place := said.find(words)) >= 0:
        return place, place + len(words)
    return None


def _placed(source: Citation, span: tuple[int, int] | None, texts: Sequence[str]) -> tuple[int, Citation]:
    """The citation in the text in which its words stand; without any, in the last."""
    if span is None:
        return len(texts) - 1, source
    begin = 0
    for number, text in enumerate(texts):
        if span[0] < begin + len(text):
            end = min(span[1] - begin, len(text))
            return number, Citation(source.url, source.title, source.quote, start=span[0] - begin, end=end)
        begin += len(text)
    return len(texts) - 1, source


# To the vendor's clients.


def grounding(texts: Iterable[Cited]) -> Wire | None:
    """`groundingMetadata` of a candidate that says these texts; None if they rest on nothing that has a form here."""
    chunks: list[Wire] = []
    supports: dict[tuple[int, int], Wire] = {}
    begin = 0
    for text, citations in texts:
        for citation in citations:
            chunk = _chunk(citation)
            if chunk is None:
                continue
            if chunk not in chunks:
                chunks.append(chunk)
            start = 0 if citation.start is None else citation.start
            words = text[start : len(text) if citation.end is None else citation.end]
            if not words:
                continue
            first = begin + _bytes(text[:start])
            last = first + _bytes(words)
            segment = {"startIndex": first, "endIndex": last, "text": words}
            known = supports.setdefault((first, last), {"segment": segment, "groundingChunkIndices": []})
            number = chunks.index(chunk)
            if number not in known["groundingChunkIndices"]:
                known["groundingChunkIndices"].append(number)
        begin += _bytes(text)
    if not chunks:
        return None
    return {"groundingChunks": chunks, **({"groundingSupports": list(supports.values())} if supports else {})}


def is_shown(citation: Citation) -> bool:
    """Whether there is a form for it."""
    return _chunk(citation) is not None


def _chunk(citation: Citation) -> Wire | None:
    """A page, or what was read in a document; None for a source without any name."""
    titled = {"title": citation.title} if citation.title else {}
    if citation.url and (not citation.quote or citation.url.startswith(("http://", "https://"))):
        # A page has no place for its words, and the page matters more.
        return {"web": {"uri": citation.url, **titled}}
    quoted = {"text": citation.quote} if citation.quote else {}
    located = {"uri": citation.url} if citation.url else {}
    context = {**located, **titled, **quoted}
    if not context and citation.file_id:
        context = {"title": citation.file_id}
    return {"retrievedContext": context} if context else None


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
