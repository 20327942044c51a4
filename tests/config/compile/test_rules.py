"""Rules on claims, and the templates in them."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.config.source import Loaded
from sidecar.policy.claims import ClaimRule
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
