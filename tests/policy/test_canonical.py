"""One way to write JSON."""

from types import MappingProxyType
from typing import Any

import pytest

from sidecar.policy.canonical import canonical_json


def test_names_are_sorted_and_there_is_no_white_space() -> None:
    assert canonical_json({"b": [1, 2.5], "a": {"d": None, "c": True}}) == (
        b'{"a":{"c":true,"d":null},"b":[1,2.5]}'
    )


def test_text_beyond_ascii_is_utf_8() -> None:
    assert canonical_json({"name": "日本"}) == '{"name":"日本"}'.encode()


def test_a_read_only_mapping_is_an_object() -> None:
    assert canonical_json(MappingProxyType({"a": 1})) == b'{"a":1}'


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "admin\ud800", {"a": b"bytes"}, nested(100_000)]
)
def test_what_strict_json_cannot_say_is_refused_without_the_value(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^it cannot be written as strict JSON$"):
        canonical_json(value)
