"""Reading JSON values with a fault that names the path: the contract's own, under this package's name."""

from __future__ import annotations

from relay.fields import boolean, fault, integer, items, number, obj, text, word

__all__ = ["boolean", "fault", "integer", "items", "number", "obj", "text", "word"]
