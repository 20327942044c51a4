from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import TemplateError
from sidecar.policy.templates import Template

ROOTS = ("user", "claims", "path")


def render(source: str, scope: Mapping[str, Any]) -> str:
    return Template.parse(source, ROOTS).render(scope)


def test_a_text_without_references_is_itself() -> None:
    template = Template.parse("plain text", ROOTS)
    assert template.references == ()
    assert template.render({}) == "plain text"


def test_references_are_filled_in() -> None:
    scope = {"user": "ada", "claims": {"realm": {"team-1": "core"}}}
    assert render("{user}@{claims.realm.team-1}!", scope) == "ada@core!"


def test_references_are_listed_in_order() -> None:
    template = Template.parse("{path.room}/{user}/{claims.a.b}", ROOTS)
    assert template.references == (("path", "room"), ("user",), ("claims", "a", "b"))


def test_parts_alternate_between_literals_and_references() -> None:
    template = Template.parse("{user}{path.room}", ROOTS)
    assert template.parts == ("", ("user",), "", ("path", "room"), "")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{", "{"),
        ("}}", "}"),
        ("{{user}}", "{user}"),
        ("{{{user}}}", "{ada}"),
        ("a{{b}}c{user}", "a{b}cada"),
        ("{{{{", "{{"),
    ],
)
def test_doubled_braces_are_braces(source: str, text: str) -> None:
    assert render(source, {"user": "ada"}) == text


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("{user", "is not closed"),
        ("{a{user}", "is not closed"),
        ("{", "is not closed"),
        ("user}", "closes nothing"),
        ("{user}}", "closes nothing"),
        ("{}", "is not a reference"),
        ("{ user }", "is not a reference"),
        ("{claims.}", "is not a reference"),
        ("{.user}", "is not a reference"),
        ("{claims..a}", "is not a reference"),
        ("{user!r}", "is not a reference"),
        ("{user\n}", "is not a reference"),
        ("{userx}", "unknown here"),
        ("{request.host}", "unknown here"),
    ],
)
def test_a_mistake_is_told_with_its_remedy(source: str, wrong: str) -> None:
    with pytest.raises(TemplateError, match=f"{wrong}.*; .+"):
        Template.parse(source, ROOTS)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(TemplateError, match=r"one of: claims, path, user$"):
        Template.parse("{nobody}", ROOTS)


def test_where_nothing_is_known_no_reference_is_possible() -> None:
    with pytest.raises(TemplateError, match=r"one of: none$"):
        Template.parse("{user}", ())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", ""),
        ("日本", "日本"),
        ("{user}", "{user}"),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (-7.0, "-7"),
        (1e20, "100000000000000000000"),
        (1.5, "1.5"),
    ],
)
def test_scalars_become_text(value: object, text: str) -> None:
    assert render("{claims.it}", {"claims": {"it": value}}) == text


@pytest.mark.parametrize("value", [None, [], ["a"], {}, {"a": 1}, float("nan"), float("inf")])
def test_what_has_no_text_is_an_error(value: object) -> None:
    with pytest.raises(TemplateError, match=r"\{claims\.it\} has no text; "):
        render("{claims.it}", {"claims": {"it": value}})


@pytest.mark.parametrize("scope", [{}, {"claims": {}}, {"claims": "text"}, {"claims": ["it"]}])
def test_a_reference_to_nothing_is_an_error(scope: dict[str, Any]) -> None:
    with pytest.raises(TemplateError, match=r"\{claims\.it\} leads nowhere; "):
        render("{claims.it}", scope)


@given(st.text())
def test_an_escaped_text_renders_as_itself(text: str) -> None:
    source = text.replace("{", "{{").replace("}", "}}")
    assert render(source, {}) == text


@given(st.text(), st.text(), st.text())
def test_a_value_is_never_read_as_a_template(before: str, value: str, after: str) -> None:
    literals = [text.replace("{", "{{").replace("}", "}}") for text in (before, after)]
    assert render("{user}".join(literals), {"user": value}) == before + value + after


@given(st.text(alphabet="{}.ab "))
def test_any_text_parses_or_is_a_template_error(source: str) -> None:
    parts: tuple[str | tuple[str, ...], ...] = ("",)
    mistake = "; "
    try:
        parts = Template.parse(source, ("a",)).parts
    except TemplateError as error:
        mistake = str(error)
    assert "; " in mistake
    assert all(isinstance(part, str) for part in parts[::2])
    assert all(part[0] == "a" for part in parts[1::2])
