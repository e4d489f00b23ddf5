"""Contents of a caller's request to the hub's turns; parts to its parts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, Literal

from relay.errors import BadParameter
from relay.fields import boolean, fault, items, obj, text, word
from relay.ir import Extra, Media, Message, Opaque, Part, Text, Thinking, ToolCall, ToolResult
from relay.kit import dumps
from relay.media import media_type_at
from relay_gemini.foreign import UNSIGNED, is_labelled, restored
from relay_gemini.names import message, rest_of
from relay_gemini.stream import DIALECT

__all__ = ["TurnReader"]

Fields = dict[str, Any]
ROLES: dict[str, Literal["user", "assistant"]] = {
    "user": "user",
    "model": "assistant",
    "function": "user",
    "tool": "user",
}
_OWN_FILE = re.compile(r"https://generativelanguage\.googleapis\.com/(?:v\w+/)?(files/[\w-]+)", re.ASCII)


class TurnReader:
    """Reads the turns of one request.

    Calls and their results may come without ids. A call then gets one that depends on its place and its name alone, so
    that it keeps it while the conversation grows; a result belongs to the first unanswered call of its name.
    """

    __slots__ = ("_calls", "_thoughts", "_waiting")

    def __init__(self) -> None:
        self._calls = 0
        self._thoughts: dict[int, list[Thinking]] = {}
        """By the identity of a part: what its label says was thought before it."""
        self._waiting: list[tuple[str, str]] = []

    def system(self, value: Any, path: str) -> list[Message]:
        """The system instruction as the conversation's first message; none if it holds nothing.

        It may be a string, a part, a list of these, or a content.
        """
        if isinstance(value, dict) and "parts" not in value:
            value = [value] if value else []
        parts = self._plain(value, path) if isinstance(value, str | list) else self._parts(obj(value, path), path)
        return [Message("system", parts)] if parts else []

    def turns(self, value: Any, path: str) -> list[Message]:
        """`contents`. What a model said in several contents, as streams are kept by clients, becomes one turn."""
        found: list[Message] = []
        for place, item in enumerate(items(value, path)):
            turn = self._turn(item, f"{path}[{place}]")
            if turn.role == "assistant" and found and found[-1].role == "assistant":
                found[-1].parts += turn.parts
            else:
                found.append(turn)
        for turn in found:
            if turn.role == "assistant":
                turn.parts = _joined(self._with_thoughts(turn.parts))
        return found

    def _with_thoughts(self, parts: list[Part]) -> list[Part]:
        """Put thoughts back where their model had them: before all that it said since its last call.

        Where the client returned some of them as well, those go.
        """
        found: list[Part] = []
        start = 0
        for part in parts:
            thoughts = self._thoughts.get(id(part))
            if thoughts:
                found[start:] = [*thoughts, *(said for said in found[start:] if not isinstance(said, Thinking))]
            found.append(part)
            if isinstance(part, ToolCall):
                start = len(found)
        return found

    def _turn(self, value: Any, path: str) -> Message:
        fields = message(value, path)
        role = fields.get("role")
        parts = self._parts(fields, path)
        if role is None or role == "":
            called = any(isinstance(part, ToolCall) for part in parts)
            return Message("assistant" if called else "user", parts)
        known = ROLES.get(text(role, f"{path}.role"))
        if known is None:
            raise BadParameter(f"{path}.role must be user or model", param=f"{path}.role")
        return Message(known, parts)

    def _parts(self, fields: Fields, path: str) -> list[Part]:
        parts = fields.get("parts")
        return [] if parts is None else self._plain(parts if isinstance(parts, list) else [parts], f"{path}.parts")

    def _plain(self, value: str | list[Any], path: str) -> list[Part]:
        """Parts, of which those with only text may be strings."""
        if isinstance(value, str):
            return [Text(value)]
        found: list[Part] = []
        for place, item in enumerate(value):
            if isinstance(item, str):
                found.append(Text(item))
            else:
                found += self._part(message(item, f"{path}[{place}]"), f"{path}[{place}]")
        return found

    def _part(self, fields: Fields, path: str) -> list[Part]:
        """One part; none if there is nothing in it."""
        signature = fields.get("thoughtSignature")
        thoughts: list[Thinking] = []
        if signature is not None and (is_labelled(signature) or signature == UNSIGNED):
            thoughts = restored(signature) if signature != UNSIGNED else []
            fields = rest_of(fields, "thoughtSignature")
            if fields.get("thought") is True:
                return self._labelled(fields, path, thoughts)
        for name, read in _KINDS:
            if fields.get(name) is not None:
                part = read(self, fields, path)
                break
        else:
            rest = rest_of(fields)
            if not rest:
                return []
            # A signature alone belongs to text that is empty, and was left out for it.
            part = Text("", extra={DIALECT: rest}) if rest.keys() == {"thoughtSignature"} else Opaque(DIALECT, rest)
        if thoughts:
            self._thoughts[id(part)] = thoughts
        return [part]

    def _labelled(self, fields: Fields, path: str, thoughts: list[Thinking]) -> list[Part]:
        """A thought of another vendor's model."""
        shown = fields.get("text")
        part = thoughts[0] if thoughts else Thinking("")
        part.text = "" if shown is None else text(shown, f"{path}.text")
        return [part]

    def _text(self, fields: Fields, path: str) -> Part:
        shown = text(fields["text"], f"{path}.text")
        thought = fields.get("thought")
        extra = _extra(fields, "text", "thought")
        if thought is not None and boolean(thought, f"{path}.thought"):
            return Thinking(shown, dialect=DIALECT, extra=extra)
        return Text(shown, extra=extra)

    def _call(self, fields: Fields, path: str) -> Part:
        call = message(fields["functionCall"], f"{path}.functionCall")
        if "partialArgs" in call or not call.get("name"):
            return Opaque(DIALECT, rest_of(fields))
        name = word(call["name"], f"{path}.functionCall.name")
        given, arguments = call.get("id"), call.get("args")
        if given is None or given == "":
            material = f"{self._calls} {name}"
            given = "call_" + hashlib.sha256(material.encode("utf-8", "replace")).hexdigest()[:24]
        call_id = text(given, f"{path}.functionCall.id")
        self._calls += 1
        self._waiting.append((name, call_id))
        return ToolCall(
            call_id,
            name,
            "{}" if arguments is None else dumps(obj(arguments, f"{path}.functionCall.args")).decode(),
            extra=_extra(fields, "functionCall"),
        )

    def _result(self, fields: Fields, path: str) -> Part:
        path = f"{path}.functionResponse"
        result = message(fields["functionResponse"], path)
        name = word(result.get("name"), f"{path}.name")
        parts, failed = _said(result.get("response"), f"{path}.response")
        if result.get("parts") is not None:
            for place, item in enumerate(items(result["parts"], f"{path}.parts")):
                parts += self._part(message(item, f"{path}.parts[{place}]"), f"{path}.parts[{place}]")
        return ToolResult(
            self._answered(name, result.get("id"), f"{path}.id"),
            parts,
            is_error=failed,
            name=name,
            extra=_extra(fields, "functionResponse"),
        )

    def _answered(self, name: str, given: Any, path: str) -> str:
        """The id of the call that a result belongs to."""
        if given is not None and given != "":
            call_id = text(given, path)
            self._waiting = [waiting for waiting in self._waiting if waiting[1] != call_id]
            return call_id
        for place, (called, call_id) in enumerate(self._waiting):
            if called == name:
                del self._waiting[place]
                return call_id
        raise BadParameter(f"{path.removesuffix('.id')} answers no earlier functionCall of its name", param=path)

    def _inline(self, fields: Fields, path: str) -> Part:
        blob = message(fields["inlineData"], f"{path}.inlineData")
        if fields.get("thought") is True:
            return Opaque(DIALECT, rest_of(fields))
        media_type = word(blob.get("mimeType"), f"{path}.inlineData.mimeType")
        # The vendor takes both alphabets, and its own clients write the other one.
        data = word(blob.get("data"), f"{path}.inlineData.data").replace("-", "+").replace("_", "/")
        return Media(
            _kind(media_type),
            media_type=media_type,
            data=data + "=" * (-len(data) % 4),
            name=_name(blob, f"{path}.inlineData"),
            extra=_extra(fields, "inlineData"),
        )

    def _file(self, fields: Fields, path: str) -> Part:
        file = message(fields["fileData"], f"{path}.fileData")
        uri = word(file.get("fileUri"), f"{path}.fileData.fileUri")
        given = file.get("mimeType")
        media_type = None if given is None else text(given, f"{path}.fileData.mimeType")
        guessed = media_type or media_type_at(uri) or ""
        own = _OWN_FILE.fullmatch(uri)
        media = Media(
            _kind(guessed) if guessed else "video" if "youtu" in uri else "document",
            media_type=media_type or None,
            name=_name(file, f"{path}.fileData"),
            extra=_extra(fields, "fileData"),
        )
        if own is not None or not uri.startswith(("http://", "https://", "data:")):
            # What only the vendor can open.
            media.file_id = uri if own is None else own[1]
        else:
            media.url = uri
        return media


_KINDS: tuple[tuple[str, Callable[[TurnReader, Fields, str], Part]], ...] = (
    ("text", TurnReader._text),
    ("functionCall", TurnReader._call),
    ("functionResponse", TurnReader._result),
    ("inlineData", TurnReader._inline),
    ("fileData", TurnReader._file),
)


def _extra(fields: Fields, *known: str) -> Extra | None:
    rest = rest_of(fields, *known)
    return {DIALECT: rest} if rest else None


def _kind(media_type: str) -> Literal["image", "document", "audio", "video"]:
    match media_type.partition("/")[0]:
        case "image":
            return "image"
        case "audio":
            return "audio"
        case "video":
            return "video"
    return "document"


def _name(fields: Fields, path: str) -> str | None:
    name = fields.get("displayName")
    return None if name is None else text(name, f"{path}.displayName")


_SAID = ("output", "result")
"""Under which name clients put a result that is only text."""


def _said(value: Any, path: str) -> tuple[list[Part], bool]:
    """What a tool answered, and whether that is an error. Text in an object of its own is only that text."""
    if value is None:
        return [], False
    if not isinstance(value, dict):
        fault(path, "an object", value)
    if len(value) == 1:
        (name, inner), *_ = value.items()
        if isinstance(inner, str) and name in (*_SAID, "error"):
            return [Text(inner)], name == "error"
    return [Text(dumps(value).decode())], False


def _joined(parts: list[Part]) -> list[Part]:
    """A model's parts with the pieces of one text, or of one thought, put together."""
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, Text) and isinstance(last, Text) and not part.extra and not last.extra:
            last.text += part.text
        elif isinstance(part, Thinking) and isinstance(last, Thinking) and _goes_on(last, part):
            last.text += part.text
            last.signature, last.extra = part.signature, part.extra
        else:
            found.append(part)
    return [part for part in found if not isinstance(part, Text) or part.text or part.extra]


def _goes_on(last: Thinking, part: Thinking) -> bool:
    """Whether a thought that has no signature yet is continued. Redacted ones have no text, so they stand alone."""
    open_ended = last.signature is None and not last.extra and not last.redacted
    # The vendor's own signatures must come back on exactly the piece on which they came.
    own = part.dialect == DIALECT and bool(part.extra)
    return open_ended and not own and not part.redacted and last.dialect == part.dialect
