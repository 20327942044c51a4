"""Messages of the sidecar's own: types are kept, and nothing that a token says can break one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import TemplateError
from sidecar.model import Identity
from sidecar.policy.replies import MAX_REPLY, Facts, Reply

NOW = 1_700_000_000.75
CLAIMS = {
    "exp": 1_700_000_060,
    "email": "ana@example.com",
    "rooms": ["a", 1],
    "address": {"city": "Łódź"},
    "admin": True,
    "none": None,
    "rate": 0.5,
}
ANA = Identity("ana", CLAIMS, "app", 1_700_000_060.0, "t1")
FACTS = Facts(ANA, NOW, "11111111-2222-4333-8444-555555555555", "token_expired")


def told(value: Any, facts: Facts = FACTS) -> Any:
    return json.loads(Reply(value).render(facts))


@pytest.mark.parametrize("value", [{}, [], "text", 1, 0.5, True, None, {"a": [{"b": "日本"}]}])
def test_a_value_without_references_is_itself(value: Any) -> None:
    assert told(value) == value


def test_a_message_is_compact_utf_8() -> None:
    reply = Reply({"type": "hi", "data": {"city": "{claims.address.city}"}})
    assert reply.render(FACTS) == '{"type":"hi","data":{"city":"Łódź"}}'.encode()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{user}", "ana"),
        ("{claims.exp}", 1_700_000_060),
        ("{claims.rate}", 0.5),
        ("{claims.admin}", True),
        ("{claims.rooms}", ["a", 1]),
        ("{claims.address}", {"city": "Łódź"}),
        ("{claims.none}", None),
        ("{reason}", "token_expired"),
        ("{expires_in}", 59),
        ("{now}", 1_700_000_000),
        ("{now_ms}", 1_700_000_000_750),
        ("{uuid}", "11111111-2222-4333-8444-555555555555"),
        ("{claims.missing}", None),
        ("{claims.email.part}", None),
        ("{claims.address.street}", None),
    ],
)
def test_a_text_that_is_one_reference_keeps_the_type(text: str, value: Any) -> None:
    assert told([text]) == [value]
    assert type(told([text])[0]) is type(value)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("in {expires_in} s", "in 59 s"),
        ("{user}/{claims.email}", "ana/ana@example.com"),
        ("{user}{user}", "anaana"),
        (" {claims.exp}", " 1700000060"),
        ("{claims.admin}!", "true!"),
        ("<{claims.missing}>", "<>"),
        ("<{claims.rooms}>", "<>"),
        ("<{claims.none}>", "<>"),
        ("{{user}} is {user}", "{user} is ana"),
        ("{{", "{"),
    ],
)
def test_in_a_longer_text_a_value_is_text(text: str, filled: str) -> None:
    assert told({"text": text}) == {"text": filled}


def test_of_nobody_there_is_nothing_to_tell() -> None:
    nobody = Facts(None, NOW, "u")
    value = ["{user}", "{claims.exp}", "{expires_in}", "{reason}", "<{user}>", "{now}"]
    assert told(value, nobody) == [None, None, None, None, "<>", 1_700_000_000]


@pytest.mark.parametrize(("expires_at", "left"), [(NOW - 1, 0), (NOW + 0.9, 0), (None, None)])
def test_the_time_that_is_left_is_never_negative(
    expires_at: float | None, left: int | None
) -> None:
    identity = Identity("ana", {}, "app", expires_at, None)
    assert told("{expires_in}", Facts(identity, NOW, "u")) == left


def test_names_of_members_are_no_templates() -> None:
    assert told({"{user}": "{user}"}) == {"{user}": "ana"}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{", "is not closed; "),
        ("{nobody}", r"unknown here; .*: claims, expires_in, now, now_ms, reason, user, uuid$"),
        ("{path.room}", "unknown here; "),
        ("{claims}", r"is not one value; name a part: \{claims\.NAME\}$"),
        ("{user.name}", r"goes beyond one value; write \{user\}$"),
    ],
)
def test_a_bad_template_is_refused_wherever_it_stands(text: str, wrong: str) -> None:
    for value in (text, [text], {"a": {"b": [f"x {text}"]}}):
        with pytest.raises(TemplateError, match=wrong):
            Reply(value)


def test_a_message_that_is_too_large_is_refused() -> None:
    assert len(Reply("x" * (MAX_REPLY - 2)).render(FACTS)) == MAX_REPLY
    with pytest.raises(ValueError, match=r"^is over 16 KiB; shorten it$"):
        Reply("x" * (MAX_REPLY - 1))


def test_a_text_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^has a lone surrogate; remove it$"):
        Reply({"a": "\udfff"})


@pytest.mark.parametrize(
    "claim",
    ["x" * MAX_REPLY, "\ud800", 10**5000, float("nan"), [float("inf")], ["x"] * MAX_REPLY],
    ids=["large", "surrogate", "digits", "nan", "infinite", "long"],
)
def test_a_value_that_cannot_be_sent_takes_all_values_with_it(claim: Any) -> None:
    facts = Facts(Identity("ana", {"it": claim}, "app", None, None), NOW, "u")
    assert told({"type": "ok", "user": "{user}", "it": "{claims.it}"}, facts) == {
        "type": "ok",
        "user": None,
        "it": None,
    }


claims = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(claims, st.text(), st.floats(0, 1e12), st.floats(0, 253402300799) | st.none())
def test_whatever_a_token_says_the_message_is_json(
    claim: object, user: str, now: float, expires_at: float | None
) -> None:
    identity = Identity(user, {"it": claim}, "app", expires_at, None)
    value = {
        "a": "{claims.it}",
        "b": ["<{claims.it}> {user}"],
        "c": "{expires_in}",
        "d": "{now_ms}",
    }
    payload = Reply(value).render(Facts(identity, now, "u"))
    assert len(payload) <= MAX_REPLY
    assert json.loads(payload.decode()).keys() == value.keys()
