"""CEL expressions: checked when loaded, bounded when evaluated."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.expressions import FUNCTIONS, Expression

CLAIMS = {"roles": ["member", "writer"], "admin": False, "level": 3, "name": "ana"}
NAMES = {
    "claims": CLAIMS,
    "user": "ana",
    "path": {"room": "a"},
    "request": {"headers": {"user-agent": "x"}, "secure": True},
    "session": {"anonymous": False},
}


def is_true(source: str, **claims: object) -> bool:
    return Expression(source).is_true({**NAMES, "claims": CLAIMS | claims})


@pytest.mark.parametrize(
    "source",
    [
        "'member' in claims.roles || claims.admin",
        "user == 'ana' && path.room == 'a' && request.secure && !session.anonymous",
        "claims.roles.exists(x, x == 'writer')",
        "claims.roles.all(role, role.size() > 2)",
        "claims.roles.exists_one(r, r == 'writer') && claims.roles.existsOne(r, r == 'member')",
        "claims.roles.map(r, r + '!').filter(r, r.startsWith('m')) == ['member!']",
        "claims.roles.exists(a, claims.roles.exists(b, a != b))",
        "{'k': 1}.all(k, k == 'k')",
        "has(claims.level) && !has(claims.other)",
        "request.headers['user-agent'] == 'x'",
        "type(claims.level) == int && dyn(claims.level) == 3.0",
        "claims.name.matches('^a.a$')",
        "[1].exists(u, 1u == u) && [1].exists(e5, 1e5 > 1.0)",
        r"r'\' == '\\' && [1].exists(x, x == 1)  // x, y and 'z",
        "'''it's''' != \"y\" && b'y' != b'z' && \"\"\"x\"\"\" == 'x'",
        "claims.roles\n  .exists(x, // each\n  x == 'member')",
    ],
)
def test_expressions_that_are_true(source: str) -> None:
    assert is_true(source)


@pytest.mark.parametrize(
    "source", ["claims.level", "'true'", "1", "[true]", "null", "claims.roles"]
)
def test_only_true_itself_is_true(source: str) -> None:
    assert not is_true(source)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("claim.admin", "claim"),
        ("claims.admin || usr == 'ana'", "usr"),
        (".claims.admin", ".claims"),
        ("claims.roles.exists(x, y == 'a')", "y"),
        ("claims.roles.exists(x, x == 'a') && x == 'a'", "x"),
        ("x == 'a' || claims.roles.exists(x, x == 'a')", "x"),
        ("claims.roles.exists(x, x in x.roles.map(z, z)) || z", "z"),
        ("x.exists(x, x == 1)", "x"),
        ("claims.roles[y].exists(z, z == 1)", "y"),
        ("optional == null", "optional"),
    ],
)
def test_an_unknown_variable_is_refused(source: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^unknown variable {name}; known are claims, path, "):
        Expression(source)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("siez(claims.roles) == 1", "siez"),
        ("claims.name.lowerAscii() == 'ana'", "lowerAscii"),
        ("timestamp('2020-01-01T00:00:00Z') < now()", "now"),
        ("claims.roles.all(i, v, v == 'a')", "all"),
        ("_f(1) == 1", "_f"),
    ],
)
def test_an_unknown_function_is_refused(source: str, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^unknown function {name}; known are bytes, contains"):
        Expression(source)


@pytest.mark.parametrize(
    ("source", "references"),
    [
        ("claims.a.b == 1", [("claims", "a", "b")]),
        ("path.room == user", [("path", "room"), ("user",)]),
        ("path['room'] == path[\"x y\"].size()", [("path", "room"), ("path", "x y")]),
        ("request.headers['a'].b[0].c == 1", [("request", "headers", "a", "b")]),
        ("path.room.startsWith('a') && path.size() > 1", [("path", "room"), ("path",)]),
        ("path [ 'a' ] // b\n . c == 1", [("path", "a", "c")]),
        ("path[user] == path['a' + 'b']", [("path",), ("user",)]),
        (r"path['\x61'] == path[r'a'] || path[b'a']", [("path",)]),
        ("path['''a'''] == 1 || path['it\\'s'] == 2", [("path",)]),
        ("claims.l.exists(path, path.x == 1) && path.y", [("claims", "l"), ("path", "y")]),
        ("path.l.all(path, path.x)", [("path", "l")]),
        ("claims.path.x == 'path.y' || claims.size() == 1", [("claims", "path", "x"), ("claims",)]),
        ("{'path': path.a}.path == string(1)", [("path", "a")]),
        ("(path).a == path.a && path.a == 1", [("path",), ("path", "a")]),
        ("true", []),
    ],
)
def test_what_an_expression_reads(source: str, references: list[tuple[str, ...]]) -> None:
    assert list(Expression(source).references) == references


@pytest.mark.parametrize("source", ["", "(", "claims.", "a b", "'", "\ud800", "// x", "@result"])
def test_bad_syntax_is_refused(source: str) -> None:
    with pytest.raises(ValueError, match=r"^not a CEL expression \(.+\); correct it$"):
        Expression(source)


def test_a_pattern_inside_a_macro_is_refused() -> None:
    with pytest.raises(ValueError, match="matches inside a macro"):
        Expression("claims.roles.exists(x, x.matches('a+'))")


CALLS = {
    "bytes": "bytes('a') == b'a'",
    "contains": "'abc'.contains('b')",
    "double": "double('1.5') == 1.5",
    "duration": "duration('60s') == duration('1m')",
    "dyn": "dyn(1) == 1",
    "endsWith": "'ab'.endsWith('b')",
    "getDate": "timestamp('2020-02-03T04:05:06.007Z').getDate() == 3",
    "getDayOfMonth": "timestamp('2020-02-03T04:05:06.007Z').getDayOfMonth() == 2",
    "getDayOfWeek": "timestamp('2020-02-03T04:05:06.007Z').getDayOfWeek() == 1",
    "getDayOfYear": "timestamp('2020-02-03T04:05:06.007Z').getDayOfYear() == 33",
    "getFullYear": "timestamp('2020-02-03T04:05:06.007Z').getFullYear() == 2020",
    "getHours": "timestamp('2020-02-03T04:05:06.007Z').getHours() == 4",
    "getMilliseconds": "timestamp('2020-02-03T04:05:06.007Z').getMilliseconds() == 7",
    "getMinutes": "timestamp('2020-02-03T04:05:06.007Z').getMinutes() == 5",
    "getMonth": "timestamp('2020-02-03T04:05:06.007Z').getMonth() == 1",
    "getSeconds": "timestamp('2020-02-03T04:05:06.007Z').getSeconds() == 6",
    "int": "int('1') == 1",
    "matches": "'aab'.matches('^a+b$')",
    "size": "size([1]) == 1",
    "startsWith": "'ab'.startsWith('a')",
    "string": "string(1) == '1'",
    "timestamp": "timestamp('2020-01-01T00:00:00Z') < timestamp('2021-01-01T00:00:00Z')",
    "type": "type('a') == string",
    "uint": "uint(1) == 1u",
}


def test_each_known_function_has_a_call() -> None:
    assert set(CALLS) == FUNCTIONS


@pytest.mark.parametrize("source", CALLS.values(), ids=CALLS)
def test_each_known_function_is_there(source: str) -> None:
    assert is_true(source)


@pytest.mark.parametrize(
    "source",
    [
        "claims.missing",
        "claims.missing == 'a'",
        "claims.roles[9] == 'a'",
        "1 / 0 == 1",
        "9223372036854775807 + 1 > 0",
        "claims.name > 1",
        "!claims.name",
        "int('x') == 1",
        "claims.name.matches('(')",
        "timestamp('x') == timestamp('x')",
        "claims{a: 1} == 1",
    ],
)
def test_an_error_is_not_true(source: str) -> None:
    assert not is_true(source)


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "hostile",
    [
        2**63,
        -(2**63) - 1,
        2**70,
        "admin\ud800",
        {"\ud800": 1},
        {None: 1},
        object(),
        [{"a": [2**64]}],
    ],
    ids=lambda hostile: type(hostile).__name__,
)
def test_claims_that_cel_cannot_hold_make_nothing_true(hostile: object) -> None:
    assert not is_true("true", hostile=hostile)


def test_deep_claims_make_nothing_true() -> None:
    assert is_true("true", deep=nested(40))
    # Deeper still, the evaluator's recursion would end the process.
    assert not is_true("true", deep=nested(100_000))


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 2**63 - 1, "日本\x00", "", [], {}])
def test_odd_claims_are_harmless(odd: object) -> None:
    assert is_true("claims.level == 3", odd=odd)


def test_not_a_number_equals_nothing() -> None:
    assert not is_true("claims.a == claims.a", a=float("nan"))


def test_true_is_not_one() -> None:
    assert not is_true("claims.a == 1", a=True)


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ("claims.l.all(x, claims.l.exists(y, y == 1) || true)", 3000),
        ("claims.l.all(a, claims.l.all(b, claims.l.all(c, c in claims.l)))", 200),
    ],
)
def test_nested_macros_over_long_lists_end_at_once(source: str, size: int) -> None:
    started = time.process_time()
    assert not is_true(source, l=[0] * size)
    assert time.process_time() - started < 0.5


def test_one_macro_over_a_long_list_and_nested_ones_over_short_lists_are_fine() -> None:
    assert is_true("claims.l.exists(x, x == 2999)", l=list(range(3000)))
    assert is_true("claims.l.exists(x, claims.l.exists(y, x + y == 190))", l=list(range(100)))


class Names(dict[str, object]):
    """Names whose reading raises, as the evaluator would."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def values(self) -> Any:
        raise self.error


def test_a_panic_of_the_evaluator_is_not_true() -> None:
    panic = type("PanicException", (BaseException,), {})
    assert not Expression("true").is_true(Names(panic("index out of bounds")))


def test_an_interrupt_passes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        Expression("true").is_true(Names(KeyboardInterrupt()))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_no_claim_raises(value: Any) -> None:
    verdict = is_true("claims.v == claims.v && size(claims.v) > 0 || claims.v > 0", v=value)
    assert verdict in (True, False)


pieces = st.sampled_from(
    [
        *("claims", "user", "x", ".", "(", ")", "[", "]", "{", "}", ",", "exists", "map", "in"),
        *("'x'", "r'\\'", "1u", "==", "&&", "!", "?", ":", "matches", "has", "\n", "// c\n", "'"),
    ]
)


@given(st.lists(pieces, max_size=12).map("".join) | st.text(max_size=20))
def test_any_text_is_an_expression_or_a_value_error(source: str) -> None:
    try:
        expression = Expression(source)
    except ValueError:
        return
    assert expression.is_true(NAMES) in (True, False)
