"""Pictures, documents and the like as blocks of a request."""

from __future__ import annotations

import re
from collections.abc import Mapping

from relay import kit
from relay.errors import BadParameter, Unsupported
from relay.ir import Media
from relay.media import media_type_at
from relay_anthropic.losses import DETAIL
from relay_bedrock.losses import TITLE
from relay_bedrock.wire import Block

__all__ = ["MediaWriter"]

FORMATS: Mapping[str, Mapping[str, str]] = {
    "image": {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"},
    "document": {
        "application/pdf": "pdf",
        "text/csv": "csv",
        "application/msword": "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
        "application/vnd.ms-excel": "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
        "text/html": "html",
        "text/plain": "txt",
        "text/markdown": "md",
        "text/x-markdown": "md",
        "application/json": "txt",
        "application/xml": "txt",
        "application/yaml": "txt",
    },
    "video": {
        "video/mp4": "mp4",
        "video/quicktime": "mov",
        "video/x-matroska": "mkv",
        "video/webm": "webm",
        "video/x-flv": "flv",
        "video/mpeg": "mpeg",
        "video/x-ms-wmv": "wmv",
        "video/3gpp": "three_gp",
    },
    "audio": {
        "audio/mpeg": "mp3",
        "audio/mp3": "mp3",
        "audio/wav": "wav",
        "audio/x-wav": "wav",
        "audio/wave": "wav",
        "audio/aac": "aac",
        "audio/flac": "flac",
        "audio/mp4": "mp4",
        "audio/m4a": "m4a",
        "audio/ogg": "ogg",
        "audio/opus": "opus",
        "audio/webm": "webm",
        "audio/pcm": "pcm",
        "audio/pcm16": "pcm",
    },
}
"""The vendor's words for what it takes, by media type."""
USUAL = {"image": "png", "document": "pdf", "audio": "wav", "video": "mp4"}
"""For content that neither says nor shows what it is."""
S3 = "s3://"
_ODD = re.compile(r"[^a-zA-Z0-9()\[\] -]+")
_BLANKS = re.compile(r" {2,}")
LONGEST_NAME = 200


class MediaWriter:
    """Writes the media of one request. It remembers the names of documents, which must differ."""

    __slots__ = ("_losses", "_names")

    def __init__(self, losses: kit.Losses) -> None:
        self._losses = losses
        self._names: set[str] = set()

    def block_of(self, part: Media, where: str) -> Block:
        """One medium. Raises Unsupported for what no model here takes, BadParameter for what cannot be read."""
        media_type, source = _source(part, where)
        if part.detail not in (None, "auto"):
            self._losses.add(DETAIL, where=where)
        inner: Block = {"format": _format(part.kind, media_type, where), "source": source}
        if part.kind == "document":
            inner["name"] = self._name(part.name)
        return {part.kind: inner}

    def _name(self, given: str | None) -> str:
        """A name of the characters that are allowed, which no other document of the request has."""
        name = _BLANKS.sub(" ", _ODD.sub(" ", given or "")).strip()[: LONGEST_NAME - 8].strip()
        if given and name != given:
            self._losses.add(TITLE, where="messages[]")
        name = name or "document"
        number, whole = 1, name
        while whole in self._names:
            number += 1
            whole = f"{name} {number}"
        self._names.add(whole)
        return whole


def _source(part: Media, where: str) -> tuple[str | None, Block]:
    """The media type, as far as it is known, and the content or the place of it."""
    param = f"{where}.content"
    if part.file_id is not None:
        raise Unsupported(f"file {part.file_id!r} lives at another vendor; send its content instead", param=param)
    media_type, data = part.media_type, part.data or ""
    if part.url is not None:
        if part.url.startswith(S3):
            return media_type or media_type_at(part.url), {"s3Location": {"uri": part.url}}
        try:
            inline = kit.parse_data_url(part.url)
        except ValueError as error:
            raise BadParameter(str(error), param=param) from None
        if inline is None:
            message = "this upstream fetches nothing from the web, only from s3:// addresses; send the content instead"
            raise Unsupported(message, param=param)
        media_type, data = media_type or inline[0], inline[1]
    seen = kit.media_type_of(data)
    # What the content shows counts for more than what is said of a picture: wrong labels are refused.
    return (seen or media_type if part.kind == "image" else media_type or seen), {"bytes": data}


def _format(kind: str, media_type: str | None, where: str) -> str:
    if media_type is None or media_type == "application/octet-stream":
        return USUAL[kind]
    plain = media_type.partition(";")[0].strip().lower()
    found = FORMATS[kind].get(plain)
    if found is None and kind == "document" and plain.startswith("text/"):
        found = "txt"
    if found is None:
        message = f"this upstream's models take no {kind} of the type {plain}"
        raise Unsupported(message, param=f"{where}.content")
    return found
