"""Content of items in a request: a string, or a list of typed parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from relay.errors import BadParameter
from relay.fields import fault, items, obj, rest, text, word
from relay.ir import Extra, Media, Opaque, Part, Refusal, Text
from relay.kit import media_type_of, parse_data_url
from relay_openai.responses.items import citation_of
from relay_openai.responses.wire import DIALECT, own_extra
from relay_openai.wire import AUDIO_TYPES

__all__ = ["parse_content"]


def parse_content(value: Any, path: str) -> list[Part]:
    """The parts of `content` or `output`; none where it is null."""
    if value is None:
        return []
    if isinstance(value, str):
        return [Text(value)]
    if not isinstance(value, list):
        fault(path, "a string or an array of parts", value)
    return [_part(item, f"{path}[{place}]") for place, item in enumerate(value)]


def _part(value: Any, path: str) -> Part:
    fields = obj(value, path)
    kind = text(fields.get("type"), f"{path}.type")
    read = _KINDS.get(kind)
    return Opaque(DIALECT, fields) if read is None else read(fields, path)


# The fields of each that the hub has names for.
_TEXT = frozenset(("type", "text", "annotations"))
_IMAGE = frozenset(("type", "image_url", "file_id", "detail"))
_FILE = frozenset(("type", "file_data", "file_url", "file_id", "filename"))


def _own(fields: Mapping[str, Any], known: frozenset[str]) -> Extra | None:
    """The others. Empty lists say nothing either."""
    found = rest(fields, known)
    return own_extra({name: value for name, value in found.items() if value != []}) if found else None


def _text(fields: dict[str, Any], path: str) -> Part:
    citations = fields.get("annotations")
    found = items(citations, f"{path}.annotations") if citations is not None else []
    return Text(
        text(fields.get("text"), f"{path}.text"),
        citations=[citation_of(citation) for citation in found] or None,
        extra=_own(fields, _TEXT),
    )


def _refusal(fields: dict[str, Any], path: str) -> Part:
    return Refusal(text(fields.get("refusal"), f"{path}.refusal"))


def _image(fields: dict[str, Any], path: str) -> Part:
    detail = fields.get("detail")
    url, name = fields.get("image_url"), fields.get("file_id")
    if url is not None:
        media = _located("image", word(url, f"{path}.image_url"), f"{path}.image_url")
    elif name is not None:
        media = Media("image", file_id=word(name, f"{path}.file_id"))
    else:
        raise BadParameter(f"{path}.image_url is missing, and so is file_id", param=f"{path}.image_url")
    media.detail = None if detail is None else text(detail, f"{path}.detail")
    media.extra = _own(fields, _IMAGE)
    return media


def _file(fields: dict[str, Any], path: str) -> Part:
    data, url, file_id, name = (fields.get(key) for key in ("file_data", "file_url", "file_id", "filename"))
    if data is not None:
        where = f"{path}.file_data"
        data = word(data, where)
        if data[:5].lower() == "data:":
            media = _located("document", data, where)
        else:
            media = Media("document", media_type_of(data) or "application/octet-stream", data=data)
    elif url is not None:
        media = _located("document", word(url, f"{path}.file_url"), f"{path}.file_url")
    elif file_id is not None:
        media = Media("document", file_id=word(file_id, f"{path}.file_id"))
    else:
        raise BadParameter(f"{path}.file_data is missing, and so are file_url and file_id", param=f"{path}.file_data")
    media.name = None if name is None else text(name, f"{path}.filename")
    media.extra = _own(fields, _FILE)
    return media


def _audio(fields: dict[str, Any], path: str) -> Part:
    inner = obj(fields.get("input_audio"), f"{path}.input_audio")
    form = word(inner.get("format"), f"{path}.input_audio.format")
    data = word(inner.get("data"), f"{path}.input_audio.data")
    return Media("audio", AUDIO_TYPES.get(form, f"audio/{form}"), data=data)


def _located(kind: Literal["image", "document"], url: str, path: str) -> Media:
    """Media by URL, or taken out of a `data:` URL."""
    try:
        inline = parse_data_url(url)
    except ValueError as error:
        raise BadParameter(f"{path} cannot be read: {error}", param=path) from None
    if inline is None:
        return Media(kind, url=url)
    if not inline[1]:
        raise BadParameter(f"{path} is a data: URL without data", param=path)
    return Media(kind, inline[0], data=inline[1])


_KINDS: Mapping[str, Callable[[dict[str, Any], str], Part]] = {
    "input_text": _text,
    "output_text": _text,
    "text": _text,
    "summary_text": _text,
    "refusal": _refusal,
    "input_image": _image,
    "input_file": _file,
    "input_audio": _audio,
}
