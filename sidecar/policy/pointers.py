"""Where a claim stands: a top-level name, or an RFC 6901 JSON pointer into the claims."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["MISSING", "ClaimPath"]

MISSING: Final = object()
"""What `ClaimPath.find` gives where there is nothing (None is a JSON null that is there)."""

_BAD_ESCAPE = re.compile(r"~(?![01])")
# RFC 6901 section 4: no leading zeros. More than nine digits index no list that fits a token.
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class ClaimPath:
    """A claim's place. `source` is as written, `tokens` the unescaped steps."""

    source: str
    tokens: tuple[str, ...]

    @classmethod
    def parse(cls, source: str) -> "ClaimPath":
        """A name (`email`, `https://example.com/roles`) or a pointer (`/realm_access/roles`).

        A text that starts with "/" is a pointer, every other one a top-level name as it stands.
        Raises ValueError for an empty text or a bad "~" escape.
        """
        if not source:
            raise ValueError("a claim's name is empty; write a name or a pointer such as /a/b")
        if not source.startswith("/"):
            return cls(source, (source,))
        if _BAD_ESCAPE.search(source):
            raise ValueError('"~" stands alone in a pointer; write ~0 for "~" and ~1 for "/"')
        return cls(source, tuple(map(_unescape, source[1:].split("/"))))

    def find(self, claims: Mapping[str, Any]) -> Any:
        """The value there, or MISSING. List indexes as in RFC 6901 section 4."""
        value: Any = claims
        for token in self.tokens:
            value = _step(value, token)
        return value


def _unescape(token: str) -> str:
    # RFC 6901 section 4: ~1 first, so that "~01" becomes "~1" and not "/"
    return token.replace("~1", "/").replace("~0", "~")


def _step(value: Any, token: str) -> Any:
    # dict first, as a token's objects are: to ask the abstract class costs ten times as much.
    if isinstance(value, (dict, Mapping)):
        return value.get(token, MISSING)
    if isinstance(value, list) and _INDEX.fullmatch(token) and int(token) < len(value):
        return value[int(token)]
    return MISSING
