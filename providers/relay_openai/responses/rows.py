"""The hub's turns to the items of a request's `input`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay.errors import Unsupported
from relay.ir import Media, Message, Opaque, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from relay.kit import Losses, data_url
from relay_openai.custom import CUSTOM, input_of
from relay_openai.losses import BLOCK, CACHE, IS_ERROR, MEDIA, NAMES, SERVER_CALL, SERVER_RESULT, THINKING
from relay_openai.responses.wire import DIALECT, own_fields
from relay_openai.wire import AUDIO_TYPES

__all__ = ["Rows"]

Item = dict[str, Any]
_FORMATS = {media_type: form for form, media_type in AUDIO_TYPES.items()} | {"audio/x-wav": "wav", "audio/mp3": "mp3"}


class Rows:
    """Writes the items of one request."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._items: list[Item] = []
        self._customs: set[str] = set()
        """Calls of custom tools, whose results are of a kind of their own."""

    def compose(self, messages: list[Message]) -> list[Item]:
        """All items, in order."""
        for message in messages:
            if message.name is not None:
                self._losses.add(NAMES)
            write = self._assistant if message.role == "assistant" else self._told
            write(message)
        return self._items

    # What the model is told.

    def _told(self, message: Message) -> None:
        for part in message.parts:
            if isinstance(part, ToolResult):
                self._result(part)
        content = [item for part in message.parts if (item := self._content(part)) is not None]
        if not content:
            return
        own = dict(own_fields(message.extra))
        role = own.pop("role", message.role)
        self._items.append({"type": "message", "role": role, "content": _plain(content), **own})

    def _content(self, part: Part) -> Item | None:
        """A part as an entry of a content list; None for one that stands elsewhere or is lost."""
        self._marked(part)
        if isinstance(part, Text | Refusal):
            return {"type": "input_text", "text": part.text, **own_fields(part.extra)} if part.text else None
        if isinstance(part, Media):
            return _MEDIA[part.kind](part)
        if isinstance(part, Opaque):
            if part.dialect == DIALECT and isinstance(part.data, dict):
                return dict(part.data)
            self._losses.add(BLOCK, kind=_kind_of(part))
        return None

    def _marked(self, part: Part) -> None:
        if part.cache is not None:
            self._losses.add(CACHE)

    def _result(self, part: ToolResult) -> None:
        self._marked(part)
        if part.is_error:
            self._losses.add(IS_ERROR)
        output = [item for inner in part.parts if (item := self._content(inner)) is not None]
        kind = "custom_tool_call_output" if part.call_id in self._customs else "function_call_output"
        item = {"type": kind, "call_id": part.call_id, "output": _plain(output) if output else ""}
        self._items.append({**item, **own_fields(part.extra)})

    # What the model said.

    def _assistant(self, message: Message) -> None:
        said: list[Item] = []
        for part in message.parts:
            self._marked(part)
            if isinstance(part, Text):
                # Citations are not for the model to read: it has the text.
                said.append({"type": "output_text", "text": part.text, "annotations": []})
                continue
            if isinstance(part, Refusal):
                said.append({"type": "refusal", "refusal": part.text})
                continue
            item = self._item(part)
            if item is not None:
                said = self._message(said, message)
                self._items.append(item)
        self._message(said, message)

    def _message(self, said: list[Item], message: Message) -> list[Item]:
        """The message that these texts are; what is left of them, which is nothing."""
        if any(item.get("text") or item.get("refusal") for item in said):
            own = own_fields(message.extra)
            self._items.append({"type": "message", "role": "assistant", "content": said, **own})
        return []

    def _item(self, part: Part) -> Item | None:
        write = _ITEMS.get(type(part))
        if write is None:
            self._losses.add(MEDIA)
            return None
        return write(self, part)

    def _thinking(self, part: Thinking) -> Item | None:
        if part.dialect != DIALECT:
            self._losses.add(THINKING)
            return None
        item: Item = {"type": "reasoning", "summary": [], **own_fields(part.extra)}
        if part.text and not item["summary"] and not item.get("content"):
            item["summary"] = [{"type": "summary_text", "text": part.text}]
        if part.signature is not None:
            item["encrypted_content"] = part.signature
        return item

    def _call(self, part: ToolCall) -> Item | None:
        if part.server:
            self._losses.add(SERVER_CALL)
            return None
        own = {key: value for key, value in own_fields(part.extra).items() if key != "type"}
        if own_fields(part.extra).get("type") == CUSTOM:
            self._customs.add(part.id)
            call = {"type": "custom_tool_call", "call_id": part.id, "name": part.name}
            return {**call, "input": input_of(part.arguments), **own}
        return {
            "type": "function_call",
            "call_id": part.id,
            "name": part.name,
            "arguments": part.arguments or "{}",
            **own,
        }

    def _opaque(self, part: Opaque) -> Item | None:
        if part.dialect == DIALECT and isinstance(part.data, dict):
            return dict(part.data)
        self._losses.add(BLOCK, kind=_kind_of(part))
        return None

    def _foreign_result(self, part: ToolResult) -> None:
        self._losses.add(SERVER_RESULT)


def _kind_of(part: Opaque) -> object:
    return part.data.get("type", "unknown") if isinstance(part.data, dict) else "unknown"


def _plain(content: list[Item]) -> Any:
    """A single text as a string, anything else as the list."""
    if len(content) == 1 and content[0].keys() == {"type", "text"}:
        return content[0]["text"]
    return content


def _image(part: Media) -> Item:
    item: Item = {"type": "input_image"}
    if part.file_id is not None:
        item["file_id"] = part.file_id
    else:
        item["image_url"] = part.url or data_url(part.media_type or "image/png", part.data or "")
    if part.detail is not None:
        item["detail"] = part.detail
    return {**item, **own_fields(part.extra)}


def _document(part: Media) -> Item:
    item: Item = {"type": "input_file"}
    if part.file_id is not None:
        item["file_id"] = part.file_id
    elif part.url is not None:
        item["file_url"] = part.url
    else:
        item["file_data"] = data_url(part.media_type or "application/octet-stream", part.data or "")
        # The vendor insists on a name where it gets the content.
        item["filename"] = "document"
    if part.name is not None:
        item["filename"] = part.name
    return {**item, **own_fields(part.extra)}


def _audio(part: Media) -> Item:
    if part.data is None:
        raise Unsupported("the target takes sound only as data, not by URL or file", param="messages")
    media_type = part.media_type or "audio/wav"
    form = _FORMATS.get(media_type, media_type.partition("/")[2])
    return {"type": "input_audio", "input_audio": {"data": part.data, "format": form}, **own_fields(part.extra)}


def _video(part: Media) -> Item:
    raise Unsupported("the target takes no video", param="messages")


_MEDIA: Mapping[str, Callable[[Media], Item]] = {
    "image": _image,
    "document": _document,
    "audio": _audio,
    "video": _video,
}
_ITEMS: Mapping[type[Any], Callable[[Rows, Any], Item | None]] = {
    Thinking: Rows._thinking,
    ToolCall: Rows._call,
    ToolResult: Rows._foreign_result,
    Opaque: Rows._opaque,
}
