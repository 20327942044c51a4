"""Strict YAML."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.load import MAX_BYTES, load
from sidecar.config.nodes import doubtful, plain

ENVIRON = {"PORT": "8080", "ON": "true", "EMPTY": "", "NULL": "null"}


def value(text: str) -> object:
    section, found = load(text.encode(), "p.yaml", ENVIRON)
    assert found == ()
    return plain(section)


def problems(data: str | bytes) -> list[str]:
    _, found = load(data.encode() if isinstance(data, str) else data, "p.yaml", ENVIRON)
    return [str(problem) for problem in found]


def rest(text: str) -> object:
    """What is left of a text with mistakes."""
    section, found = load(text.encode(), "p.yaml", ENVIRON)
    assert found
    return plain(section)


def test_mappings_lists_and_scalars() -> None:
    assert value("a: [1, 'x', {b: true}]\nc:\n- null\n- 0.5\n") == {
        "a": [1, "x", {"b": True}],
        "c": [None, 0.5],
    }


def test_quoted_scalars_are_text() -> None:
    assert value("a: '1'\nb: \"true\"\nc: |\n  null\n") == {"a": "1", "b": "true", "c": "null\n"}


def test_keys_are_text_whatever_they_look_like() -> None:
    assert value("on: 1\n4001: 2\n? \n: 3\n") == {"on": 1, "4001": 2, "": 3}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_file_is_an_empty_policy(text: str) -> None:
    assert value(text) == {}


def test_a_byte_order_mark_is_dropped() -> None:
    assert value("\ufeffa: 1") == {"a": 1}


def test_an_unquoted_reference_may_become_a_number_or_a_boolean() -> None:
    assert value("a: ${PORT}\nb: ${ON}\nc: '${PORT}'\nd: ${X:-7}") == {
        "a": 8080,
        "b": True,
        "c": "8080",
        "d": 7,
    }


def test_a_reference_never_becomes_null() -> None:
    assert value("a: ${EMPTY}\nb: ${NULL}") == {"a": "", "b": "null"}


def test_references_stand_in_values_not_in_keys() -> None:
    assert value("${PORT}: 1") == {"${PORT}": 1}


def test_a_missing_variable_names_its_line() -> None:
    assert problems("a: 1\nb:\n  - x ${NOT_SET}\n")[0].startswith(
        "p.yaml:3:5: b[0]: the environment variable NOT_SET is not set; "
    )


def test_a_variable_that_is_not_utf_8_is_an_error() -> None:
    environ = {"RAW": os.fsdecode(b"\xff")}
    section, (problem,) = load(b"a: ${RAW}", "p.yaml", environ)
    assert str(problem).startswith("p.yaml:1:4: a: is not valid text once expanded; ")
    assert plain(section) == {}


@pytest.mark.parametrize("text", ["- 1\n", "text\n", "7\n"])
def test_a_policy_is_a_mapping(text: str) -> None:
    assert problems(text)[0].startswith("p.yaml:1:1: is not a mapping; ")


def test_duplicate_keys_name_both_lines() -> None:
    assert problems("a: 1\nb: {c: 1, c: 1}\na: 2\n") == [
        "p.yaml:2:11: b.c: stands twice (first on line 2); keep one of the two",
        "p.yaml:3:1: a: stands twice (first on line 1); keep one of the two",
    ]


def test_aliases_that_would_explode_are_refused() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{new}: &{new} [*{old}, *{old}, *{old}]\n"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert len(problems(bomb)) == 9 + 24


def test_an_alias_to_itself_is_refused() -> None:
    assert "p.yaml:1:8: a[0]: aliases are not supported; write the value out" in problems(
        "a: &a [*a]"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: !!int '1'", "p.yaml:1:4: a: the tag 'tag:yaml.org,2002:int' is not supported"),
        ("a: !secret x", "p.yaml:1:4: a: the tag '!secret' is not supported"),
        ("a: ! x", "p.yaml:1:4: a: the tag '!' is not supported"),
        ("a: !!set {x}", "p.yaml:1:4: a: the tag 'tag:yaml.org,2002:set' is not supported"),
        ("!!map {a: 1}", "p.yaml:1:1: the tag 'tag:yaml.org,2002:map' is not supported"),
        ("!!str a: 1", "p.yaml:1:1: a key must be plain text"),
        ("&x a: 1", "p.yaml:1:1: a key must be plain text"),
        ("<<: {a: 1}", "p.yaml:1:1: merge keys are not supported"),
        ("? [a]\n: 1", "p.yaml:1:3: a key must be text"),
        ("{a: {{user}: 1}}", "p.yaml:1:6: a: a key must be text"),
    ],
)
def test_what_yaml_would_do_silently_is_refused(text: str, problem: str) -> None:
    assert problems(text)[-1].startswith(problem)


def test_a_quoted_merge_key_is_only_a_key() -> None:
    assert value("'<<': 1") == {"<<": 1}


@pytest.mark.parametrize("text", ["a: 1\n---\nb: 2\n", "a: 1\n...\n---\n"])
def test_a_second_document_is_refused(text: str) -> None:
    assert "a second document starts here" in problems(text)[0]


def test_problems_before_a_second_document_are_told_too() -> None:
    assert len(problems("a: 1\na: 2\n---\nb: 2\n")) == 2


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "a: @", "a: 'x", "%YAML 9.9\n---\n", "a: *"])
def test_a_syntax_error_has_its_place(text: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith("p.yaml:")
    assert ": is not valid YAML (" in problem


@pytest.mark.parametrize("text", ["a: \x00", "a: \x07", "\x1b: 1", "a: \ufffe"])
def test_control_characters_are_refused(text: str) -> None:
    assert "YAML" in problems(text)[0]


def test_text_that_is_not_utf_8_is_refused() -> None:
    assert problems(b"a: \xff") == ["p.yaml: is not UTF-8 text; save it as UTF-8"]


@pytest.mark.parametrize("text", ["a: " + "[" * 5000, "{a: " * 5000, "- " * 33])
def test_deep_nesting_is_refused(text: str) -> None:
    assert "is nested deeper than 32 levels" in problems(text)[0]


def test_a_file_over_a_mebibyte_is_refused_unread() -> None:
    assert problems(b"#" * (MAX_BYTES + 1))[0].startswith("p.yaml: is larger than 1 MiB; ")


def test_a_file_of_a_mebibyte_is_read() -> None:
    assert value("#" * MAX_BYTES) == {}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a: ${NOT_SET}\nb: ['${NOT_SET}', 1]", {"b": [1]}),
        ("a: 1\na: 2\nb: 3", {"a": 1, "b": 3}),
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}}),
        ("a: !!int '1'\nb: !!map {c: 1}", {"b": {"c": 1}}),
        ("a: {<<: {b: 1}, c: 2}", {"a": {"c": 2}}),
        ("a: {{user}: 1, c: 2}", {"a": {"c": 2}}),
        ("- 1", {}),
        ("a: 1\n---\nb: 1", {}),
        ("a: [", {}),
    ],
)
def test_what_can_be_read_is_left_of_a_text_with_mistakes(text: str, left: object) -> None:
    assert rest(text) == left


@pytest.mark.parametrize("text", ["${NOT_SET}", "*x", "!!str a"])
def test_a_policy_that_is_no_value_is_told_once(text: str) -> None:
    assert len(problems(text)) == 1
    assert rest(text) == {}


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: 1\n---\n", "*x", "\x00", "- " * 40])
def test_what_cannot_be_read_may_have_had_any_key(text: str) -> None:
    section, _ = load(text.encode(), "p.yaml", {})
    assert doubtful(section, ["upstreams", "chat"])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        *(("\ta: 1", "1:1"), ("ä:\n\tb: 1\n", "2:1"), ("a:\n  b: 1\n  \tc: 2\n", "3:3")),
        *(("a:\n  b:\n\t\tc: 1\n", "3:1"), ("- x\n\t- y\n", "2:1"), ("a: |\n\tx\n", "2:1")),
    ],
)
def test_a_tab_is_called_a_tab(text: str, place: str) -> None:
    assert problems(text) == [f"p.yaml:{place}: a tab stands here; indent with spaces"]


def test_mistakes_before_a_syntax_error_are_told_too() -> None:
    assert len(problems("a: ${NOT_SET}\nb: [")) == 2


@given(st.binary() | st.text(alphabet="ab:-[]{}&*!<>|'\"#%?,\n \t$0123").map(str.encode))
def test_any_bytes_give_a_mapping(data: bytes) -> None:
    assert isinstance(plain(load(data, "p.yaml", ENVIRON)[0]), dict)


def test_a_truncated_policy_gives_a_mapping() -> None:
    data = (Path(__file__).parent / "golden" / "full.yaml").read_bytes()
    for end in range(0, len(data), 7):
        assert isinstance(plain(load(data[:end], "p.yaml", ENVIRON)[0]), dict)
