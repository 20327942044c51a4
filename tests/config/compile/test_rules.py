"""Rules on claims, and the templates in them."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.config.source import Loaded
from sidecar.policy.claims import CelRule, ClaimRule
from sidecar.policy.templates import Template

Load = Callable[[str], Loaded]
Mistakes = Callable[[str], list[str]]


def policy(small: str, rule: str) -> str:
    return f'{small}routes:\n- match: {{path: "/{{room}}"}}\n  authorize:\n  - {rule}\n'


@pytest.mark.parametrize(
    ("yaml", "value"),
    [
        ("true", True),
        ("1", 1),
        ("0.5", 0.5),
        ("null", None),
        ("pro", "pro"),
        ('"{{x}}"', "{x}"),
        ("no", "no"),
    ],
)
def test_a_scalar_is_compared_as_it_is(load: Load, small: str, yaml: str, value: Any) -> None:
    (rule,) = load(policy(small, f"{{claim: a, equals: {yaml}}}")).policy.routes[0].authorize
    assert isinstance(rule, ClaimRule)
    assert repr(rule.equals) == repr((value,))
    assert rule.contains is None


@pytest.mark.parametrize(
    "template",
    [
        *("{path.room}", "{user}", "{claims.a.b}", "{request.host}", "{session.provider}"),
        "{request.headers.user-agent}",
    ],
)
def test_a_template_is_filled_in_later(load: Load, small: str, template: str) -> None:
    rule = f'{{claim: a, contains: "x-{template}"}}'
    (compiled,) = load(policy(small, rule)).policy.routes[0].authorize
    assert isinstance(compiled, ClaimRule)
    assert compiled.contains is not None
    assert isinstance(compiled.contains[0], Template)


@pytest.mark.parametrize(
    "template",
    [
        *(
            "{path.rom}",
            "{path}",
            "{path.room.x}",
            "{user.x}",
            "{claims}",
            "{request}",
            "{message.a}",
        ),
        *("{request.nothing}", "{session.secret}", "{", "}", "{}"),
    ],
)
def test_a_template_that_leads_nowhere_is_refused(
    mistakes: Mistakes, small: str, template: str
) -> None:
    (mistake,) = mistakes(policy(small, f'{{claim: a, in: ["x", "{template}"]}}'))
    assert mistake.startswith("6:26: routes[0].authorize[0].in[1]: ")


@pytest.mark.parametrize(
    ("cel", "problem"),
    [
        ("path.rom == 'a'", "path.rom: the path has no such capture; did you mean path.room?"),
        ("path['rom'] == 'a'", "path.rom: the path has no such capture; did you mean path.room?"),
        ("has(path.zzz)", "path.zzz: the path has no such capture; known: path.room"),
        ("request.hots == 'a'", "request.hots: request has no hots; did you mean request.host?"),
        ("path.room.x == 'a'", "path.room.x goes beyond a text; write path.room"),
        ("user.name == 'a'", "user.name goes beyond a text; write user"),
        (
            "'write' in session.permissions",
            "session.permissions: session has no permissions, and lookups are not supported yet; "
            "known: session.anonymous, session.expires_at, session.provider, session.token_id",
        ),
    ],
)
def test_an_expression_that_reads_what_is_not_there_is_refused(
    mistakes: Mistakes, small: str, cel: str, problem: str
) -> None:
    assert mistakes(policy(small, f'{{cel: "{cel}"}}')) == [
        f"6:11: routes[0].authorize[0].cel: {problem}"
    ]


@pytest.mark.parametrize(
    "cel",
    [
        "path.room in claims.rooms && path['room'].size() > 1 && path.size() == 1",
        "request.headers['x-a'] == 'b' || request.headers.x.y == 'b' || request.secure",
        "session.anonymous || session.expires_at > 5.0 || user.startsWith('a')",
        "claims.list.exists(path, path.foo == 1) && 'room' in path && path[claims.x] == 'a'",
    ],
)
def test_an_expression_that_reads_what_is_there(load: Load, small: str, cel: str) -> None:
    (rule,) = load(policy(small, f'{{cel: "{cel}"}}')).policy.routes[0].authorize
    assert isinstance(rule, CelRule)


@pytest.mark.parametrize(
    "rule", ["cel: \"path.room == 'a'\"", 'claim: a, equals: "{path.room}"', "cel: path.x"]
)
def test_of_a_path_that_is_none_no_capture_is_missed(
    mistakes: Mistakes, small: str, rule: str
) -> None:
    for path in ('"/a{room"', "1", '"${NOT_SET}"'):
        (mistake,) = mistakes(policy(small, f"{{{rule}}}").replace('"/{room}"', path))
        assert "routes[0].match.path: " in mistake


@pytest.mark.parametrize("claim", ["realm_access.roles", "a.b-c.d"])
def test_a_claim_that_looks_nested_is_warned_of(load: Load, small: str, claim: str) -> None:
    pointer = claim.replace(".", "/")
    (warning,) = load(policy(small, f"{{claim: {claim}, exists: true}}")).warnings
    assert str(warning) == (
        f"policy.yaml:6:13: routes[0].authorize[0].claim: {claim} is one name with a dot in it; "
        f"write /{pointer} for a nested claim, or /{claim} for this one"
    )


@pytest.mark.parametrize(
    "claim", ["roles", "/realm_access/roles", "/a.b", "https://a.example/roles", "urn:a.b", "a."]
)
def test_other_claims_are_not_warned_of(load: Load, small: str, claim: str) -> None:
    assert load(policy(small, f'{{claim: "{claim}", exists: true}}')).warnings == ()


def test_a_path_without_captures_has_none_to_suggest(mistakes: Mistakes, small: str) -> None:
    text = (
        f'{small}routes: [{{match: {{path: /a}}, authorize: [{{claim: a, equals: "{{path.x}}"}}]}}]'
    )
    (mistake,) = mistakes(text)
    assert mistake.endswith("{path.x}: the path has no such capture; known: none")


def test_a_condition_that_is_null_is_none(mistakes: Mistakes, small: str) -> None:
    (mistake,) = mistakes(policy(small, "{claim: a, exists: null}"))
    assert mistake.startswith("6:5: routes[0].authorize[0]: no condition; ")


@pytest.mark.parametrize("key", ["cel: 1 +", "claim: /~, exists: true", 'claim: a, matches: "("'])
def test_a_rule_that_does_not_parse_is_refused(mistakes: Mistakes, small: str, key: str) -> None:
    (mistake,) = mistakes(policy(small, f"{{{key}}}"))
    assert mistake.startswith("6:")
    assert "; " in mistake
