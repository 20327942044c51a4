import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import HandshakeError
from sidecar.wire.extensions import has_token, is_token, parse_subprotocols

TOKENS = st.text(
    "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("text", ["", "a b", "a,b", "a/b", "a=", '"a"', "é", "a\n", "(x)", "a\x00"])
def test_what_is_not_a_token(text: str) -> None:
    assert not is_token(text)


def test_a_token_is_found_in_any_case_and_any_field() -> None:
    assert has_token(["keep-alive, Upgrade"], "upgrade")
    assert has_token(["keep-alive", ",\tUPGRADE ,"], "upgrade")


@pytest.mark.parametrize("values", [[], [""], ["upgraded"], ["not upgrade"], ['"upgrade"']])
def test_a_token_is_not_found_in_something_else(values: list[str]) -> None:
    assert not has_token(values, "upgrade")


def test_subprotocols_keep_order_and_case_over_several_fields() -> None:
    assert parse_subprotocols(["Chat,\tb ", "bearer"]) == ("Chat", "b", "bearer")


def test_no_field_offers_no_subprotocol() -> None:
    assert parse_subprotocols([]) == ()


@pytest.mark.parametrize(
    "value", ["", "a,", ",a", "a,,b", "a b", "a;b", "a=b", '"a"', "日本", "a/b"]
)
def test_a_malformed_list_of_subprotocols_is_refused(value: str) -> None:
    with pytest.raises(HandshakeError, match="not a list of tokens"):
        parse_subprotocols([value])


@pytest.mark.parametrize("values", [["a, a"], ["a", "b, a"]])
def test_a_subprotocol_named_twice_is_refused(values: list[str]) -> None:
    with pytest.raises(HandshakeError, match="twice"):
        parse_subprotocols(values)


@given(st.lists(TOKENS, unique=True, min_size=1, max_size=8), st.integers(0, 8))
def test_a_list_of_tokens_reads_back(tokens: list[str], cut: int) -> None:
    parts = [part for part in (tokens[:cut], tokens[cut:]) if part]
    assert parse_subprotocols([" , ".join(part) for part in parts]) == tuple(tokens)


@given(st.text(max_size=30))
def test_any_text_is_a_list_of_tokens_or_is_refused(value: str) -> None:
    try:
        offered = parse_subprotocols([value])
    except HandshakeError:
        return
    assert all(map(is_token, offered))
