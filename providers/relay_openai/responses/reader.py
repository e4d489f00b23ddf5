"""The heart of decoding: events of a stream, or the items of a complete answer, to the hub's events.

A complete answer is read as a stream whose items all come at its end. The items that a stream says are done count, and
not those of its last event, which some hosts leave empty; only what was never told before is taken from there.

What is dropped knowingly, because it is told again when its item is done: progress of the vendor's own tools, padding,
and the parts of a reasoning summary as such, whose texts are joined by an empty line.
"""

from __future__ import annotations

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
from relay.ir import Media, Opaque, Part, Refusal, StopReason, Text, Thinking, ToolCall
from relay.kit import dumps
from relay_openai.custom import HEAD, TAIL, escaped
from relay_openai.responses.history import shown_reasoning
from relay_openai.responses.items import citation_of
from relay_openai.responses.toolbox import SEARCH, flat_name
from relay_openai.responses.usage import decode_usage
from relay_openai.responses.wire import DIALECT, STOPPED, own_extra

__all__ = ["Reader"]

_REASONING = frozenset(("type", "encrypted_content"))


class _Open:
    """One open part: its index, and whether anything of its string was told."""

    __slots__ = ("citations", "index", "section", "told", "weighed")

    def __init__(self, index: int) -> None:
        self.index = index
        self.told = False
        self.weighed = False
        """Whether log-probabilities came with its pieces."""
        self.citations = 0
        self.section: Any = None


class _Item:
    """One item of the output while it streams in."""

    __slots__ = ("contents", "done", "kind", "part")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.part: _Open | None = None
        """The part that the item itself is: a call, or reasoning."""
        self.contents: dict[Any, _Open] = {}
        """The parts inside of a message, by their place in it."""
        self.done = False


class Reader:
    """Turns parsed events into the hub's. Without `fill`, texts whose pieces were not seen are not made up for.

    That is for meters, which measure most pieces without reading them. They do read the first piece of each call.
    """

    __slots__ = ("_called", "_fill", "_items", "_next", "started")

    def __init__(self, *, fill: bool = True) -> None:
        self.started = False
        self._fill = fill
        self._next = 0
        self._items: dict[Any, _Item] = {}
        self._called = False

    # The answer as a whole.

    def start(self, response: Any, out: list[Event]) -> None:
        """The answer begins; told once."""
        if self.started:
            return
        self.started = True
        fields = response if isinstance(response, dict) else {}
        name, model, created = fields.get("id"), fields.get("model"), fields.get("created_at")
        out.append(
            MessageStart(
                name if isinstance(name, str) else "",
                model if isinstance(model, str) else "",
                int(created) if isinstance(created, int | float) and 0 <= created < 2**53 else None,
            )
        )

    def finish(self, response: Mapping[str, Any], out: list[Event]) -> None:
        """The answer is complete, or as complete as it will be: items that were not told before, count and reason."""
        self.start(response, out)
        output = response.get("output")
        if not all(item.done for item in self._items.values()) or not self._items:
            for place, item in enumerate(output if isinstance(output, list) else ()):
                if isinstance(item, dict):
                    self.done(place, item, out)
        for known in self._items.values():
            if not known.done:
                self._close(known, out)
        self.count(response, out)
        out.append(ChoiceStop(self._stop(response)))

    def count(self, response: Mapping[str, Any], out: list[Event]) -> None:
        """What the answer used."""
        usage = decode_usage(response.get("usage"))
        if usage is not None:
            out.append(UsageSeen(usage))

    def _stop(self, response: Mapping[str, Any]) -> StopReason:
        if response.get("status") != "incomplete":
            # Told by what the client has to do: the format itself has no word for it.
            return StopReason("tool_calls" if self._called else "stop", "completed")
        details = response.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, dict) else None
        word = reason if isinstance(reason, str) and reason else "incomplete"
        return StopReason(STOPPED.get(word, "other"), word)

    # Events of a stream.

    def read(self, kind: str, event: Mapping[str, Any], out: list[Event]) -> None:
        """Append the hub's events of one event of the kind `kind` to `out`. Kinds that tell nothing new are skipped."""
        read = _READ.get(kind)
        if read is not None:
            if not self.started:
                self.start(None, out)
            read(self, event, out)

    def _added(self, event: Mapping[str, Any], out: list[Event]) -> None:
        item = event.get("item")
        if isinstance(item, dict) and _place(event) not in self._items:
            self._begin(_place(event), item, out)

    def _item_done(self, event: Mapping[str, Any], out: list[Event]) -> None:
        item = event.get("item")
        if isinstance(item, dict):
            self.done(_place(event), item, out)

    def _text(self, event: Mapping[str, Any], out: list[Event]) -> None:
        piece = event.get("delta")
        if isinstance(piece, str):
            part = self._content(event, Text, out)
            part.told = True
            out.append(TextDelta(part.index, piece))
            logprobs = event.get("logprobs")
            if logprobs and type(logprobs) is list:
                part.weighed = True
                out.append(Logprobs(logprobs))

    def _refusal(self, event: Mapping[str, Any], out: list[Event]) -> None:
        piece = event.get("delta")
        if isinstance(piece, str):
            part = self._content(event, Refusal, out)
            part.told = True
            out.append(TextDelta(part.index, piece))

    def _annotation(self, event: Mapping[str, Any], out: list[Event]) -> None:
        citation = event.get("annotation")
        if citation is not None:
            part = self._content(event, Text, out)
            part.citations += 1
            out.append(PartExtra(part.index, citation=citation_of(citation)))

    def _thinking(self, event: Mapping[str, Any], out: list[Event]) -> None:
        piece = event.get("delta")
        if not isinstance(piece, str) or not piece:
            return
        item = self._item(event, "reasoning", out)
        part = item.part or self._open_thinking(item, {}, out)
        section = ("s", event["summary_index"]) if "summary_index" in event else ("c", event.get("content_index"))
        if part.told and section != part.section:
            piece = "\n\n" + piece
        part.section = section
        part.told = True
        out.append(ThinkingDelta(part.index, piece))

    def _arguments(self, event: Mapping[str, Any], out: list[Event]) -> None:
        piece = event.get("delta")
        item = self._items.get(_place(event))
        if isinstance(piece, str) and item is not None and item.part is not None and not item.done:
            item.part.told = True
            out.append(ArgumentsDelta(item.part.index, piece))

    def _input(self, event: Mapping[str, Any], out: list[Event]) -> None:
        """A piece of a custom tool's input, which the hub has inside of a JSON string."""
        piece = event.get("delta")
        item = self._items.get(_place(event))
        if isinstance(piece, str) and item is not None and item.part is not None and not item.done:
            head = "" if item.part.told else HEAD
            item.part.told = True
            out.append(ArgumentsDelta(item.part.index, head + escaped(piece)))

    # Items.

    def _item(self, event: Mapping[str, Any], kind: str, out: list[Event]) -> _Item:
        """The item that a delta belongs to; begun now if the host did not announce it."""
        item = self._items.get(_place(event))
        if item is None:
            item = self._begin(_place(event), {"type": kind, "id": event.get("item_id")}, out)
        return item

    def _begin(self, place: Any, fields: dict[str, Any], out: list[Event]) -> _Item:
        kind = fields.get("type")
        item = self._items[place] = _Item(kind if isinstance(kind, str) else "")
        if item.kind == "reasoning":
            self._open_thinking(item, fields, out)
        elif item.kind in _CALLS:
            self._open_call(item, fields, out)
        return item

    def _open_thinking(self, item: _Item, fields: dict[str, Any], out: list[Event]) -> _Open:
        name = fields.get("id")
        own = {"id": name} if isinstance(name, str) and name else {}
        item.part = self._start(Thinking("", dialect=DIALECT, extra=own_extra(own)), out)
        return item.part

    def _open_call(self, item: _Item, fields: dict[str, Any], out: list[Event]) -> None:
        call_id, name = fields.get("call_id"), fields.get("name")
        kind = _CALLS[item.kind]
        if kind == SEARCH:
            if fields.get("execution") != "client" or not isinstance(call_id, str):
                item.kind = ""
                return
            name = SEARCH
        if not isinstance(call_id, str) or not isinstance(name, str):
            # A call that cannot be answered is carried as what it is.
            item.kind = ""
            return
        known = ("type", "call_id", "name", "arguments", "input", "status", "execution")
        own = {key: value for key, value in fields.items() if key not in known and value is not None}
        if kind:
            own["type"] = kind
        namespace = fields.get("namespace")
        if namespace is not None:
            own["name"] = name
        self._called = True
        item.part = self._start(ToolCall(call_id, flat_name(namespace, name), "", extra=own_extra(own)), out)

    def _content(self, event: Mapping[str, Any], shell: type[Text] | type[Refusal], out: list[Event]) -> _Open:
        """The part of a message that a delta belongs to."""
        item = self._item(event, "message", out)
        place = _key(event.get("content_index"))
        part = item.contents.get(place)
        if part is None:
            part = item.contents[place] = self._start(shell(""), out)
        return part

    def _start(self, part: Part, out: list[Event]) -> _Open:
        index = self._next
        self._next += 1
        out.append(PartStart(index, part))
        return _Open(index)

    def done(self, place: Any, fields: dict[str, Any], out: list[Event]) -> None:
        """An item is complete: what was not told of it in pieces is told now."""
        item = self._items.get(place)
        if item is None:
            item = self._begin(place, fields, out)
        if item.done:
            return
        item.done = True
        finish = _FINISH.get(item.kind)
        if finish is not None:
            finish(self, item, fields, out)
        else:
            self._finish_other(fields, out)
        self._close(item, out)

    def _close(self, item: _Item, out: list[Event]) -> None:
        parts = [item.part] if item.part is not None else []
        # A part may stand there under two numbers.
        out.extend(PartStop(index) for index in sorted({part.index for part in (*parts, *item.contents.values())}))

    def _finish_message(self, item: _Item, fields: Mapping[str, Any], out: list[Event]) -> None:
        content = fields.get("content")
        content = content if isinstance(content, list) else []
        # Some hosts count the parts of a message otherwise in their events than in the message itself.
        spare = [part for place, part in item.contents.items() if place not in range(len(content))]
        for place, entry in enumerate(content):
            if not isinstance(entry, dict):
                continue
            if spare and place not in item.contents:
                item.contents[place] = spare.pop(0)
            refused = entry.get("type") == "refusal"
            if not refused and entry.get("type") not in ("output_text", "text"):
                if place not in item.contents:
                    item.contents[place] = self._start(Opaque(DIALECT, entry), out)
                continue
            part = item.contents.get(place)
            if part is None:
                if not self._fill:
                    continue
                part = item.contents[place] = self._start(Refusal("") if refused else Text(""), out)
            shown = entry.get("refusal" if refused else "text")
            if self._fill and not part.told and isinstance(shown, str) and shown:
                out.append(TextDelta(part.index, shown))
            logprobs = entry.get("logprobs")
            if self._fill and not part.weighed and isinstance(logprobs, list) and logprobs:
                out.append(Logprobs(logprobs))
            citations = entry.get("annotations")
            for citation in (citations if isinstance(citations, list) else [])[part.citations :]:
                out.append(PartExtra(part.index, citation=citation_of(citation)))

    def _finish_reasoning(self, item: _Item, fields: dict[str, Any], out: list[Event]) -> None:
        part = item.part
        if part is None:
            return
        if self._fill and not part.told:
            shown = shown_reasoning(fields)
            if shown:
                out.append(ThinkingDelta(part.index, shown))
        signature = fields.get("encrypted_content")
        if isinstance(signature, str) and signature:
            out.append(SignatureDelta(part.index, signature))
        own = {key: item for key, item in fields.items() if key not in _REASONING and item not in (None, [])}
        if own:
            out.append(PartExtra(part.index, extra={DIALECT: own}))

    def _finish_call(self, item: _Item, fields: dict[str, Any], out: list[Event]) -> None:
        part = item.part
        if part is None:
            return
        if _CALLS[item.kind] == "custom":
            shown = fields.get("input")
            if part.told:
                out.append(ArgumentsDelta(part.index, TAIL))
            elif isinstance(shown, str):
                out.append(ArgumentsDelta(part.index, HEAD + escaped(shown) + TAIL))
            return
        arguments = fields.get("arguments")
        if isinstance(arguments, dict):
            arguments = dumps(arguments).decode("utf-8")
        if not part.told and isinstance(arguments, str) and arguments:
            out.append(ArgumentsDelta(part.index, arguments))

    def _finish_other(self, fields: dict[str, Any], out: list[Event]) -> None:
        """What the vendor's own tools did: a picture, or an item that only this dialect knows."""
        picture = fields.get("result") if fields.get("type") == "image_generation_call" else None
        part: Part = Opaque(DIALECT, fields)
        if isinstance(picture, str) and picture:
            form = fields.get("output_format")
            own = {key: value for key, value in fields.items() if key not in ("type", "result", "status")}
            part = Media(
                "image", f"image/{form}" if isinstance(form, str) else "image/png", data=picture, extra=own_extra(own)
            )
        out.append(PartStop(self._start(part, out).index))


def _place(event: Mapping[str, Any]) -> int | str | None:
    """What tells the items of one answer apart."""
    place = event.get("output_index")
    if type(place) is int:
        return place
    item = event.get("item")
    return _key(event.get("item_id", item.get("id") if isinstance(item, dict) else None))


def _key(value: Any) -> int | str | None:
    """What tells things apart; None if it is nothing that could."""
    return value if isinstance(value, int | str) else None


_CALLS: Mapping[str, str] = {"function_call": "", "custom_tool_call": "custom", "tool_search_call": SEARCH}
"""Items that ask the client to run a tool, with the mark that their calls carry in the hub."""

_FINISH: Mapping[str, Callable[[Reader, _Item, dict[str, Any], list[Event]], None]] = {
    "message": Reader._finish_message,
    "reasoning": Reader._finish_reasoning,
    **dict.fromkeys(_CALLS, Reader._finish_call),
}

_READ: Mapping[str, Callable[[Reader, Mapping[str, Any], list[Event]], None]] = {
    "response.output_text.delta": Reader._text,
    "response.function_call_arguments.delta": Reader._arguments,
    "response.reasoning_summary_text.delta": Reader._thinking,
    "response.reasoning_text.delta": Reader._thinking,
    "response.output_item.added": Reader._added,
    "response.output_item.done": Reader._item_done,
    "response.output_text.annotation.added": Reader._annotation,
    "response.refusal.delta": Reader._refusal,
    "response.custom_tool_call_input.delta": Reader._input,
}
