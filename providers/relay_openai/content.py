"""Content of messages: a string, or a list of typed parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import BadParameter
from relay.fields import fault, obj, text, word
from relay.ir import Cache, Media, Opaque, Part, Refusal, Text, Thinking
from relay.kit import media_type_of, parse_data_url
from relay_openai.reader import thinking_text
from relay_openai.wire import AUDIO_TYPES, DIALECT, own_extra

__all__ = ["cache_of", "parse_content"]


def cache_of(fields: Mapping[str, Any], path: str) -> Cache | None:
    """The cache marker that gateways of this format take on parts and tools."""
    value = fields.get("cache_control")
    if value is None:
        return None
    ttl = obj(value, f"{path}.cache_control").get("ttl")
    return Cache(None if ttl is None else text(ttl, f"{path}.cache_control.ttl"))


def parse_content(value: Any, path: str) -> list[Part]:
    """The parts of `content`; none where it is null."""
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
    if read is None:
        return Opaque(DIALECT, fields)
    part = read(fields, path)
    if not isinstance(part, Opaque):
        part.cache = cache_of(fields, path)
        known = ("type", "cache_control", kind)
        rest = {key: item for key, item in fields.items() if key not in known and item is not None}
        if rest:
            part.extra = {DIALECT: {**(part.extra or {}).get(DIALECT, {}), **rest}}
    return part


def _text(fields: dict[str, Any], path: str) -> Part:
    return Text(text(fields.get("text"), f"{path}.text"))


def _refusal(fields: dict[str, Any], path: str) -> Part:
    return Refusal(text(fields.get("refusal"), f"{path}.refusal"))


def _thinking(fields: dict[str, Any], path: str) -> Part:
    """Reasoning inside the content, which one vendor writes and wants back in the same form."""
    return Thinking(thinking_text(fields), dialect=DIALECT, extra=own_extra({"thinking": fields.get("thinking")}))


def _image(fields: dict[str, Any], path: str) -> Part:
    holder = fields.get("image_url")
    if isinstance(holder, str):
        holder = {"url": holder}
    inner = obj(holder, f"{path}.image_url")
    media = _located("image", word(inner.get("url"), f"{path}.image_url.url"), f"{path}.image_url.url")
    detail = inner.get("detail")
    media.detail = None if detail is None else text(detail, f"{path}.image_url.detail")
    rest = {key: item for key, item in inner.items() if key not in ("url", "detail") and item is not None}
    media.extra = own_extra({"image_url": rest} if rest else {})
    return media


def _video(fields: dict[str, Any], path: str) -> Part:
    holder = fields.get("video_url")
    if isinstance(holder, str):
        holder = {"url": holder}
    url = obj(holder, f"{path}.video_url").get("url")
    return _located("video", word(url, f"{path}.video_url.url"), f"{path}.video_url.url")


def _audio(fields: dict[str, Any], path: str) -> Part:
    inner = fields.get("input_audio")
    if isinstance(inner, str):
        # One vendor takes the bare base64 text and finds out the format by itself.
        return Opaque(DIALECT, fields)
    inner = obj(inner, f"{path}.input_audio")
    form = word(inner.get("format"), f"{path}.input_audio.format")
    data = word(inner.get("data"), f"{path}.input_audio.data")
    return Media("audio", AUDIO_TYPES.get(form, f"audio/{form}"), data=data)


def _file(fields: dict[str, Any], path: str) -> Part:
    inner = obj(fields.get("file"), f"{path}.file")
    name = inner.get("filename")
    data = inner.get("file_data")
    if data is not None:
        where = f"{path}.file.file_data"
        data = word(data, where)
        if data.startswith(("data:", "https://", "http://")):
            media = _located("document", data, where)
        else:
            media = Media("document", media_type_of(data) or "application/octet-stream", data=data)
    else:
        media = Media("document", file_id=word(inner.get("file_id"), f"{path}.file.file_id"))
    media.name = None if name is None else text(name, f"{path}.file.filename")
    rest = {key: item for key, item in inner.items() if key not in ("filename", "file_data", "file_id")}
    media.extra = own_extra({"file": rest} if rest else {})
    return media


def _located(kind: Any, url: str, path: str) -> Media:
    """Media by URL, or taken out of a `data:` URL."""
    comma = url.find(",", 0, 512)
    if url[:5].lower() == "data:" and ";base64" not in url[: max(comma, 0)].lower():
        raise BadParameter(f"{path} is a data: URL whose data is not base64", param=path)
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
    "text": _text,
    "refusal": _refusal,
    "thinking": _thinking,
    "image_url": _image,
    "video_url": _video,
    "input_audio": _audio,
    "file": _file,
}
