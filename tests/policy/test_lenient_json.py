"""What readers make of JSON that is not strict."""

import math

import pytest

from sidecar.policy.lenient_json import readings


def test_members_of_one_name_are_read_in_both_ways() -> None:
    last, first = readings(b'{"a": {"b": 1, "b": 2}, "c": 3, "a": {"b": 4, "b": 5}}')
    assert last == {"a": {"b": 5}, "c": 3}
    assert first == {"a": {"b": 1}, "c": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"Infinity", math.inf),
        (b"1e999", math.inf),
        (b"-" + b"9" * 5000, -math.inf),
        (b"12", 12),
        (b'"a\x00\n"', "a\x00\n"),
        (b'"\\ud800"', "\ud800"),
    ],
)
def test_a_value_that_is_not_strict_is_read(text: bytes, value: object) -> None:
    assert readings(b'{"a": ' + text + b"}") == [{"a": value}] * 2


def test_a_byte_order_mark_is_passed_over() -> None:
    assert readings(b"\xef\xbb\xbf{}") == [{}, {}]


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"{} {}", b'{"a": "\xff"}', b"{\x00}\x00"])
def test_what_is_no_object_has_no_reading(text: bytes) -> None:
    assert readings(text) == []


def test_nesting_without_end_is_an_error() -> None:
    with pytest.raises(RecursionError):
        readings(b'{"a": ' + b"[" * 100_000)
