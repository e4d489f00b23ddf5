"""What other vendors' models thought, in this format: labelled, so that it finds its way back and goes nowhere else.

The format has a place for an opaque signature on every part, and clients return it unread with the part. For parts that
another dialect's model produced, the relay writes a label there:

* on a thought that is shown: which dialect it is of, and at its end what that dialect needs to take it back;
* on the first function call after such thoughts: the thoughts themselves, because many clients do not return those.

A label is base64 of `relay:` and JSON. Some clients decode signatures and write them again in the URL-safe alphabet.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from relay.ir import Thinking
from relay.kit import dumps, loads

__all__ = ["LABEL", "UNSIGNED", "call_label", "is_labelled", "restored", "thought_label", "without_labelled"]

_MARK = b"relay:"
LABEL = base64.b64encode(_MARK).decode("ascii")
"""How the signatures begin that the relay wrote."""

UNSIGNED = "skip_thought_signature_validator"
"""What the vendor lets stand for a signature that is not there, as with calls that another model made."""


def _label(value: Any) -> str:
    return base64.b64encode(_MARK + dumps(value)).decode("ascii")


def _fields(part: Thinking) -> dict[str, Any]:
    fields: dict[str, Any] = {"dialect": part.dialect}
    if part.signature is not None:
        fields["signature"] = part.signature
    if part.redacted:
        fields["redacted"] = True
    if own := (part.extra or {}).get(part.dialect or ""):
        fields["extra"] = own
    return fields


def thought_label(part: Thinking) -> str:
    """The signature of a thought whose text stands beside it."""
    return _label(_fields(part))


def call_label(thoughts: Sequence[Thinking]) -> str:
    """The signature of a function call that these thoughts led to."""
    return _label([{**_fields(part), "text": part.text} for part in thoughts])


def is_labelled(signature: Any) -> bool:
    """Whether the relay wrote this signature."""
    return isinstance(signature, str) and signature.startswith(LABEL)


def restored(signature: str) -> list[Thinking]:
    """The thoughts that a label tells of; none if it cannot be read. That of a shown thought has no text in it."""
    plain = signature.replace("-", "+").replace("_", "/")
    try:
        value = loads(base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).removeprefix(_MARK))
    except (binascii.Error, ValueError):
        return []
    return [_thought(fields) for fields in (value if isinstance(value, list) else [value]) if isinstance(fields, dict)]


def _thought(fields: dict[str, Any]) -> Thinking:
    dialect, signature, own, text = (fields.get(name) for name in ("dialect", "signature", "extra", "text"))
    known = dialect if isinstance(dialect, str) else None
    return Thinking(
        text if isinstance(text, str) else "",
        signature=signature if isinstance(signature, str) else None,
        redacted=fields.get("redacted") is True,
        dialect=known,
        extra={known: own} if known is not None and isinstance(own, dict) else None,
    )


# Requests that pass through.

_SPELLINGS = ("thoughtSignature", "thought_signature")


def without_labelled(contents: list[Any], *, signed: bool) -> list[Any]:
    """`contents` without the thoughts that the relay labelled; the very same object if there are none.

    A call keeps its place: where the model insists on signatures (`signed`) it gets what stands for one.
    """
    found = [_cleaned(content, signed) for content in contents]
    if all(new is old for new, old in zip(found, contents, strict=True)):
        return contents
    return [content for content in found if content is not None]


def _cleaned(content: Any, signed: bool) -> Any:
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, list) or not any(_is_foreign(part) for part in parts):
        return content
    kept = []
    for part in parts:
        if not _is_foreign(part):
            kept.append(part)
        elif part.get("thought") is not True:
            spelling = next(name for name in _SPELLINGS if is_labelled(part.get(name)))
            plain = {name: value for name, value in part.items() if name != spelling}
            called = "functionCall" in plain or "function_call" in plain
            kept.append({**plain, spelling: UNSIGNED} if signed and called else plain)
    return {**content, "parts": kept} if kept else None


def _is_foreign(part: Any) -> bool:
    return isinstance(part, dict) and any(is_labelled(part.get(name)) for name in _SPELLINGS)
