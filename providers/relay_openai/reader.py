"""The heart of decoding: `chat.completion` objects and `chat.completion.chunk` objects to the hub's events.

A complete answer is read as a stream of one chunk whose delta is the message, so that both forms mean the same.

What is dropped knowingly, because a stream's translation has no place for it: unknown fields of all chunks but the
first (padding, timings, repeated search results), unknown fields of deltas, and log-probabilities in other forms than
`{"content": [...]}`. A complete answer keeps its unknown fields in `extra`. A stream that is passed through loses
nothing of this: its bytes are not touched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from relay.events import (
    ArgumentsDelta,
    ChoiceStop,
    Event,
    Logprobs,
    MessageStart,
    PartExtra,
    PartStart,
    PartStop,
    SignatureDelta,
    TextDelta,
    ThinkingDelta,
    UsageSeen,
)
from relay.ir import Media, Opaque, Refusal, StopKind, StopReason, Text, Thinking, ToolCall
from relay.kit import dumps, parse_data_url
from relay.meter import Meter
from relay_openai.choices import Call, Choice
from relay_openai.counting import counted
from relay_openai.custom import HEAD, TAIL, escaped
from relay_openai.shapes import citation_of
from relay_openai.usage import decode_usage
from relay_openai.wire import DIALECT, FINISH_KINDS, own_extra

__all__ = ["Reader"]

_CHUNK_FIELDS = frozenset(("id", "object", "created", "model", "choices", "usage", "obfuscation", "p", "error"))
_CHOICE_FIELDS = frozenset(("index", "delta", "message", "finish_reason", "logprobs", "text"))
_CALL_FIELDS = frozenset(("index", "id", "type", "function", "custom"))


class Reader:
    """Turns parsed chunks into events. `whole` reads one complete answer instead of a stream's deltas."""

    __slots__ = ("_choices", "_created", "_early", "_id", "_next", "_whole", "counted", "started")

    def __init__(self, *, whole: bool = False) -> None:
        self.started = False
        self.counted = False
        self._whole = whole
        self._choices: dict[int, Choice] = {}
        self._next = 0
        self._id = ""
        self._created: int | None = None
        self._early: dict[str, Any] = {}

    def read(self, chunk: dict[str, Any], out: list[Event]) -> None:
        """Append the events of one chunk to `out`."""
        choices = chunk.get("choices")
        if not self.started:
            self._start(chunk, out)
        if choices and type(choices) is list:
            for position, choice in enumerate(choices):
                if type(choice) is dict:
                    self._choice(choice, position, out)
        usage = chunk.get("usage")
        if not usage:
            if "x_groq" not in chunk:
                return
            vendor = chunk["x_groq"]
            usage = vendor.get("usage") if isinstance(vendor, dict) else None
        if usage and (seen := decode_usage(usage)) is not None:
            self.counted = True
            out.append(UsageSeen(seen))

    def count(self, payload: bytes, meter: Meter) -> str | None:
        """Tell a meter what the events of one chunk would, without making them. Gives its text if that is all there is.

        Only of chunks that are like nearly all: None, and nothing has happened, for any other.
        """
        chunk = counted(payload)
        if chunk is None:
            return None
        text, used = "", chunk.usage
        usage = None if used is None else used.usage()
        if used is not None and usage is None:
            return None
        if chunk.choices:
            choice = chunk.choices[0]
            delta, number, finish = choice.delta, choice.index, choice.finish_reason
            if delta is not None and delta.content:
                meter.text(delta.content)
                if not finish and used is None:
                    text = delta.content
            self.started = True
            state = self._choices.get(number)
            if state is None:
                state = self._choices[number] = Choice(number)
            if finish:
                state.finish = finish
        elif not self.started:
            return None
        if usage is not None:
            self.counted = True
            meter.usage = usage
        return text

    def count_end(self, meter: Meter) -> bool:
        """The same for the end marker. False if not every choice has said why it stopped, or one has called a tool."""
        choices = self._choices.values()
        for choice in choices:
            if not choice.finish or choice.calls:
                return False
        if not choices:
            return False
        for choice in choices:
            meter.ended += 1
            if FINISH_KINDS.get(choice.finish or "") == "filter":
                meter.filtered = True
        meter.begun = meter.complete = True
        return True

    @property
    def all_finished(self) -> bool:
        """Whether there are choices and each of them said why it stopped."""
        return bool(self._choices) and all(choice.finish for choice in self._choices.values())

    @property
    def spoke(self) -> bool:
        """Whether there is any choice at all."""
        return bool(self._choices)

    def finish(self, out: list[Event]) -> None:
        """Close everything and say why each choice stopped. Called once, when the answer is known to be complete.

        The stops wait until here because several hosts send them twice, or send more after them.
        """
        for number in sorted(self._choices):
            choice = self._choices[number]
            self._close_text(choice, out)
            self._close_thinking(choice, out)
            self._close_refusal(choice, out)
            for call in choice.calls:
                if call.part is None:
                    self._start_call(choice, call, out)
                assert call.part is not None
                if call.custom:
                    out.append(ArgumentsDelta(call.part, TAIL))
                out.append(PartStop(call.part))
            self._finish_audio(choice, out)
            if choice.refusal_logprobs:
                choice.extra["refusal_logprobs"] = choice.refusal_logprobs
            out.append(ChoiceStop(self._stop(choice), number, own_extra(choice.extra)))

    def _start(self, chunk: dict[str, Any], out: list[Event]) -> None:
        for key, value in chunk.items():
            if key not in _CHUNK_FIELDS and value is not None:
                self._early[key] = value
        name = chunk.get("id")
        if not chunk.get("choices") and not name and not chunk.get("usage"):
            # Some hosts open with a chunk that has neither id nor model, only the verdict of their content filter.
            return
        self.started = True
        self._id = name if isinstance(name, str) else ""
        created = chunk.get("created")
        model = chunk.get("model")
        self._created = created if type(created) is int else None
        extra = own_extra(self._early)
        out.append(MessageStart(self._id, model if isinstance(model, str) else "", self._created, extra))

    def _choice(self, choice: dict[str, Any], position: int, out: list[Event]) -> None:
        number = choice.get("index")
        if type(number) is not int:
            number = position
        if self._whole and number in self._choices:
            number = position
        state = self._choices.get(number)
        if state is None:
            state = self._choices[number] = Choice(number)
        delta = choice.get("message" if self._whole else "delta")
        if delta and type(delta) is dict:
            content = delta.get("content")
            if content and len(delta) == 1 and type(content) is str:
                # Nearly all deltas of all hosts.
                index = state.text
                if index is None:
                    index = self._open_text(state, out)
                out.append(TextDelta(index, content))
            else:
                self._delta(state, delta, out)
        logprobs = choice.get("logprobs")
        if logprobs and type(logprobs) is dict:
            self._logprobs(state, logprobs, out)
        reason = choice.get("finish_reason")
        if reason:
            self._finish_reason(state, reason, choice)
        if self._whole:
            self._keep(state, choice, delta)

    def _delta(self, state: Choice, delta: dict[str, Any], out: list[Event]) -> None:
        found = [key for key in delta if delta[key] and key in _READ]
        if len(found) > 1:
            found.sort(key=_RANK.__getitem__)
        for key in found:
            _READ[key](self, state, delta[key], delta, out)

    def _finish_reason(self, state: Choice, reason: Any, choice: Mapping[str, Any]) -> None:
        state.finish = reason if isinstance(reason, str) else str(reason)
        for key in ("stop_reason", "matched_stop"):
            value = choice.get(key)
            if isinstance(value, str) and value:
                state.sequence = value

    def _keep(self, state: Choice, choice: dict[str, Any], message: Any) -> None:
        """Fields that only this host knows. An error inside the choice means that its text is not all there is."""
        for key, value in choice.items():
            if key not in _CHOICE_FIELDS and value is not None:
                state.extra[key] = value
        if isinstance(message, dict):
            unknown = {
                key: value for key, value in message.items() if key not in _READ and key != "role" and value is not None
            }
            if unknown:
                state.extra["message"] = unknown
        if choice.get("error") and state.finish is None:
            state.finish = "error"

    def _stop(self, choice: Choice) -> StopReason:
        raw = choice.finish
        kind: StopKind = FINISH_KINDS.get(raw, "other") if raw else "stop"
        if kind == "stop" and choice.calls:
            # Where the caller forced a function, hosts say "stop"; what the caller has to do is run the tool.
            kind = "tool_calls"
        return StopReason(kind, raw, choice.sequence)

    # Text and what surrounds it.

    def _part(self) -> int:
        index = self._next
        self._next += 1
        return index

    def _open_text(self, choice: Choice, out: list[Event]) -> int:
        self._close_thinking(choice, out)
        self._close_refusal(choice, out)
        index = choice.text = self._part()
        out.append(PartStart(index, Text(""), choice.number))
        return index

    def _close_text(self, choice: Choice, out: list[Event]) -> None:
        if choice.text is not None:
            out.append(PartStop(choice.text))
            choice.text = None

    def _content(self, choice: Choice, value: Any, delta: dict[str, Any], out: list[Event]) -> None:
        if type(value) is str:
            index = choice.text
            if index is None:
                index = self._open_text(choice, out)
            out.append(TextDelta(index, value))
        elif type(value) is list:
            for item in value:
                self._item(choice, item, delta, out)
        elif type(value) is dict:
            # A host that was asked for JSON and parsed it already.
            self._content(choice, dumps(value).decode("utf-8"), delta, out)

    def _item(self, choice: Choice, item: Any, delta: dict[str, Any], out: list[Event]) -> None:
        """One entry of a content list."""
        if isinstance(item, str):
            if item:
                self._content(choice, item, delta, out)
            return
        if not isinstance(item, dict):
            return
        kind = item.get("type")
        if kind == "text":
            text = item.get("text")
            if isinstance(text, str) and text:
                self._content(choice, text, delta, out)
        elif kind == "thinking":
            text = thinking_text(item)
            if text:
                self._think(choice, text, out)
        elif kind == "image_url":
            self._images(choice, [item], delta, out)
        else:
            self._close_text(choice, out)
            index = self._part()
            out.append(PartStart(index, Opaque(DIALECT, item), choice.number))
            out.append(PartStop(index))

    def _annotations(self, choice: Choice, value: Any, delta: dict[str, Any], out: list[Event]) -> None:
        if type(value) is list:
            index = self._open_text(choice, out) if choice.text is None else choice.text
            out.extend(PartExtra(index, citation=citation_of(citation)) for citation in value)

    def _refusal(self, choice: Choice, value: Any, delta: dict[str, Any], out: list[Event]) -> None:
        if type(value) is not str:
            return
        if choice.refusal is None:
            self._close_text(choice, out)
            self._close_thinking(choice, out)
            choice.refusal = self._part()
            out.append(PartStart(choice.refusal, Refusal(""), choice.number))
        out.append(TextDelta(choice.refusal, value))

    def _close_refusal(self, choice: Choice, out: list[Event]) -> None:
        if choice.refusal is not None:
            out.append(PartStop(choice.refusal))
            choice.refusal = None

    # Reasoning.

    def _open_thinking(self, choice: Choice, out: list[Event]) -> int:
        self._close_text(choice, out)
        self._close_refusal(choice, out)
        index = choice.thinking = self._part()
        out.append(PartStart(index, Thinking("", dialect=DIALECT), choice.number))
        return index

    def _think(self, choice: Choice, text: str, out: list[Event]) -> None:
        index = choice.thinking
        if index is None:
            index = self._open_thinking(choice, out)
        out.append(ThinkingDelta(index, text))

    def _reasoning_content(self, choice: Choice, value: Any, delta: dict[str, Any], out: list[Event]) -> None:
        if type(value) is str:
            choice.plain = True
            self._think(choice, value, out)

    def _reasoning(self, choice: Choice, value: Any, delta: dict[str, Any], out: list[Event]) -> None:
        # Hosts in transition send the same text under both names.
        if type(value) is str and not delta.get("reasoning_content"):
            choice.plain = True
            self._think(choice, value, out)

    def _reasoning_details(self, choice: Choice, value: Any, delta: dict[str, Any], out: list[Event]) -> None:
        if type(value) is not list:
            return
        # The entries repeat the text of the plain fields, sometimes only when it is complete.
        silent = not (choice.plain or delta.get("reasoning") or delta.get("reasoning_content"))
        for detail in value:
            if not isinstance(detail, dict):
                continue
            if silent and isinstance(text := detail.get("text") or detail.get("summary"), str):
                self._think(choice, text, out)
            index = choice.thinking
            if index is None:
                index = self._open_thinking(choice, out)
            signature = detail.get("signature")
            if isinstance(signature, str) and signature:
                out.append(SignatureDelta(index, signature))
            choice.details.append(detail)

    def _close_thinking(self, choice: Choice, out: list[Event]) -> None:
        if choice.thinking is None:
            return
        if choice.details:
            out.append(PartExtra(choice.thinking, extra={DIALECT: {"reasoning_details": join_details(choice.details)}}))
            choice.details = []
        out.append(PartStop(choice.thinking))
        choice.thinking = None

    # Tool calls.

    def _tool_calls(self, choice: Choice, value: Any, delta: dict[str, Any], out: list[Event]) -> None:
        if type(value) is not list:
            return
        for fields in value:
            if not isinstance(fields, dict):
                continue
            body = fields.get("custom") if fields.get("type") == "custom" else fields.get("function")
            if not isinstance(body, dict):
                body = fields.get("custom") or {}
            call = self._which(choice, fields, body)
            if not call.id and isinstance(name := fields.get("id"), str):
                call.id = name
                choice.named.setdefault(name, call)
            self._arguments(choice, call, body, out)

    def _which(self, choice: Choice, fields: Mapping[str, Any], body: Mapping[str, Any]) -> Call:
        """The call that a delta belongs to, or a new one.

        Most hosts number their calls. Of those that do not, each delta with a new id or a name begins a call. A few
        number all of them 0: there a new id together with a name begins one.
        """
        if self._whole:
            return self._new_call(choice, fields)
        name = fields.get("id")
        index = fields.get("index")
        known = choice.slots.get(index) if type(index) is int else choice.current
        if known is None:
            call = None
        elif name and known.id and name != known.id:
            call = choice.named.get(name) if isinstance(name, str) else None
            if call is None and type(index) is int and not body.get("name"):
                call = known
        elif type(index) is not int and body.get("name") and not name:
            call = None
        else:
            call = known
        if call is None:
            call = self._new_call(choice, fields)
        if type(index) is int:
            choice.slots[index] = call
        choice.current = call
        return call

    def _new_call(self, choice: Choice, fields: Mapping[str, Any]) -> Call:
        call = Call()
        call.custom = fields.get("type") == "custom"
        call.extra = {name: value for name, value in fields.items() if name not in _CALL_FIELDS and value}
        choice.calls.append(call)
        return call

    def _function_call(self, choice: Choice, value: Any, delta: dict[str, Any], out: list[Event]) -> None:
        """The one call of the interface before tools."""
        if type(value) is not dict or delta.get("tool_calls"):
            return
        call = choice.current
        if call is None:
            if not value.get("name") and not value.get("arguments"):
                # Some hosts fill in every field that they know, called for or not.
                return
            call = choice.current = self._new_call(choice, {})
        self._arguments(choice, call, value, out)

    def _arguments(self, choice: Choice, call: Call, body: Mapping[str, Any], out: list[Event]) -> None:
        name = body.get("name")
        if not call.name and isinstance(name, str):
            call.name = name
        arguments = body.get("arguments", body.get("input"))
        if isinstance(arguments, dict):
            arguments = dumps(arguments).decode("utf-8")
        if not isinstance(arguments, str):
            arguments = ""
        if call.custom:
            # The hub has the text inside of a JSON string.
            arguments = escaped(arguments)
        if call.part is not None:
            if arguments:
                out.append(ArgumentsDelta(call.part, arguments))
            return
        call.arguments += arguments
        if call.name and (call.id or call.arguments):
            self._start_call(choice, call, out)

    def _start_call(self, choice: Choice, call: Call, out: list[Event]) -> None:
        self._close_text(choice, out)
        self._close_thinking(choice, out)
        self._close_refusal(choice, out)
        index = call.part = self._part()
        extra = {**call.extra, "type": "custom"} if call.custom else call.extra
        shell = ToolCall(call.id or self._call_id(index), call.name, "", extra=own_extra(extra))
        out.append(PartStart(index, shell, choice.number))
        if call.custom:
            call.arguments = HEAD + call.arguments
        if call.arguments:
            out.append(ArgumentsDelta(index, call.arguments))
            call.arguments = ""

    def _call_id(self, index: int) -> str:
        """An id for a call that came without: clients answer by id, and vendors refuse two calls of one id."""
        seed = f"{self._id}/{self._created}/{index}".encode()
        return "call_" + hashlib.sha256(seed).hexdigest()[:24]

    # Sound and pictures.

    def _audio(self, choice: Choice, value: Any, delta: dict[str, Any], out: list[Event]) -> None:
        """Sound comes in pieces, and the hub carries it whole: it is collected until the end."""
        if type(value) is not dict:
            return
        for key, piece in value.items():
            if key in ("data", "transcript") and isinstance(piece, str):
                choice.audio.setdefault(key, []).append(piece)
            elif piece:
                choice.audio[key] = piece

    def _finish_audio(self, choice: Choice, out: list[Event]) -> None:
        data = "".join(choice.audio.pop("data", ()))
        transcript = "".join(choice.audio.pop("transcript", ()))
        if not data and not transcript:
            return
        fields = {**choice.audio, "transcript": transcript} if transcript else choice.audio
        index = self._part()
        out.append(PartStart(index, Media("audio", data=data, extra=own_extra(fields)), choice.number))
        out.append(PartStop(index))

    def _images(self, choice: Choice, value: Any, delta: dict[str, Any], out: list[Event]) -> None:
        if type(value) is not list:
            return
        for image in value:
            holder = image.get("image_url") if isinstance(image, dict) else None
            url = holder.get("url") if isinstance(holder, dict) else holder
            if not isinstance(url, str) or not url:
                continue
            try:
                inline = parse_data_url(url)
            except ValueError:
                continue
            media = Media("image", *inline) if inline else Media("image", url=url)
            self._close_text(choice, out)
            self._close_thinking(choice, out)
            index = self._part()
            out.append(PartStart(index, media, choice.number))
            out.append(PartStop(index))

    def _logprobs(self, choice: Choice, value: dict[str, Any], out: list[Event]) -> None:
        content = value.get("content")
        if content and type(content) is list:
            out.append(Logprobs(content, choice.number))
        refusal = value.get("refusal")
        if refusal and type(refusal) is list:
            choice.refusal_logprobs.extend(refusal)


def thinking_text(item: Mapping[str, Any]) -> str:
    """The text of a `thinking` entry of a content list, which is itself a list of entries."""
    inner = item.get("thinking")
    if isinstance(inner, str):
        return inner
    if not isinstance(inner, list):
        return ""
    return "".join(entry["text"] for entry in inner if isinstance(entry, dict) and isinstance(entry.get("text"), str))


def join_details(details: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`reasoning_details` as a complete answer would hold them: streamed pieces of one entry are one entry."""
    joined: list[dict[str, Any]] = []
    for detail in details:
        last = joined[-1] if joined else None
        if last is None or any(last.get(key) != detail.get(key) for key in ("type", "index")) or "data" in detail:
            joined.append(dict(detail))
            continue
        for key, value in detail.items():
            old = last.get(key)
            if key in ("text", "summary") and isinstance(old, str) and isinstance(value, str):
                last[key] = old + value
            elif value or old is None:
                last[key] = value
    return joined


_Method = Callable[[Reader, Choice, Any, dict[str, Any], list[Event]], None]

# In the order in which they mean something: reasoning comes before what it led to, whatever the order of the keys.
_READ: dict[str, _Method] = {
    "reasoning_content": Reader._reasoning_content,
    "reasoning": Reader._reasoning,
    "reasoning_details": Reader._reasoning_details,
    "annotations": Reader._annotations,
    "content": Reader._content,
    "refusal": Reader._refusal,
    "tool_calls": Reader._tool_calls,
    "function_call": Reader._function_call,
    "images": Reader._images,
    "audio": Reader._audio,
}
_RANK = {key: rank for rank, key in enumerate(_READ)}
