"""One way to write JSON: compact, sorted and strict."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["canonical_json"]


def canonical_json(value: Any) -> bytes:
    """The value as JSON (RFC 8259) in UTF-8: no white space, names sorted.

    Raises ValueError, without the value in its text, for what strict JSON cannot say: NaN and
    infinities, lone surrogates, other types, nesting that is too deep.
    """
    plain = dict(value) if isinstance(value, Mapping) else value
    try:
        return json.dumps(
            plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
        ).encode()
    except (ValueError, TypeError, RecursionError):
        raise ValueError("it cannot be written as strict JSON") from None
