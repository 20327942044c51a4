"""JSON as readers understand it that are less strict than `strict_json`.

Not for use, but to know what another reader could make of a text that is refused here.
"""

import json
from collections.abc import Callable
from typing import Any, Final

__all__ = ["BYTE_ORDER_MARK", "readings"]

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"

_LONG_NUMBER: Final = 1000
"""Digits; Python refuses to make an integer of some thousands, and other readers do not."""


def readings(data: bytes) -> list[dict[str, Any]]:
    """The objects that a text can be taken for, none where it is no JSON object to anybody.

    A byte order mark, NaN and Infinity, control characters in texts, lone surrogates and any
    number are taken, and of members with one name the first or the last. Text that is not UTF-8
    is no message (RFC 6455 section 8.1). Raises RecursionError for a nesting that cannot be read.
    """
    try:
        text = data.removeprefix(BYTE_ORDER_MARK).decode()
        values = [decoder.decode(text) for decoder in (_LAST_WINS, _FIRST_WINS)]
    except ValueError:
        return []
    return [value for value in values if isinstance(value, dict)]


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _number(text: str) -> int | float:
    return int(text) if len(text) < _LONG_NUMBER else float(text)


def _decoder(members: Callable[[list[tuple[str, Any]]], dict[str, Any]]) -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=members, parse_int=_number, strict=False)


_LAST_WINS: Final = _decoder(dict)
_FIRST_WINS: Final = _decoder(_first_wins)
