"""The hub's parts as content blocks of a request."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from relay import kit
from relay.ir import Cache, Media, Opaque, Part, Refusal, Text, Thinking, ToolCall, ToolResult
from relay_anthropic.losses import BLOCK, CITATIONS, RAW_ARGUMENTS, SERVER_CALL, THINKING, UNSIGNED
from relay_bedrock.generation import Generation
from relay_bedrock.losses import CACHE, NO_REPLAY, RESULT, SYSTEM
from relay_bedrock.media import MediaWriter
from relay_bedrock.wire import CLAUDE, DIALECT, Block

__all__ = ["ContentWriter", "tool_id"]

_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}", re.ASCII)
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_.:-]", re.ASCII)
EMPTY: Block = {"json": {"output": ""}}
"""The answer of a tool that answers nothing: there has to be one, and a text of its may not be empty."""


def tool_id(call_id: str) -> str:
    """`call_id` as the vendor accepts ids: itself if it can be, else a stable name of its own."""
    if _ID.fullmatch(call_id):
        return call_id
    return f"tooluse_{_FORBIDDEN.sub('_', call_id)[:40]}_{zlib.crc32(call_id.encode('utf-8', 'surrogatepass')):08x}"


class ContentWriter:
    """Writes the turns of one request."""

    __slots__ = ("_losses", "_media", "called", "generation")

    def __init__(self, generation: Generation, losses: kit.Losses) -> None:
        self.generation = generation
        self._losses = losses
        self._media = MediaWriter(losses)
        self.called: dict[str, None] = {}
        """Names of the tools that were used, in order."""

    def blocks_of(self, parts: list[Part], where: str) -> list[Block]:
        """The blocks for one turn's parts. Raises Unsupported or BadParameter for what cannot be sent in any form."""
        blocks: list[Block] = []
        for part in parts:
            block = _WRITERS[type(part)](self, part, where)
            if block is not None:
                blocks.append(block)
                blocks += self.marker(part.cache, allowed=self.generation.cache)
        return blocks

    def system_of(self, parts: list[Part], where: str) -> list[Block]:
        """The blocks of a system message: text, and markers for the cache."""
        blocks: list[Block] = []
        for part in parts:
            if not isinstance(part, Text):
                self._losses.add(SYSTEM, where=where)
            elif part.text.strip():
                blocks.append({"text": part.text})
                blocks += self.marker(part.cache, allowed=self.generation.cache)
        return blocks

    def marker(self, cache: Cache | None, *, allowed: bool) -> list[Block]:
        """What marks for the cache all that comes before, if the caller wants that and the model knows it."""
        if cache is None:
            return []
        hour = cache.ttl == "1h"
        if not allowed or (hour and not self.generation.cache_hour):
            self._losses.add(CACHE)
        if not allowed:
            return []
        point: Block = {"type": "default"}
        if cache.ttl is not None and self.generation.cache_hour:
            point["ttl"] = cache.ttl
        return [{"cachePoint": point}]

    def _text(self, part: Text, where: str) -> Block | None:
        if part.citations:
            self._losses.add(CITATIONS, where=where)
        # Blank blocks are refused; they say nothing, so nothing is lost without them.
        return {"text": part.text} if part.text.strip() else None

    def _refusal(self, part: Refusal, where: str) -> Block | None:
        return {"text": part.text} if part.text.strip() else None

    def _thinking(self, part: Thinking, where: str) -> Block | None:
        claude = self.generation.claude is not None
        if part.dialect not in ((CLAUDE, DIALECT) if claude else (DIALECT,)) or (part.redacted and not claude):
            self._losses.add(THINKING, where=where)
        elif part.redacted:
            # Only what this vendor hid has the form that it takes back.
            if part.dialect == DIALECT and part.signature is not None:
                return {"reasoningContent": {"redactedContent": part.signature}}
            self._losses.add(THINKING, where=where)
        elif part.signature is not None and claude:
            return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}
        elif claude:
            self._losses.add(UNSIGNED, where=where)
        elif self.generation.replays:
            return {"reasoningContent": {"reasoningText": {"text": part.text}}}
        else:
            self._losses.add(NO_REPLAY, where=where)
        return None

    def _call(self, part: ToolCall, where: str) -> Block | None:
        if part.server:
            self._losses.add(SERVER_CALL, where=where)
            return None
        arguments = kit.json_object(part.arguments)
        if arguments is None:
            self._losses.add(RAW_ARGUMENTS, where=where)
            arguments = {"arguments": part.arguments}
        self.called[part.name] = None
        return {"toolUse": {"toolUseId": tool_id(part.id), "name": part.name, "input": arguments}}

    def _result(self, part: ToolResult, where: str) -> Block | None:
        if part.name:
            self.called[part.name] = None
        content: list[Block] = []
        for item in part.parts:
            if isinstance(item, Text | Refusal):
                content += self._answer(item.text)
            elif isinstance(item, Media) and item.kind != "audio":
                content.append(self._media.block_of(item, where))
            else:
                self._losses.add(RESULT, where=where)
        result: Block = {"toolUseId": tool_id(part.call_id), "content": content or [EMPTY]}
        if part.is_error:
            result["status"] = "error"
        return {"toolResult": result}

    def _answer(self, text: str) -> list[Block]:
        """What a tool answered, in words. Some models insist on JSON, which must be an object."""
        if not self.generation.json_results:
            return [{"text": text}] if text.strip() else []
        value = kit.json_object(text) if text.lstrip().startswith("{") else None
        return [{"json": {"output": text} if value is None else value}] if text.strip() else []

    def _opaque(self, part: Opaque, where: str) -> Block | None:
        if part.dialect == DIALECT and isinstance(part.data, dict):
            return dict(part.data)
        self._losses.add(BLOCK, where=where, dialect=part.dialect)
        return None

    def _medium(self, part: Media, where: str) -> Block | None:
        return self._media.block_of(part, where)


_WRITERS: Mapping[type[Any], Callable[[ContentWriter, Any, str], Block | None]] = {
    Text: ContentWriter._text,
    Refusal: ContentWriter._refusal,
    Thinking: ContentWriter._thinking,
    ToolCall: ContentWriter._call,
    ToolResult: ContentWriter._result,
    Opaque: ContentWriter._opaque,
    Media: ContentWriter._medium,
}
