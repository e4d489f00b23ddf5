"""Reasoning of other dialects inside of `encrypted_content`, the field that clients give back unread.

What another vendor needs to recognise its model's reasoning (a signature, a redacted block, its own form of it) has no
place in this format. So it is sealed into the one string that every client has to return as it came; when it does, the
reasoning goes back to the dialect that it came from, and to no other. The seal hides nothing: what is in it is the
client's own, and the vendor checks its signature.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

from relay.ir import Thinking
from relay.kit import dumps
from relay_openai.responses.wire import DIALECT, own_fields

__all__ = ["own_form", "seal", "unseal"]

PREFIX = "relay.1."
"""Begins what the relay sealed; no vendor's own strings begin so."""


def seal(part: Thinking, signature: str | None) -> str | None:
    """The `encrypted_content` of a reasoning item; None if there is nothing to give back."""
    if part.dialect == DIALECT or part.dialect is None:
        return signature
    fields: dict[str, Any] = {"dialect": part.dialect}
    if signature is not None:
        fields["signature"] = signature
    if part.redacted:
        fields["redacted"] = True
    kept = (part.extra or {}).get(part.dialect)
    if kept:
        fields["extra"] = kept
    return PREFIX + base64.urlsafe_b64encode(dumps(fields)).decode("ascii").rstrip("=")


def unseal(item: dict[str, Any], shown: str) -> Thinking:
    """The reasoning of an item: another dialect's if it was sealed here, else this dialect's own."""
    content = item.get("encrypted_content")
    fields = _opened(content) if isinstance(content, str) and content.startswith(PREFIX) else None
    if fields is None:
        known = ("type", "encrypted_content")
        own = {key: value for key, value in item.items() if key not in known and value is not None}
        return Thinking(
            shown,
            signature=content if isinstance(content, str) else None,
            dialect=DIALECT,
            extra={DIALECT: own} if own else None,
        )
    signature, extra, dialect = fields.get("signature"), fields.get("extra"), fields["dialect"]
    redacted = fields.get("redacted") is True
    return Thinking(
        "" if redacted else shown,
        signature=signature if isinstance(signature, str) else None,
        redacted=redacted,
        dialect=dialect,
        extra={dialect: extra} if isinstance(extra, dict) and extra else None,
    )


def _opened(sealed: str) -> dict[str, Any] | None:
    """What `seal` wrote, or None if a client damaged it."""
    text = sealed.removeprefix(PREFIX)
    try:
        fields = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return None
    return fields if isinstance(fields, dict) and isinstance(fields.get("dialect"), str) else None


def own_form(part: Thinking) -> dict[str, Any]:
    """The fields that this dialect's own reasoning came with; empty for any other."""
    return dict(own_fields(part.extra)) if part.dialect == DIALECT else {}
