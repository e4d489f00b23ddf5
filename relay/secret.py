"""A string that does not print itself."""

from __future__ import annotations

__all__ = ["Secret"]


class Secret:
    """Holds a credential so that logs, tracebacks, `repr` and JSON cannot show it by accident.

    >>> Secret("sk-123")
    Secret('***')
    >>> Secret("sk-123").reveal()
    'sk-123'
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The credential itself: call this only where it is put on the wire."""
        return self._value

    def mask(self, text: str) -> str:
        """`text` with every occurrence of the credential hidden; upstreams like to echo keys in their errors."""
        return text.replace(self._value, "***") if self._value else text

    def mask_bytes(self, data: bytes) -> bytes:
        """The same for bytes."""
        return data.replace(self._value.encode("utf-8", "surrogateescape"), b"***") if self._value else data

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__
