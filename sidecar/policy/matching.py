"""Messages that carry a token: telling one from all others, cheaply first and then exactly."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.policy.lenient_json import BYTE_ORDER_MARK, readings
from sidecar.policy.pointers import MISSING, ClaimPath
from sidecar.policy.strict_json import json_object, same

__all__ = ["ENVELOPE", "BadToken", "Constant", "MessagePattern"]

ENVELOPE: Final = 4096
"""Bytes of a message around its token: ids, time stamps and what else a client adds."""

Constant = str | int | float | bool | None
"""A JSON value without parts."""

_BLANK: Final = b" \t\n\r"  # RFC 8259 section 2
_INDEX: Final = re.compile(r"[0-9]+")
_CONTROL: Final = re.compile("[\x00-\x1f]")
_NOT_STRICT: Final = "the message is not JSON that every reader understands alike"


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

    `needles` stand in every message of the pattern, unless it has `escape` in it: expected texts,
    the likeliest to be missing, and then names. A token need not be there for an attempt.
    """

    when: Sequence[tuple[ClaimPath, Constant]]
    token: ClaimPath
    limit: int
    needles: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    escape: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for pointer, _ in self.when:
            if _nested(pointer.tokens, self.token.tokens):
                raise ValueError(
                    f"no message has both a value at {pointer.source} and a token at "
                    f"{self.token.source}; name two places that do not contain each other"
                )
        spelled = tuple(dict.fromkeys(self._spelled()))
        object.__setattr__(self, "needles", spelled)
        object.__setattr__(self, "escape", _escape(b"".join(spelled)))

    @property
    def max_size(self) -> int:
        """The largest message that can be of the pattern, in bytes."""
        return self.limit + ENVELOPE

    def could_begin(self, prefix: bytes) -> bool:
        """Whether a message that begins so can be of the pattern. Never wrongly false."""
        if BYTE_ORDER_MARK.startswith(prefix):
            return True
        start = prefix.removeprefix(BYTE_ORDER_MARK).lstrip(_BLANK)
        return start[:1] in (b"", b"{") and start[1:].lstrip(_BLANK)[:1] in (b"", b'"', b"}")

    def could_match(self, payload: bytes) -> bool:
        """Whether it is worth asking `match`: never wrongly false, and quick.

        Every expected text and every name on the way to a value stands in the message as it is,
        unless an escape hides it.
        """
        if len(payload) > self.max_size or not self.could_begin(payload):
            return False
        return self.escape in payload or all(needle in payload for needle in self.needles)

    def match(self, payload: bytes) -> str | BadToken | None:
        """The token, or why there is no usable one; None where it is not such a message.

        The message must be strict JSON (see `strict_json`), so that no other reader can understand
        it otherwise; one that another reader could take for a message of the pattern gives a
        BadToken. Values are compared by type as well: 1 is neither "1" nor true, but 1.0.
        """
        if len(payload) > self.max_size:
            return None
        try:
            message = json_object(payload)
        except ValueError:
            return BadToken(_NOT_STRICT) if self._taken_for_one(payload) else None
        return self._token(self.token.find(message)) if self._holds(message) else None

    def _holds(self, message: dict[str, Any]) -> bool:
        return all(same(pointer.find(message), wanted) for pointer, wanted in self.when)

    def _taken_for_one(self, payload: bytes) -> bool:
        """Whether a lenient reader could take it for a message of the pattern."""
        try:
            return any(map(self._holds, readings(payload)))
        except RecursionError:
            return self.could_match(payload)

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
        values = [wanted for _, wanted in self.when if isinstance(wanted, str)]
        steps = [step for pointer, _ in self.when for step in pointer.tokens]
        names = [step for step in steps if not _INDEX.fullmatch(step)]
        # a control character has an escape, but lenient readers take it as it is
        return [_json_text(text) for text in (*values, *names) if not _CONTROL.search(text)]


def _json_text(text: str) -> bytes:
    """The text as JSON; where that has an escape, each way to write it has one."""
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("no message can hold this text; remove the lone surrogate") from None


def _escape(texts: bytes) -> bytes:
    """How every escape begins that can hide one of these (RFC 8259 section 7)."""
    if b"\\" in texts or b"/" in texts:
        return b"\\"
    return b"\\u00" if texts.isascii() else b"\\u"


def _nested(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shorter, longer = sorted((one, other), key=len)
    return longer[: len(shorter)] == shorter
