"""Words of this format that more than one module needs."""

from __future__ import annotations

from typing import Any

__all__ = ["DIALECT", "LABEL", "is_labelled"]

DIALECT = "anthropic-messages"

LABEL = "relay:"
"""How the signatures begin that the relay wrote. Those of the vendor are base64, which has no colon."""


def is_labelled(signature: Any) -> bool:
    """Whether the relay wrote this where the vendor writes what only it can read."""
    return isinstance(signature, str) and signature.startswith(LABEL)
