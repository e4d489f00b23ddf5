"""Reasoning of other vendors' models in this format: labelled, so that it finds its way back and goes nowhere else.

The format has a place for an opaque signature, which clients return unread. For reasoning that another dialect's model
produced, the relay writes a label there: which dialect it is of, and what that dialect needs to take it back.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from relay.ir import Extra, Thinking
from relay.kit import dumps, loads
from relay_anthropic.block import DIALECT

__all__ = ["LABEL", "is_labelled", "label_of", "thinking_of", "without_labelled"]

LABEL = "relay:"
"""How the signatures begin that the relay wrote. Those of the vendor are base64, which has no colon."""


def label_of(dialect: str | None, signature: str | None, extra: Extra | None) -> str:
    """The signature for a block of reasoning that is not this dialect's own."""
    fields: dict[str, Any] = {"dialect": dialect}
    if signature is not None:
        fields["signature"] = signature
    if own := (extra or {}).get(dialect or ""):
        fields["extra"] = own
    return LABEL + base64.urlsafe_b64encode(dumps(fields)).decode("ascii")


def is_labelled(signature: Any) -> bool:
    """Whether the relay wrote this signature."""
    return isinstance(signature, str) and signature.startswith(LABEL)


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


def without_labelled(data: dict[str, Any]) -> dict[str, Any]:
    """A request without the blocks that the relay labelled: the vendor would refuse their signatures.

    The very same object if there are none. A message that held nothing else is left out.
    """
    messages = []
    for message in data["messages"]:
        content = message.get("content")
        kept = [block for block in content if not _foreign(block)] if isinstance(content, list) else content
        if kept == content:
            messages.append(message)
        elif kept:
            messages.append({**message, "content": kept})
    return data if messages == data["messages"] else {**data, "messages": messages}


def _foreign(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    place = {"thinking": "signature", "redacted_thinking": "data"}.get(str(block.get("type")))
    return place is not None and is_labelled(block.get(place))
