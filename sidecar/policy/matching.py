"""Messages that carry a token: telling one from all others, cheaply first and then exactly."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sidecar.policy.pointers import MISSING, ClaimPath
from sidecar.policy.strict_json import json_object, same

__all__ = ["ENVELOPE", "BadToken", "Constant", "MessagePattern"]

ENVELOPE: Final = 4096
"""Bytes of a message around its token: ids, time stamps and what else a client adds."""

Constant = str | int | float | bool | None
"""A JSON value without parts."""

_BLANK: Final = b" \t\n\r"  # RFC 8259 section 2
_INDEX: Final = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class BadToken:
    """A message of the pattern whose token cannot be used: an attempt that failed.

    `detail` says why, for the log, and holds nothing of the message.
    """

    detail: str


@dataclass(frozen=True, slots=True)
class MessagePattern:
    """JSON objects in which each pointer of `when` leads to that value, and `token` to a token.

    `limit` is the largest token in bytes; a message larger than `max_size` is not of the pattern.
    Raises ValueError, with what is wrong and what would be right, for pointers that no message
    can have together, and for a text that no message can hold.
    """

    when: Sequence[tuple[ClaimPath, Constant]]
    token: ClaimPath
    limit: int
    _needles: tuple[bytes, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for pointer, _ in self.when:
            if _nested(pointer.tokens, self.token.tokens):
                raise ValueError(
                    f"no message has both a value at {pointer.source} and a token at "
                    f"{self.token.source}; name two places that do not contain each other"
                )
        object.__setattr__(self, "_needles", tuple(dict.fromkeys(self._spelled())))

    @property
    def max_size(self) -> int:
        """The largest message that can be of the pattern, in bytes."""
        return self.limit + ENVELOPE

    def could_begin(self, prefix: bytes) -> bool:
        """Whether a message that begins so can be of the pattern. Never wrongly false."""
        start = prefix.lstrip(_BLANK)
        return start[:1] in (b"", b"{") and start[1:].lstrip(_BLANK)[:1] in (b"", b'"', b"}")

    def could_match(self, payload: bytes) -> bool:
        """Whether it is worth asking `match`: never wrongly false, and quick.

        Every expected text and every name on the way to a value stands in the message as it is,
        unless an escape hides it; then there is a backslash.
        """
        if len(payload) > self.max_size or not self.could_begin(payload):
            return False
        return b"\\" in payload or all(needle in payload for needle in self._needles)

    def match(self, payload: bytes) -> str | BadToken | None:
        """The token, or why there is no usable one; None where it is not such a message.

        The message is strict JSON (see `strict_json`), so that no other reader can understand it
        otherwise. Values are compared by type as well: 1 is neither "1" nor true, but 1.0.
        """
        if len(payload) > self.max_size:
            return None
        try:
            message = json_object(payload)
        except ValueError:
            return None
        if not all(same(pointer.find(message), wanted) for pointer, wanted in self.when):
            return None
        return self._token(self.token.find(message))

    def _token(self, value: object) -> str | BadToken:
        if value is MISSING:
            return BadToken("the message has no token")
        if not isinstance(value, str):
            return BadToken("the message's token is not text")
        if not value:
            return BadToken("the message's token is empty")
        if len(value.encode()) > self.limit:
            return BadToken("the message's token is over max_token_size")
        return value

    def _spelled(self) -> list[bytes]:
        """What stands in every message without escapes: expected texts, the likeliest to be
        missing, then names. A token need not be there for an attempt.
        """
        values = [wanted for _, wanted in self.when if isinstance(wanted, str)]
        steps = [step for pointer, _ in self.when for step in pointer.tokens]
        names = [step for step in steps if not _INDEX.fullmatch(step)]
        return [_json_text(text) for text in (*values, *names)]


def _json_text(text: str) -> bytes:
    """The text as JSON; where that has an escape, each way to write it has one."""
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("no message can hold this text; remove the lone surrogate") from None


def _nested(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return longer[: len(shorter)] == shorter
