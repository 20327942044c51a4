"""JSON from strangers, read so that no two programs can understand it differently.

The standard decoder alone takes UTF-16, NaN, 1e999, duplicate names and lone surrogates. Each of
them lets what was checked differ from what another reader sees (RFC 8259 sections 4, 6 and 8).
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["MAX_DEPTH", "json_object", "same"]

MAX_DEPTH: Final = 32
"""Levels of nesting; real tokens and key sets have fewer than ten."""


def json_object(data: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises ValueError, with a text that holds nothing of the data, for anything that is not UTF-8
    without a byte order mark, a duplicate name, NaN, a number that is not finite, a lone
    surrogate, nesting deeper than `MAX_DEPTH`, or another type than an object.
    """
    try:
        text = data.decode("utf-8")
        value = _DECODER.decode(text)
        if "\\u" in text:
            # Escapes are the only way for a lone surrogate past the UTF-8 decoder.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise ValueError("not strict UTF-8 JSON") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return value


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are of the same type and equal: true is not 1, and 1 is 1.0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right
    if isinstance(left, list) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return type(left) is type(right) and bool(left == right)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate name")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _no_constant(text: str) -> Any:
    raise ValueError("not a JSON value")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
)


def _depth(value: Any) -> int:
    """How deep containers are nested in `value`, counted without recursion."""
    depth = 0
    level = [value]
    while level:
        depth += 1
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
    return depth
