"""Names of this format that several modules share."""

from __future__ import annotations

__all__ = ["CLAUDE", "DIALECT", "Block"]

from typing import Any

DIALECT = "bedrock-converse"
"""Under which name the hub keeps what only this vendor reads."""
CLAUDE = "anthropic-messages"
"""Whose reasoning signed thoughts of Claude are: their vendor takes its signatures wherever they were made."""

Block = dict[str, Any]
