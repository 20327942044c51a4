from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.pointers import MISSING, ClaimPath

CLAIMS: dict[str, Any] = {
    "email": "a@example.com",
    "https://example.com/roles": ["admin"],
    "realm.access": 1,
    "realm": {"roles": ["a", "b"], "0": "zero", "a/b": "slash", "m~n": "tilde", "": "empty"},
    "~1": "tilde one",
    "nothing": None,
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("email", "a@example.com"),
        ("https://example.com/roles", ["admin"]),
        ("realm.access", 1),
        ("~1", "tilde one"),
        ("nothing", None),
        ("/email", "a@example.com"),
        ("/realm/roles", ["a", "b"]),
        ("/realm/roles/1", "b"),
        ("/realm/0", "zero"),
        ("/realm/a~1b", "slash"),
        ("/realm/m~0n", "tilde"),
        ("/~01", "tilde one"),
        ("/realm/", "empty"),
    ],
)
def test_a_claim_is_found_by_name_or_pointer(source: str, value: object) -> None:
    assert ClaimPath.parse(source).find(CLAIMS) == value


@pytest.mark.parametrize(
    "source",
    [
        "absent",
        "/absent",
        "/absent/deeper",
        "/email/0",
        "/nothing/x",
        "/",
        "/realm/roles/2",
        "/realm/roles/-",
        "/realm/roles/-1",
        "/realm/roles/01",
        "/realm/roles/+1",
        "/realm/roles/1 ",
        "/realm/roles/١",
        "/realm/roles/" + "9" * 5000,
    ],
)
def test_what_is_not_there_is_missing(source: str) -> None:
    assert ClaimPath.parse(source).find(CLAIMS) is MISSING


def test_the_source_is_kept_as_written() -> None:
    assert ClaimPath.parse("/a~1b/c") == ClaimPath("/a~1b/c", ("a/b", "c"))


def test_an_empty_text_is_refused() -> None:
    with pytest.raises(ValueError, match="is empty; write a name"):
        ClaimPath.parse("")


@pytest.mark.parametrize("source", ["/~", "/a~2b", "/a~/b", "/~~0"])
def test_a_bad_escape_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match="stands alone in a pointer; write ~0"):
        ClaimPath.parse(source)


@given(st.lists(st.text(), min_size=1))
def test_escaped_steps_come_back_unescaped(steps: list[str]) -> None:
    source = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
    assert ClaimPath.parse(source).tokens == tuple(steps)


@given(st.lists(st.text(), min_size=1), st.integers())
def test_a_value_at_the_end_of_the_steps_is_found(steps: list[str], value: int) -> None:
    claims: Any = value
    for step in reversed(steps):
        claims = {step: claims}
    assert ClaimPath("", tuple(steps)).find(claims) == value
