"""What only one API key opens: sealed with keys that are derived from it, so that there is no other key to be kept.

The relay stores of an API key nothing but a hash, which is of no use here: whoever has the disk cannot read what was
sealed, nor tell what it is called; and neither can the relay, unless the key's owner comes back with it.

This module loads the package `cryptography`, which takes 8 MB and tens of milliseconds: import it where something is
sealed, and not before.
"""

from __future__ import annotations

import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from relay.secret import Secret

__all__ = ["Seal"]

SALT = b"i8relay kept"
INFO = b"i8relay kept 1: names, contents"
VERSION = b"\x01"
"""Begins whatever is sealed in this way."""
NONCE = 12
"""Bytes drawn anew for each entry: with one key that is safe for some four thousand million of them."""
PLACE = 16


class Seal:
    """The keys of one owner, both HKDF-SHA256 of its API key: for names (HMAC) and for contents (AES-256-GCM)."""

    __slots__ = ("_contents", "_names")

    def __init__(self, secret: Secret) -> None:
        material = HKDF(algorithm=SHA256(), length=64, salt=SALT, info=INFO)
        keys = material.derive(secret.reveal().encode("utf-8", "surrogateescape"))
        self._names = keys[:32]
        self._contents = AESGCM(keys[32:])

    def place(self, *names: str) -> bytes:
        """Where something of these names is kept. Without the key nobody can tell what it stands for."""
        return hmac.digest(self._names, _joined(names), "sha256")[:PLACE]

    def close(self, document: bytes, at: int, *names: str) -> bytes:
        """The document, for these names and this time alone."""
        nonce = os.urandom(NONCE)
        return VERSION + nonce + self._contents.encrypt(nonce, document, _about(at, names))

    def open(self, sealed: bytes, at: int, *names: str) -> bytes | None:
        """What was sealed for these names and this time; None if it was not, with this key and in this form."""
        begin = len(VERSION) + NONCE
        if not sealed.startswith(VERSION):
            return None
        try:
            return self._contents.decrypt(sealed[len(VERSION) : begin], sealed[begin:], _about(at, names))
        except (InvalidTag, ValueError):
            return None


def _joined(names: tuple[str, ...]) -> bytes:
    """Several names as one, so that no two lists of them look the same."""
    pieces = [name.encode("utf-8", "surrogatepass") for name in names]
    return b"".join(b"%d:%b" % (len(piece), piece) for piece in pieces)


def _about(at: int, names: tuple[str, ...]) -> bytes:
    return VERSION + b"%d;" % at + _joined(names)
