"""Authorize rules: what the claims must say."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.claims import CelRule, ClaimRule, Scope
from sidecar.policy.pointers import ClaimPath
from sidecar.policy.templates import Template

ROOTS = ("user", "claims", "path", "request", "session")


def scope(**claims: object) -> Scope:
    return Scope(
        user="ana",
        claims=claims,
        path={"room": "blue"},
        request={"host": "chat.example.com", "secure": True, "headers": {"user-agent": "x"}},
        session={"provider": "app", "token_id": None, "anonymous": False, "expires_at": 9.0},
    )


def rule(**conditions: Any) -> ClaimRule:
    return ClaimRule("claim a", ClaimPath.parse("a"), **conditions)


def template(source: str) -> Template:
    return Template.parse(source, ROOTS)


@pytest.mark.parametrize(
    ("claim", "operand"),
    [
        (True, True),
        (None, None),
        ("x", "x"),
        (1, 1.0),
        (1.0, 1),
        (0, -0.0),
        ([1, "a", [None]], [1.0, "a", [None]]),
        ({"b": [True], "c": 1}, {"c": 1, "b": [True]}),
        ([], []),
        ({}, {}),
    ],
)
def test_the_same_json_value_is_equal(claim: Any, operand: Any) -> None:
    assert rule(equals=(operand,)).holds(scope(a=claim))
    assert rule(in_=("other", operand)).holds(scope(a=claim))
    assert rule(contains=(operand,)).holds(scope(a=["other", claim]))


@pytest.mark.parametrize(
    ("claim", "operand"),
    [
        (True, 1),
        (1, True),
        (False, 0),
        (0, False),
        (False, None),
        ("1", 1),
        (1, "1"),
        ("true", True),
        ("", None),
        (None, False),
        ("x", "X"),
        (2**53 + 1, float(2**53)),
        (float("nan"), float("nan")),
        ([True], [1]),
        ([1, 2], [1]),
        ([1], 1),
        ({"a": True}, {"a": 1}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, [["a", 1]]),
        ([], {}),
        ("a", ["a"]),
    ],
)
def test_another_json_type_or_value_is_not_equal(claim: Any, operand: Any) -> None:
    assert not rule(equals=(operand,)).holds(scope(a=claim))
    assert not rule(in_=("other", operand)).holds(scope(a=claim))
    assert not rule(contains=(operand,)).holds(scope(a=["other", claim]))


def test_an_absent_claim_equals_nothing() -> None:
    operands: list[Any] = [None, False, "", 0, [], {}]
    for operand in operands:
        assert not rule(equals=(operand,)).holds(scope())
        assert not rule(in_=(operand,)).holds(scope())
        assert not rule(contains=(operand,)).holds(scope())


def test_in_an_empty_list_is_nothing() -> None:
    assert not rule(in_=()).holds(scope(a="x"))


def test_operands_are_filled_in() -> None:
    assert rule(equals=(template("{user}@{path.room}"),)).holds(scope(a="ana@blue"))
    assert rule(in_=("x", template("{claims.b}"))).holds(scope(a="7", b=7))
    assert rule(contains=(template("{path.room}"),)).holds(scope(a=["red", "blue"]))
    assert rule(equals=(template("{request.host}-{session.provider}"),)).holds(
        scope(a="chat.example.com-app")
    )


@pytest.mark.parametrize(
    "source", ["{claims.missing}", "{claims.list}", "{session.token_id}", "{claims.huge}"]
)
def test_an_operand_that_cannot_be_filled_in_does_not_hold(source: str) -> None:
    claims = {"a": "", "list": ["x"], "huge": 10**5000}
    assert not rule(equals=(template(source),)).holds(scope(**claims))
    assert not rule(in_=("", template(source))).holds(scope(**claims | {"a": "x"}))
    assert not rule(contains=(template(source),)).holds(scope(**claims | {"a": [""]}))


def test_a_text_operand_with_braces_is_literal() -> None:
    assert rule(equals=("{user}",)).holds(scope(a="{user}"))
    assert not rule(equals=("{user}",)).holds(scope(a="ana"))


@pytest.mark.parametrize("word", ["read", "write:all", "x"])
def test_a_space_separated_text_contains_its_words(word: object) -> None:
    assert rule(contains=(word,)).holds(scope(a="read write:all  x"))


@pytest.mark.parametrize("word", ["", "rea", "write", "read x", " ", 1, None, True])
def test_a_space_separated_text_contains_nothing_else(word: object) -> None:
    assert not rule(contains=(word,)).holds(scope(a="read write:all  x"))


def test_an_empty_text_contains_nothing() -> None:
    assert not rule(contains=("",)).holds(scope(a=""))


@pytest.mark.parametrize("claim", [1, True, None, {"read": 1}])
def test_other_types_contain_nothing(claim: Any) -> None:
    assert not rule(contains=("read",)).holds(scope(a=claim))


@pytest.mark.parametrize(
    ("pattern", "claim"),
    [
        (r"[a-z]+@example\.com", "ana@example.com"),
        ("a|ab", "ab"),
        ("(?i)ANA", "ana"),
        ("", ""),
        (r"\w+", "日本"),
        ("a\n?", "a\n"),
    ],
)
def test_a_pattern_matches_the_whole_text(pattern: str, claim: Any) -> None:
    assert rule(matches=pattern).holds(scope(a=claim))


@pytest.mark.parametrize(
    ("pattern", "claim"),
    [
        (r"[a-z]+@example\.com", "ana@example.com.evil"),
        (r"[a-z]+@example\.com", "x ana@example.com"),
        ("ana", "ana\n"),
        ("^ana$", "x\nana"),
        (".*", "a\nb"),
        ("a|b", "ab"),
        (r"\d+", 12),
        ("true", True),
        (".*", None),
        (".*", ["a"]),
        (".*", "admin\ud800"),
    ],
)
def test_a_pattern_matches_nothing_else(pattern: str, claim: Any) -> None:
    assert not rule(matches=pattern).holds(scope(a=claim))


def test_a_pattern_does_not_match_an_absent_claim() -> None:
    assert not rule(matches=".*").holds(scope())


def test_a_pattern_takes_linear_time() -> None:
    evil = rule(matches=r"(a|aa|a*)*(a*)*[bc]")
    started = time.process_time()
    assert not evil.holds(scope(a="a" * 8000))
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        ("(", "unclosed group"),
        ("a)|(?:b", "unopened group"),
        ("(?x)a # comment", "unclosed group"),
        ("a\\", "incomplete escape"),
        ("(?=a)", "look-around"),
        (r"(a)\1", "backreferences"),
        ("(?:.{1,500}){40}", "size limit"),
        ("\ud800", "surrogates"),
    ],
)
def test_a_bad_pattern_is_refused(pattern: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)^not a pattern \(.*{wrong}.*\); use RE2 syntax"):
        rule(matches=pattern)


def test_a_rule_without_a_condition_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^no condition; give one of equals, in, contains"):
        rule()


@pytest.mark.parametrize("claim", [False, 0, "", [], {}])
def test_an_empty_claim_exists(claim: Any) -> None:
    assert rule(exists=True).holds(scope(a=claim))
    assert not rule(exists=False).holds(scope(a=claim))


def test_an_absent_or_null_claim_does_not_exist() -> None:
    for present in (scope(), scope(a=None)):
        assert rule(exists=False).holds(present)
        assert not rule(exists=True).holds(present)


@pytest.mark.parametrize(
    ("claim", "verdict"), [("ana", True), ("anabel", False), ("bob", False), ("a", False)]
)
def test_all_conditions_must_hold(claim: Any, verdict: bool) -> None:
    strict = rule(
        exists=True, matches="a.+", in_=("ana", "a", "anabel"), equals=("ana",), contains=("ana",)
    )
    assert strict.holds(scope(a=claim)) is verdict


def test_each_condition_can_fail_alone() -> None:
    assert not rule(equals=("x",), in_=("y",)).holds(scope(a="x"))
    assert not rule(in_=("x",), contains=("y",)).holds(scope(a="x"))
    assert not rule(matches="x", exists=False).holds(scope(a="x"))


def test_a_pointer_reaches_inner_claims() -> None:
    inner = ClaimRule("inner", ClaimPath.parse("/realm/roles"), contains=("admin",))
    assert inner.holds(scope(realm={"roles": ["admin"]}))
    assert not inner.holds(scope(roles=["admin"]))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(json_values, json_values)
def test_no_claim_makes_a_rule_raise(claim: Any, operand: Any) -> None:
    every = rule(equals=(operand,), in_=(operand,), contains=(operand,), exists=True)
    assert every.holds(scope(a=claim)) in (True, False)
    assert rule(matches="a*").holds(scope(a=claim)) in (True, False)


def test_a_cel_rule_reads_the_whole_scope() -> None:
    cel = CelRule(
        "claims.a == 1 && user == 'ana' && path.room == 'blue' && request.secure"
        " && request.headers['user-agent'] == 'x' && session.provider == 'app'"
        " && session.token_id == null && session.expires_at == 9.0",
        label="all of it",
        reason="not_you",
        shadow=True,
    )
    assert cel.holds(scope(a=1))
    assert not cel.holds(scope(a=2))
    assert (cel.label, cel.reason, cel.shadow) == ("all of it", "not_you", True)


def test_a_cel_rule_is_enforced_and_nameless_unless_told() -> None:
    cel = CelRule("claims.a", label="a")
    assert (cel.reason, cel.shadow) == (None, False)
    assert not cel.holds(scope(a="true"))
    assert not cel.holds(scope())


def test_a_cel_rule_with_a_typo_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown variable claim;"):
        CelRule("claim.a", label="a")


@pytest.mark.parametrize(
    ("claims", "why"), [({}, "the claim is missing"), ({"a": 2}, "the claim does not fit")]
)
def test_a_claim_that_is_missing_is_told_from_one_that_does_not_fit(
    claims: dict[str, Any], why: str
) -> None:
    rule = ClaimRule("a", ClaimPath.parse("a"), equals=(1,))
    assert rule.why_not(Scope("", claims, {}, {}, {})) == why


@pytest.mark.parametrize(
    ("claims", "why"), [({}, "it gives no boolean"), ({"a": 2}, "it is false"), ({"a": "2"}, "it")]
)
def test_an_expression_without_a_value_is_told_from_a_false_one(
    claims: dict[str, Any], why: str
) -> None:
    rule = CelRule("claims.a > 2", label="a")
    assert not rule.holds(Scope("", claims, {}, {}, {}))
    assert rule.why_not(Scope("", claims, {}, {}, {})).startswith(why)
