"""What is remembered of tokens that were good, and for how long."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.auth.verified import Name, Verified, VerifiedTokens, digest
from sidecar.model import Identity
from sidecar.policy.providers import Provider

PROVIDER = Provider("app", ("HS256",), None)


def of(user: str) -> Verified:
    identity = Identity(user=user, provider="app", claims={}, expires_at=None, token_id=None)
    return Verified(identity, PROVIDER, None, ())


def name(text: str, allowed: tuple[str, ...] | None = None) -> Name:
    return digest(text), allowed


def test_a_token_is_found_by_its_name_alone() -> None:
    tokens = VerifiedTokens()
    assert tokens.find(name("a")) is None
    tokens.remember(name("a"), of("alice"), 10)
    tokens.remember(name("b"), of("bob"), 10)
    assert tokens.find(name("a")) == of("alice")
    assert tokens.find(name("b")) == of("bob")
    assert tokens.find(name("a", ("app",))) is None
    assert len(tokens) == 2


def test_a_token_that_is_forgotten_is_gone() -> None:
    tokens = VerifiedTokens(10)
    tokens.remember(name("a"), of("alice"), 10)
    tokens.forget(name("a"))
    tokens.forget(name("a"))
    assert tokens.find(name("a")) is None
    tokens.remember(name("b"), of("bob"), 10)
    assert tokens.find(name("b")) == of("bob")


def test_the_token_that_was_not_asked_for_the_longest_time_goes_first() -> None:
    tokens = VerifiedTokens(30)
    for text in "abc":
        tokens.remember(name(text), of(text), 10)
    assert tokens.find(name("a"))
    tokens.remember(name("d"), of("d"), 11)
    assert [text for text in "abcd" if tokens.find(name(text))] == ["a", "d"]


def test_a_token_that_is_larger_than_all_the_room_is_not_kept() -> None:
    tokens = VerifiedTokens(30)
    tokens.remember(name("a"), of("a"), 31)
    assert len(tokens) == 0
    tokens.remember(name("b"), of("b"), 30)
    assert len(tokens) == 1


@pytest.mark.parametrize("text", ["", "a.b.c", "é", "\ud800", "\udfff.x"])
def test_a_name_is_no_token(text: str) -> None:
    expected = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    assert digest(text) == expected


@given(st.lists(st.text(st.characters(exclude_categories=())), unique=True))
def test_different_texts_have_different_names(texts: list[str]) -> None:
    assert len({digest(text) for text in texts}) == len(texts)


class Model:
    """The same, naively: a list with the eldest first."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.entries: list[tuple[str, str, int]] = []

    def take(self, text: str) -> tuple[str, str, int] | None:
        for entry in self.entries:
            if entry[0] == text:
                self.entries.remove(entry)
                return entry
        return None

    def find(self, text: str) -> Verified | None:
        entry = self.take(text)
        if entry is None:
            return None
        self.entries.append(entry)
        return of(entry[1])

    def remember(self, text: str, user: str, size: int) -> None:
        self.take(text)
        self.entries.append((text, user, size))
        while sum(size for _, _, size in self.entries) > self.room:
            self.entries.pop(0)


TEXTS = st.sampled_from("abcdef")
STEPS = st.one_of(
    st.tuples(st.just("find"), TEXTS),
    st.tuples(st.just("forget"), TEXTS),
    st.tuples(st.just("remember"), TEXTS, st.sampled_from(["x", "y"]), st.integers(0, 12)),
)


@given(st.integers(0, 30), st.lists(STEPS, max_size=40))
def test_whatever_is_asked_the_answers_are_a_naive_models(
    room: int, steps: Sequence[tuple[str, str] | tuple[str, str, str, int]]
) -> None:
    tokens, model = VerifiedTokens(room), Model(room)
    for step in steps:
        match step:
            case ("find", text):
                assert tokens.find(name(text)) == model.find(text)
            case ("forget", text):
                tokens.forget(name(text))
                model.take(text)
            case (_, text, user, size):
                tokens.remember(name(text), of(user), size)
                model.remember(text, user, size)
        assert len(tokens) == len(model.entries)
    for text in "abcdef":
        assert tokens.find(name(text)) == model.find(text)
