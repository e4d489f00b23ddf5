"""Reasoning of other vendors' models in this format: labelled, so that it finds its way back and goes nowhere else.

The format has a place for an opaque signature, which clients return unread. For reasoning that another dialect's model
produced, the relay writes a label there: which dialect it is of, and what that dialect needs to take it back.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from relay.ir import Extra, LossKind, Thinking
from relay.kit import dumps, loads
from relay_anthropic.citation import is_foreign_citation
from relay_anthropic.losses import FOREIGN, FOREIGN_CITATIONS
from relay_anthropic.wire import DIALECT, LABEL, is_labelled

__all__ = ["LABEL", "is_labelled", "label_of", "thinking_of", "without_labelled"]


def label_of(dialect: str | None, signature: str | None, extra: Extra | None) -> str:
    """The signature for a block of reasoning that is not this dialect's own."""
    fields: dict[str, Any] = {"dialect": dialect}
    if signature is not None:
        fields["signature"] = signature
    if own := (extra or {}).get(dialect or ""):
        fields["extra"] = own
    return LABEL + base64.urlsafe_b64encode(dumps(fields)).decode("ascii")


def thinking_of(text: str, label: str, *, redacted: bool) -> Thinking:
    """The part that was labelled. One whose label cannot be read belongs to no dialect, so no target is given it."""
    try:
        fields = loads(base64.urlsafe_b64decode(label.removeprefix(LABEL)))
    except (binascii.Error, ValueError):
        fields = None
    if not isinstance(fields, dict) or not isinstance(fields.get("dialect"), str):
        return Thinking(text, redacted=redacted)
    dialect, signature, own = fields["dialect"], fields.get("signature"), fields.get("extra")
    return Thinking(
        text,
        signature=signature if isinstance(signature, str) else None,
        redacted=redacted,
        dialect=dialect,
        extra={dialect: own} if isinstance(own, dict) and dialect != DIALECT else None,
    )


def without_labelled(data: dict[str, Any]) -> tuple[dict[str, Any], list[LossKind]]:
    """A request without the blocks and citations that the relay labelled: the vendor would refuse their signatures.

    The very same object if there are none. A message that held nothing else is left out. Also what is lost by that.
    """
    messages = []
    for message in data["messages"]:
        content = message.get("content")
        kept = [_uncited(block) for block in content if not _foreign(block)] if isinstance(content, list) else content
        if kept == content:
            messages.append(message)
        elif kept:
            messages.append({**message, "content": kept})
    if messages == data["messages"]:
        return data, []
    blocks = [block for message in data["messages"] for block in _blocks(message)]
    kinds = {FOREIGN: _foreign, FOREIGN_CITATIONS: lambda block: _uncited(block) is not block}
    return {**data, "messages": messages}, [kind for kind, lost in kinds.items() if any(map(lost, blocks))]


def _blocks(message: dict[str, Any]) -> list[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else []


def _uncited(block: Any) -> Any:
    """A block without the citations that the relay wrote."""
    citations = block.get("citations") if isinstance(block, dict) else None
    if not isinstance(citations, list) or not any(map(is_foreign_citation, citations)):
        return block
    own = [citation for citation in citations if not is_foreign_citation(citation)]
    rest = {name: value for name, value in block.items() if name != "citations"}
    return {**rest, "citations": own} if own else rest


def _foreign(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    place = {"thinking": "signature", "redacted_thinking": "data"}.get(str(block.get("type")))
    return place is not None and is_labelled(block.get(place))
