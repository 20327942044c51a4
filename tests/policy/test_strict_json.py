"""JSON that every reader understands alike."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.strict_json import MAX_DEPTH, json_object, same

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), JSON_VALUES, max_size=5))
def test_what_a_strict_writer_wrote_is_read_back(value: dict[str, Any]) -> None:
    try:
        document = json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        with pytest.raises(ValueError, match="strict"):
            json_object(json.dumps(value).encode())
    else:
        assert json_object(document) == value
        assert json_object(json.dumps(value).encode()) == value


@given(st.binary(max_size=200) | st.text('{}[]":,\\u0dxe1.- ', max_size=80).map(str.encode))
def test_arbitrary_bytes_give_an_object_or_a_value_error(data: bytes) -> None:
    try:
        assert isinstance(json_object(data), dict)
    except ValueError as error:
        assert str(error) in {  # noqa: PT017 - most inputs raise, some don't
            "not strict UTF-8 JSON",
            "not a JSON object",
            "nested too deeply",
        }


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{} {}",
        b'{"a": 1,}',
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": -1e999}',
        b'{"a": 1_000}',
        b'{"a": 01}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "\\u0061": 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": "\x00"}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        '{"a": 1}'.encode("utf-16-le"),
        '{"a": 1}'.encode("utf-32"),
        b'{"a": ' + b"[" * 100_000,
    ],
)
def test_what_readers_could_understand_differently_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not strict UTF-8 JSON$"):
        json_object(data)


@pytest.mark.parametrize("data", [b"[]", b'"a"', b"1", b"null", b"true", b"[{}]"])
def test_another_type_than_an_object_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^not a JSON object$"):
        json_object(data)


def test_escaped_pairs_of_surrogates_are_one_character() -> None:
    assert json_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


def nested(levels: int) -> bytes:
    """An object with `levels` levels of containers, the object being the first."""
    return b'{"a": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_nesting_is_bounded() -> None:
    assert json_object(nested(MAX_DEPTH))
    with pytest.raises(ValueError, match="nested too deeply"):
        json_object(nested(MAX_DEPTH + 1))


def test_many_flat_containers_are_not_deep() -> None:
    assert len(json_object(b'{"a": [' + b"{}," * 1000 + b"[]]}")["a"]) == 1001


@pytest.mark.parametrize(
    ("left", "right"), [(1, 1.0), (True, True), (None, None), ([1, {"a": "b"}], [1.0, {"a": "b"}])]
)
def test_equal_values_are_the_same(left: Any, right: Any) -> None:
    assert same(left, right)
    assert same(right, left)


@pytest.mark.parametrize(
    ("left", "right"),
    [(1, True), (0, False), (1, "1"), (None, False), ([1], [True]), ({"a": 1}, {"a": "1"})],
)
def test_values_of_different_types_are_not_the_same(left: Any, right: Any) -> None:
    assert not same(left, right)
    assert not same(right, left)
