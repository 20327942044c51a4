"""Plain scalars, and references to environment variables."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar.config.scalars import expand, resolve

ENVIRON = {"NAME": "value", "EMPTY": "", "NESTED": "${NAME}"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-7", -7),
        ("10000", 10000),
        ("0.25", 0.25),
        ("-1.5", -1.5),
    ],
)
def test_json_like_scalars_have_their_types(text: str, value: object) -> None:
    assert repr(resolve(text)) == repr(value)


@pytest.mark.parametrize(
    "text",
    [
        *("yes", "no", "on", "off", "y", "True", "FALSE", "Null", "NULL"),
        *("012", "0o7", "0x1f", "0b1", "1_000", "12:30", "+1", "1e3", ".5", "1.", ".inf", ".nan"),
        *("2026-01-01", "2026-01-01T00:00:00Z", "=", "٣", "9" * 19),
    ],
)
def test_the_surprises_of_yaml_1_1_stay_text(text: str) -> None:
    assert resolve(text) == text


@given(st.text())
def test_a_scalar_is_what_json_or_yaml_takes_it_for_or_text(text: str) -> None:
    value = resolve(text)
    assert value == text or value == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("a ${NAME} b", "a value b"),
        ("${NAME}${NAME}", "valuevalue"),
        ("${MISSING:-default}", "default"),
        ("${MISSING:-}", ""),
        ("${EMPTY:-default}", "default"),
        ("${EMPTY}", ""),
        ("${NAME:-default}", "value"),
        ("${NESTED}", "${NAME}"),
        ("${MISSING:-a:-b\nc}", "a:-b\nc"),
        ("$${NAME}", "${NAME}"),
        ("$NAME $ {user}", "$NAME $ {user}"),
    ],
)
def test_references_are_filled_in_once(text: str, expanded: str) -> None:
    assert expand(text, ENVIRON) == expanded


def test_a_missing_variable_without_default_is_named() -> None:
    with pytest.raises(ValueError, match=r"variable MISSING is not set; set it"):
        expand("x ${MISSING}", ENVIRON)


@pytest.mark.parametrize("text", ["${name}", "${}", "${1A}", "${A B}", "${NAME", "${A:default}"])
def test_what_only_looks_like_a_reference_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"; write \$\{NAME\}"):
        expand(text, ENVIRON)


@given(st.text(alphabet="${}NAME:-x"))
def test_expansion_fails_in_one_way_only(text: str) -> None:
    try:
        expand(text, ENVIRON)
    except ValueError as error:
        assert "; " in str(error)  # noqa: PT017
