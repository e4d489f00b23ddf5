"""The hub's parts as parts of a request's contents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay import kit
from relay.errors import BadParameter, Unsupported
from relay.ir import Media, Message, Opaque, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from relay.media import media_type_at
from relay_gemini.foreign import UNSIGNED
from relay_gemini.losses import BLOCK, RAW_ARGUMENTS, RESULT, SERVER_CALL, THINKING
from relay_gemini.stream import DIALECT

__all__ = ["ContentWriter"]

Wire = dict[str, Any]

FILES = "https://generativelanguage.googleapis.com/v1beta/"
"""Where `files/...` ids of this vendor live."""


class ContentWriter:
    """Writes the turns of one request; it remembers the calls, because results name the function and not the call."""

    __slots__ = ("_losses", "_names", "_nested", "_signed")

    def __init__(self, losses: kit.Losses, *, signed: bool, nested: bool) -> None:
        self._losses = losses
        self._names: dict[str, str] = {}
        self._signed = signed
        self._nested = nested

    def parts_of(self, message: Message, where: str) -> list[Wire]:
        """The parts of one turn. Raises Unsupported or BadParameter for what cannot be sent in any form."""
        written: list[Wire] = []
        for part in message.parts:
            written += _WRITERS[type(part)](self, part, where)
        if self._signed and message.role == "assistant":
            # Models that sign insist on it for the first of a turn's calls.
            first = next((part for part in written if "functionCall" in part), None)
            if first is not None:
                first.setdefault("thoughtSignature", UNSIGNED)
        return written

    def _own(self, part: Part) -> Wire:
        return dict((part.extra or {}).get(DIALECT, {}))

    def _text(self, part: Text, where: str) -> list[Wire]:
        own = self._own(part)
        if not part.text and not own:
            return []
        if own.keys() == {"thoughtSignature"} and not part.text:
            return [{"text": "", **own}]
        return [{"text": part.text, **own}]

    def _refusal(self, part: Refusal, where: str) -> list[Wire]:
        return [{"text": part.text}] if part.text else []

    def _thinking(self, part: Thinking, where: str) -> list[Wire]:
        if part.dialect != DIALECT:
            self._losses.add(THINKING, where=where)
            return []
        return [{"text": part.text, "thought": True, **self._own(part)}]

    def _call(self, part: ToolCall, where: str) -> list[Wire]:
        self._names[part.id] = part.name
        if part.server:
            self._losses.add(SERVER_CALL, where=where)
            return []
        arguments = kit.json_object(part.arguments)
        if arguments is None:
            self._losses.add(RAW_ARGUMENTS, where=where)
            arguments = {"arguments": part.arguments}
        call: Wire = {"name": part.name, "args": arguments}
        if part.id:
            call["id"] = part.id
        return [{"functionCall": call, **self._own(part)}]

    def _result(self, part: ToolResult, where: str) -> list[Wire]:
        name = self._names.get(part.call_id) or part.name
        if not name:
            raise BadParameter(f"there is no earlier tool call {part.call_id!r}", param=f"{where}.tool_call_id")
        texts: list[str] = []
        media: list[Wire] = []
        for item in part.parts:
            if isinstance(item, Text | Refusal):
                texts.append(item.text)
            elif isinstance(item, Media):
                media += self._media(item, where)
            else:
                self._losses.add(RESULT, where=where)
        response: Wire = {"name": name, "response": _response("\n".join(texts), part.is_error)}
        if part.call_id:
            response["id"] = part.call_id
        nested = self._nested and bool(media)
        if nested:
            response["parts"] = media
        # Older models take a picture only beside the result.
        return [{"functionResponse": response, **self._own(part)}, *([] if nested else media)]

    def _opaque(self, part: Opaque, where: str) -> list[Wire]:
        if part.dialect == DIALECT and isinstance(part.data, dict):
            return [part.data]
        self._losses.add(BLOCK, where=where, dialect=part.dialect)
        return []

    def _media(self, part: Media, where: str) -> list[Wire]:
        own = self._own(part)
        media_type, data = part.media_type, part.data
        if part.file_id is not None:
            return [{"fileData": _typed({"fileUri": _file_uri(part.file_id, where)}, media_type), **own}]
        if part.url is not None:
            try:
                inline = kit.parse_data_url(part.url)
            except ValueError as error:
                raise BadParameter(str(error), param=f"{where}.content") from None
            if inline is None:
                guessed = media_type or media_type_at(part.url)
                return [{"fileData": _typed({"fileUri": part.url}, guessed), **own}]
            media_type, data = media_type or inline[0], inline[1]
        data = data or ""
        shown = (kit.media_type_of(data) if part.kind == "image" else None) or media_type or kit.media_type_of(data)
        blob: Wire = {"mimeType": shown or DEFAULT_TYPES[part.kind], "data": data}
        return [{"inlineData": blob, **own}]


DEFAULT_TYPES = {"image": "image/png", "document": "application/pdf", "audio": "audio/wav", "video": "video/mp4"}
"""Media types for content that neither says nor shows what it is: the vendor refuses to guess."""


def _typed(reference: Wire, media_type: str | None) -> Wire:
    return {**reference, "mimeType": media_type} if media_type else reference


def _file_uri(file_id: str, where: str) -> str:
    if file_id.startswith("files/"):
        return FILES + file_id
    if file_id.startswith(("https://", "gs://")):
        return file_id
    raise Unsupported(f"file {file_id!r} lives at another vendor; send its content instead", param=f"{where}.content")


def _response(text: str, failed: bool) -> Any:
    """A result must be an object: the text itself if it is one, else under the name that the vendor reads it by."""
    if failed:
        return {"error": text}
    value = kit.json_object(text) if text.lstrip().startswith("{") else None
    return {"output": text} if value is None else value


_WRITERS: dict[type[Any], Callable[[ContentWriter, Any, str], list[Wire]]] = {
    Text: ContentWriter._text,
    Refusal: ContentWriter._refusal,
    Thinking: ContentWriter._thinking,
    ToolCall: ContentWriter._call,
    ToolResult: ContentWriter._result,
    Opaque: ContentWriter._opaque,
    Media: ContentWriter._media,
}
