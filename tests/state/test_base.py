from typing import Any

import pytest

from sidecar.model import Identity
from sidecar.state.base import Subject, keys_of, moment_after
from tests.support.revocations import NOW, revocation, subject


def identity(**claims: Any) -> Identity:
    return Identity("alice", claims, "app", None, None)


def test_the_facts_of_a_token_are_read_from_its_claims() -> None:
    claims = {"sub": "u-1", "sid": "s-1", "jti": "t-1", "iat": int(NOW) - 60}
    assert Subject.of(identity(**claims), NOW) == subject()


def test_a_token_without_the_claims_has_none_of_the_facts() -> None:
    assert Subject.of(identity(), NOW) == Subject("app", "alice", None, None, None, None)


def test_a_number_is_named_by_its_digits() -> None:
    found = Subject.of(identity(sub=42, sid=7, jti=123), NOW)
    assert (found.sub, found.sid, found.jti) == ("42", "7", "123")


@pytest.mark.parametrize("value", [True, 1.5, None, ["s-1"], {"s-1": 1}])
def test_a_claim_of_another_type_names_nothing(value: Any) -> None:
    found = Subject.of(identity(sub=value, sid=value, jti=value), NOW)
    assert (found.sub, found.sid, found.jti) == (None, None, None)


def test_an_issuers_clock_that_is_ahead_hides_no_token() -> None:
    """Its connection was there when the revocation came, so it was issued before."""
    token = Subject.of(identity(iat=NOW + 30), seen_at=NOW)
    assert token.issued_at == NOW
    assert revocation(before=moment_after(NOW + 1)).revokes(token)


@pytest.mark.parametrize(("now", "moment"), [(100.0, 101.0), (100.7, 101.0)])
def test_the_moment_after_takes_in_the_whole_second(now: float, moment: float) -> None:
    assert moment_after(now) == moment


def test_all_names_of_a_token_are_asked_for_at_once() -> None:
    assert len(keys_of(subject())) == 10
    assert len(keys_of(subject(sub=None, sid=None, jti=None))) == 4
