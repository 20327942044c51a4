"""What pydantic finds, in plain words."""

from collections.abc import Callable

import pytest

from sidecar.config.problems import bounded, sorted_problems
from sidecar.errors import Problem

Mistakes = Callable[[str], list[str]]


@pytest.mark.parametrize(
    ("section", "mistake"),
    [
        ("server: {tls: 1}", "3:15: server.tls: is not a mapping; give it keys with values"),
        ("defaults: 1", "3:11: defaults: is not a mapping; give it keys of a route, or remove it"),
        ("server:", "3:8: server: has no value; give it keys, or remove it"),
        ("server: {listen: x}", "3:18: server.listen: is not a list; write [one, two], or "),
        ("server: {listen: []}", "3:18: server.listen: is empty; give it at least one entry"),
        ("server: {proxy_protocol: on}", "3:26: server.proxy_protocol: 'on' is neither true nor"),
        ("server: {max_connections: 1_0}", "3:27: server.max_connections: '1_0' is not a whole n"),
        ("server: {max_connections: 1.0}", "3:27: server.max_connections: 1.0 is not a whole num"),
        ("server: {max_connections: 0}", "3:27: server.max_connections: 0 is too small; give at l"),
        ("server: {tls: {key: k}}", "3:15: server.tls.certificate: is missing; add it"),
        (
            "logging: {audit: {sample_allowed: all}}",
            "3:35: logging.audit.sample_allowed: 'all' is ",
        ),
        ("logging: {audit: {sample_allowed: -0.5}}", "3:35: logging.audit.sample_allowed: -0.5 is"),
        ("logging: {audit: {sample_allowed: 1.5}}", "3:35: logging.audit.sample_allowed: 1.5 is t"),
        ("admin: {token: {value: 12345}}", "3:24: admin.token.value: is not text; put quotes"),
        (
            "admin: {token: {evn: X}}",
            "3:17: admin.token.evn: is not a known key; did you mean env?",
        ),
        (
            "routes: [{authenticate: {sources: [{cooky: a}]}}]",
            "3:37: routes[0].authenticate.sources",
        ),
    ],
)
def test_each_kind_of_mistake_is_told_in_plain_words(
    mistakes: Mistakes, small: str, section: str, mistake: str
) -> None:
    assert mistakes(small + section)[0].startswith(mistake)


@pytest.mark.parametrize(
    ("right", "misspelt"),
    [("upstreams:", "upstream:"), ("secrets:", "secret:"), ("url:", "uri:"), ("jwt:", "jwts:")],
)
def test_a_misspelt_key_is_not_missing_too(
    mistakes: Mistakes, small: str, right: str, misspelt: str
) -> None:
    (mistake,) = mistakes(small.replace(right, misspelt))
    assert mistake.endswith(f"is not a known key; did you mean {right[:-1]}?")


def test_a_misspelt_key_beside_the_right_one(mistakes: Mistakes, small: str) -> None:
    (mistake,) = mistakes(small.replace("secrets:", "secret: [], secrets:"))
    assert mistake.endswith(": is not a known key; did you mean secrets?")


def test_a_secret_in_the_wrong_place_is_not_repeated(mistakes: Mistakes, small: str) -> None:
    text = small.replace("{env: JWT_SECRET}", "hunter2-hunter2, {value: 1234567}, {value: [99887]}")
    output = "\n".join(mistakes(text))
    assert "hunter2" not in output
    assert "1234567" not in output
    assert "99887" not in output


def test_problems_are_sorted_and_told_once() -> None:
    one, two = (Problem("p", line, 1, "a", "wrong", "right") for line in (1, 2))
    again = Problem("p", 1, 1, "b", "wrong", "right")
    assert sorted_problems([two, one, again]) == [one, two]


def test_few_problems_are_left_as_they_are() -> None:
    problems = [Problem("p", 1, 1, "a", "wrong", "right")] * 100
    assert bounded(problems) == problems
    assert len(bounded(problems * 2)) == 101
