"""Tokens whose signature was good, so that clients that come back need not have it checked again.

After a deploy or a network's hiccup thousands of clients reconnect with the tokens they have; a
signature costs more than everything else that is decided about them.
"""

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from sidecar.model import Identity
from sidecar.policy.keys import VerificationKey
from sidecar.policy.providers import Provider

__all__ = ["MAX_BYTES", "Name", "Verified", "VerifiedTokens", "digest"]

MAX_BYTES: Final = 4 * 1024 * 1024
"""Bytes of the tokens that are remembered together. What is kept of one takes about five times as
many, and of one that is made for it seventeen.
"""

Name = tuple[bytes, tuple[str, ...] | None]
"""What a token is remembered by: its digest, and the providers that it was tried with."""


class Verified(NamedTuple):
    """What came of a token: `keys` are those it was checked against, `kid` its key's name."""

    identity: Identity
    provider: Provider
    kid: str | None
    keys: Sequence[VerificationKey]


class VerifiedTokens:
    """Remembers tokens by their digest, never the tokens themselves.

    Only good tokens are remembered, so that nobody without one can make room scarce; the one that
    was not asked for the longest time goes first. Who takes an entry must check what may have
    changed since: the time, and whether `keys` still are the provider's.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._entries: dict[Name, tuple[Verified, int]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: Name) -> Verified | None:
        """The token's entry, which is now the latest one."""
        entry = self._entries.pop(name, None)
        if entry is None:
            return None
        self._entries[name] = entry
        return entry[0]

    def remember(self, name: Name, verified: Verified, size: int) -> None:
        """Keep an entry; `size` is the token's, in bytes."""
        self.forget(name)
        self._entries[name] = verified, size
        self._size += size
        while self._size > self._max_bytes:
            self.forget(next(iter(self._entries)))

    def forget(self, name: Name) -> None:
        """Drop an entry, if there is one."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            self._size -= entry[1]


def digest(token: str) -> bytes:
    """The SHA-256 of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
