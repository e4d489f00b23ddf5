"""The hub's turns to the `messages` of a request."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from relay.errors import Unsupported
from relay.ir import Loss, Media, Message, Opaque, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from relay.kit import data_url
from relay_openai.losses import BLOCK, CACHE, IS_ERROR, MEDIA, RESULT_MEDIA, SERVER_CALL, SERVER_RESULT, THINKING
from relay_openai.reminder import reasoning_fields
from relay_openai.shapes import call_object
from relay_openai.wire import AUDIO_TYPES, DIALECT, own_fields

__all__ = ["History", "cache_control"]

_FORMATS = {media_type: form for form, media_type in AUDIO_TYPES.items()} | {"audio/x-wav": "wav", "audio/mp3": "mp3"}


def cache_control(ttl: str | None) -> dict[str, Any]:
    """A cache marker as gateways of this format write it."""
    return {"type": "ephemeral", "ttl": ttl} if ttl else {"type": "ephemeral"}


class History:
    """Writes the turns of one request; what gets lost is appended to `lost`."""

    def __init__(self, options: Mapping[str, Any], lost: list[Loss]) -> None:
        self._lost = lost
        self._developer = bool(options.get("developer_role"))
        self._marks = bool(options.get("cache_control"))
        self._id_length: int | None = options.get("tool_id_length")
        self._messages: list[dict[str, Any]] = []
        self._waiting: list[dict[str, Any]] = []
        """Media out of tools' answers. A tool message holds only text, and nothing may stand between two of them."""

    def compose(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """All messages, in order."""
        for message in messages:
            _ROLES[message.role](self, message)
        self._flush()
        return self._messages

    def _flush(self) -> None:
        if self._waiting:
            self._messages.append({"role": "user", "content": self._waiting})
            self._waiting = []

    def _finish(self, body: dict[str, Any], message: Message) -> None:
        """Add the name and the dialect's own fields, and take the message."""
        if message.name is not None:
            body["name"] = message.name
        for key, value in own_fields(message.extra).items():
            if key == "cache_control" and not self._marks:
                continue
            if key != "role":
                body.setdefault(key, value)
        self._messages.append(body)

    # Turns.

    def _system(self, message: Message) -> None:
        self._flush()
        role = own_fields(message.extra).get("role", "system")
        items = self._items(message)
        content = joined(items, "\n\n")
        self._finish({"role": role if self._developer else "system", "content": content}, message)

    def _user(self, message: Message) -> None:
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        for result in results:
            self._result(result)
        if results and len(results) == len(message.parts):
            return
        items = self._items(message)
        items[:0] = self._waiting
        self._waiting = []
        plain = len(items) == 1 and items[0].keys() == {"type", "text"}
        content: Any = items[0]["text"] if plain else items
        self._finish({"role": "user", "content": content or ""}, message)

    def _result(self, result: ToolResult) -> None:
        texts = []
        for part in result.parts:
            item = self._item(part, "tool")
            if item is None:
                continue
            if item.get("type") == "text":
                texts.append(item["text"])
            else:
                self._waiting.append(item)
                self._lost.append(RESULT_MEDIA.at())
        if result.is_error:
            self._lost.append(IS_ERROR.at())
        body: dict[str, Any] = {
            "role": "tool",
            "tool_call_id": self._call_id(result.call_id),
            "content": "\n".join(texts),
        }
        own = own_fields(result.extra)
        body.update({key: value for key, value in own.items() if key != "cache_control"})
        if result.cache is not None:
            if self._marks:
                body["cache_control"] = cache_control(result.cache.ttl)
            else:
                self._lost.append(CACHE.at())
        self._messages.append(body)

    def _assistant(self, message: Message) -> None:
        self._flush()
        body: dict[str, Any] = {"role": "assistant"}
        calls = []
        for part in message.parts:
            if isinstance(part, ToolCall):
                if part.server:
                    self._lost.append(SERVER_CALL.at())
                    continue
                call = call_object(part, part.arguments or "{}")
                call["id"] = self._call_id(part.id)
                self._mark(call, part)
                calls.append(call)
            elif isinstance(part, Thinking):
                self._thinking(body, part)
            elif isinstance(part, Refusal):
                body["refusal"] = body.get("refusal", "") + part.text
        content: Any = joined(self._items(message), "")
        if not content:
            content = None if calls or "refusal" in body or "audio" in own_fields(message.extra) else ""
        body["content"] = content
        if calls:
            body["tool_calls"] = calls
        self._finish(body, message)

    def _thinking(self, body: dict[str, Any], part: Thinking) -> None:
        """Reasoning goes back only to where it came from: another model would refuse it, or believe it."""
        own = own_fields(part.extra)
        if part.dialect != DIALECT:
            self._lost.append(THINKING.at())
        elif "thinking" not in own:
            for key, value in reasoning_fields(part).items():
                if key in body:
                    body[key] = body[key] + value
                else:
                    body[key] = value

    # Parts.

    def _items(self, message: Message) -> list[dict[str, Any]]:
        """The content list of a message."""
        found = [(part, item) for part in message.parts if (item := self._item(part, message.role)) is not None]
        if len(found) > 1:
            # Empty texts only stand in for nothing, and vendors refuse them beside something.
            found = [(part, item) for part, item in found if item.get("text") != ""] or found[:1]
        above = own_fields(message.extra).get("cache_control") is not None
        for place, (part, item) in enumerate(found):
            if above and self._marks and place == len(found) - 1:
                continue
            self._mark(item, part)
        return [item for _, item in found]

    def _mark(self, item: dict[str, Any], part: Part) -> None:
        if part.cache is None:
            return
        if self._marks:
            item["cache_control"] = cache_control(part.cache.ttl)
        else:
            self._lost.append(CACHE.at())

    def _item(self, part: Part, role: str) -> dict[str, Any] | None:
        """A part as an entry of a content list; None for parts that stand elsewhere or are lost."""
        write = _PARTS.get(type(part))
        return None if write is None else write(self, part, role)

    def _text(self, part: Text, role: str) -> dict[str, Any]:
        return {"type": "text", "text": part.text, **own_fields(part.extra)}

    def _refusal(self, part: Refusal, role: str) -> dict[str, Any] | None:
        return None if role == "assistant" else {"type": "text", "text": part.text}

    def _written_thinking(self, part: Thinking, role: str) -> dict[str, Any] | None:
        own = own_fields(part.extra)
        if part.dialect == DIALECT and "thinking" in own:
            return {"type": "thinking", "thinking": own["thinking"]}
        return None

    def _opaque(self, part: Opaque, role: str) -> dict[str, Any] | None:
        if part.dialect == DIALECT and isinstance(part.data, dict):
            return dict(part.data)
        kind = part.data.get("type", "unknown") if isinstance(part.data, dict) else "unknown"
        self._lost.append(BLOCK.at(kind=kind))
        return None

    def _foreign_result(self, part: ToolResult, role: str) -> None:
        if role == "assistant":
            self._lost.append(SERVER_RESULT.at())

    def _media(self, part: Media, role: str) -> dict[str, Any] | None:
        if role == "assistant":
            self._lost.append(MEDIA.at())
            return None
        return _MEDIA[part.kind](part)

    def _call_id(self, name: str) -> str:
        """The id of a call as the host takes it. The same id always gives the same, so answers find their calls."""
        length = self._id_length
        if length is None or (len(name) == length and name.isalnum() and name.isascii()):
            return name
        return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def joined(items: list[dict[str, Any]], separator: str) -> Any:
    """Content as a string if it is nothing but text, else as the list."""
    if all(item.keys() == {"type", "text"} for item in items):
        return separator.join(item["text"] for item in items)
    return items


def _url(part: Media) -> str:
    if part.data is not None:
        return data_url(part.media_type or "application/octet-stream", part.data)
    if part.url is not None:
        return part.url
    raise Unsupported(f"the target cannot reach an uploaded {part.kind}: send its data or a URL", param="messages")


def _image(part: Media) -> dict[str, Any]:
    own = dict(own_fields(part.extra))
    holder: dict[str, Any] = {"url": _url(part), **own.pop("image_url", {})}
    if part.detail is not None:
        holder["detail"] = part.detail
    return {"type": "image_url", "image_url": holder, **own}


def _video(part: Media) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": _url(part)}, **own_fields(part.extra)}


def _audio(part: Media) -> dict[str, Any]:
    if part.data is None:
        raise Unsupported("the target takes sound only as data, not by URL or file", param="messages")
    media_type = part.media_type or "audio/wav"
    form = _FORMATS.get(media_type, media_type.partition("/")[2])
    return {"type": "input_audio", "input_audio": {"data": part.data, "format": form}, **own_fields(part.extra)}


def _document(part: Media) -> dict[str, Any]:
    own = dict(own_fields(part.extra))
    if part.data is not None and (part.media_type or "").startswith("text/") and not own:
        try:
            return {"type": "text", "text": base64.b64decode(part.data).decode("utf-8", "replace")}
        except binascii.Error:
            raise Unsupported("a document's data is not base64", param="messages") from None
    holder: dict[str, Any] = {}
    if part.name is not None:
        holder["filename"] = part.name
    if part.file_id is not None:
        holder["file_id"] = part.file_id
    else:
        holder["file_data"] = _url(part)
        if part.name is None and part.data is not None:
            # The inventor of the format refuses a file without a name.
            holder["filename"] = "document." + (part.media_type or "").partition("/")[2].partition("+")[0]
    holder.update(own.pop("file", {}))
    return {"type": "file", "file": holder, **own}


_MEDIA: Mapping[str, Callable[[Media], dict[str, Any]]] = {
    "image": _image,
    "video": _video,
    "audio": _audio,
    "document": _document,
}
_ROLES: Mapping[str, Callable[[History, Message], None]] = {
    "system": History._system,
    "user": History._user,
    "assistant": History._assistant,
}
_PARTS: Mapping[type[Any], Callable[[History, Any, str], dict[str, Any] | None]] = {
    Text: History._text,
    Thinking: History._written_thinking,
    Refusal: History._refusal,
    Media: History._media,
    ToolResult: History._foreign_result,
    Opaque: History._opaque,
}
