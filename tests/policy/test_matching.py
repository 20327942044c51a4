"""Messages that carry a token, in every spelling that JSON has for them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy.matching import ENVELOPE, BadToken, Constant, MessagePattern
from sidecar.policy.pointers import ClaimPath


def pattern(when: dict[str, Constant], token: str = "/token", limit: int = 64) -> MessagePattern:
    pairs = tuple((ClaimPath.parse(pointer), wanted) for pointer, wanted in when.items())
    return MessagePattern(pairs, ClaimPath.parse(token), limit)


REFRESH = pattern({"/type": "refresh"}, "/data/token")


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "refresh", "data": {"token": "a.b.c"}}',
        '{"data":{"token":"a.b.c"},"type":"refresh"}',
        ' \t\r\n{ "type"\n:\t"refresh" , "more": [1, {}], "data": {"token": "a.b.c", "x": 1} } ',
        '{"\\u0074ype": "\\u0072efres\\u0068", "data": {"token": "a\\u002eb.c"}}',
    ],
)
def test_a_message_of_the_pattern_gives_its_token(message: str) -> None:
    assert REFRESH.match(message.encode()) == "a.b.c"
    assert REFRESH.could_match(message.encode())


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"refresh",
        b'["refresh"]',
        b'"refresh"',
        b'{"type": "refreshed", "data": {"token": "a.b.c"}}',
        b'{"type": ["refresh"], "data": {"token": "a.b.c"}}',
        b'{"data": {"token": "a.b.c", "type": "refresh"}}',
        b'{"type": "message", "text": "type: refresh", "data": {"token": "a.b.c"}}',
        b'{"type": "refresh", "data": {"token": "a.b.c"}',
        b'{"type": "refresh", "data": {"token": "a.b.c"}, "x": "\xff"}',
        b'{"type": "refreshed", "type": "refreshing", "data": {"token": "a.b.c"}}',
        b'{"type": "refreshed", "data": {"token": "a.b.c"}, "x": NaN}',
        b'\xef\xbb\xbf["refresh"]',
        b'{"type":' + b"[" * 4000 + b"}",
    ],
)
def test_another_message_is_none_of_the_pattern(message: bytes) -> None:
    assert REFRESH.match(message) is None


@pytest.mark.parametrize(
    "message",
    [
        b'{"type": "refresh", "type": "refresh", "data": {"token": "a.b.c"}}',
        b'{"type": "refresh", "type": "x", "data": {"token": "a.b.c"}}',
        b'{"type": "x", "type": "refresh", "data": {"token": "a.b.c"}}',
        b'{"type": "refresh", "data": 1, "data": {"token": "a.b.c"}}',
        b'{"type": "refresh", "data": {"token": "a.b.c"}, "x": NaN}',
        b'{"type": "refresh", "data": {"token": "a.b.c"}, "x": -Infinity}',
        b'{"type": "refresh", "data": {"token": "a.b.c"}, "x": 1e999}',
        b'{"type": "refresh", "data": {"token": "a.b.c"}, "x": "\\ud800"}',
        b'{"type": "refresh", "data": {"token": "a.b.c"}, "x": "a\nb"}',
        b'{"type": "refresh", "data": {"token": "a.b.c"}, "x": ' + b"[" * 50 + b"]" * 50 + b"}",
        b'{"type": "refresh", "data": {"token": "a.b.c"}, "x": ' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'\xef\xbb\xbf{"type": "refresh", "data": {"token": "a.b.c"}}',
    ],
)
def test_a_message_that_only_a_lenient_reader_understands_is_a_failed_attempt(
    message: bytes,
) -> None:
    assert REFRESH.match(message) == BadToken(
        "the message is not JSON that every reader understands alike"
    )
    assert REFRESH.could_match(message)
    assert all(REFRESH.could_begin(message[:end]) for end in range(9))


@pytest.mark.parametrize("number", ["refresh", 1])
def test_a_number_that_python_does_not_read_is_for_lenient_readers(number: Constant) -> None:
    one = pattern({"/type": number}, limit=9000)
    message = f'{{"type": {json.dumps(number)}, "token": "a.b.c", "x": {"1" * 9000}}}'.encode()
    assert isinstance(one.match(message), BadToken)


def test_a_control_character_that_is_not_escaped_hides_nothing() -> None:
    one = pattern({"/ty\npe": "re\nfresh"})
    message = b'{"ty\npe": "re\nfresh", "token": "a.b.c"}'
    assert isinstance(one.match(message), BadToken)
    assert one.could_match(message)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        ("{}", "the message has no token"),
        ("null", "the message has no token"),
        ('["a.b.c"]', "the message has no token"),
        ('{"token": null}', "the message's token is not text"),
        ('{"token": {"a": "b"}}', "the message's token is not text"),
        ('{"token": ""}', "the message's token is empty"),
        (f'{{"token": "{"x" * 65}"}}', "the message's token is over max_token_size"),
        (f'{{"token": "{"é" * 33}"}}', "the message's token is over max_token_size"),
    ],
)
def test_a_message_without_a_usable_token_is_a_failed_attempt(data: str, detail: str) -> None:
    message = f'{{"type": "refresh", "data": {data}}}'.encode()
    assert REFRESH.match(message) == BadToken(detail)


@pytest.mark.parametrize(
    ("wanted", "same", "others"),
    [
        (1, ["1", "1.0", "10e-1"], ["true", '"1"', "2", "null", "[1]"]),
        (True, ["true"], ["1", '"true"', "false"]),
        (False, ["false"], ["0", "null", '""']),
        (None, ["null"], ["0", "false", '""', "{}"]),
        ("1", ['"1"', '"\\u0031"'], ["1", "true"]),
        (1.5, ["1.5", "15e-1"], ['"1.5"', "1"]),
        ('a"b\\/', ['"a\\"b\\\\/"', '"a\\u0022b\\\\\\/"'], ['"ab"', '"a/b"']),
    ],
)
def test_values_are_compared_by_type(wanted: Constant, same: list[str], others: list[str]) -> None:
    one = pattern({"/is": wanted})
    for text in same:
        message = f'{{"is": {text}, "token": "t"}}'.encode()
        assert one.match(message) == "t"
        assert one.could_match(message)
    for text in others:
        assert one.match(f'{{"is": {text}, "token": "t"}}'.encode()) is None
    assert one.match(b'{"token": "t"}') is None


def test_every_pointer_must_hold() -> None:
    both = pattern({"/type": "auth", "/v": 2, "/list/0": "a"})
    assert both.match(b'{"type": "auth", "v": 2, "list": ["a"], "token": "t"}') == "t"
    assert both.match(b'{"type": "auth", "v": 3, "list": ["a"], "token": "t"}') is None
    assert both.match(b'{"type": "auth", "v": 2, "list": ["b"], "token": "t"}') is None
    assert both.match(b'{"type": "auth", "list": ["a"], "token": "t"}') is None


def test_without_conditions_every_object_is_an_attempt() -> None:
    anything = pattern({})
    assert anything.match(b'{"token": "t"}') == "t"
    assert anything.match(b" { } ") == BadToken("the message has no token")
    assert anything.could_match(b" { } ")
    assert anything.match(b"[]") is None


def test_a_message_beyond_the_envelope_is_not_looked_at() -> None:
    start, end = b'{"type": "refresh", "data": {"token": "t"}, "x": "', b'"}'
    room = REFRESH.max_size - len(start) - len(end)
    assert REFRESH.max_size == 64 + ENVELOPE
    fits, beyond = (start + b"x" * size + end for size in (room, room + 1))
    assert REFRESH.match(fits) == "t"
    assert REFRESH.could_match(fits)
    assert REFRESH.match(beyond) is None
    assert not REFRESH.could_match(beyond)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"hello",
        b"[1]",
        b"{1}",
        b"{[",
        b'{"type": "message"}',
        b'{"type": "refresher"}',
        b'{"kind": "refresh"}',
        b"\x00\xff",
    ],
)
def test_most_messages_are_told_by_a_glance(message: bytes) -> None:
    assert not REFRESH.could_match(message)


def test_an_escape_could_hide_what_is_looked_for() -> None:
    assert REFRESH.could_match(b'{"type": "\\u0072efresh"}')
    assert not REFRESH.could_match(b'{"text": "a\\n\\u20ac"}')


def test_an_escape_of_any_character_could_hide_what_is_not_ascii() -> None:
    assert pattern({"/type": "€"}).could_match(b'{"type": "\\u20ac"}')


@pytest.mark.parametrize("wanted", ["a/b", 'a"b', "a\\b", "a\nb"])
def test_any_escape_could_hide_what_has_one(wanted: str) -> None:
    assert pattern({"/type": wanted}).could_match(b'{"type": "a\\/b"}')
    assert not pattern({"/typ/e": wanted}).could_match(b'{"type": "a"}')


@pytest.mark.parametrize(
    ("when", "token"),
    [
        ({"/token": "x"}, "/token"),
        ({"/data": "x"}, "/data/token"),
        ({"/type": "x", "/token/kind": 1}, "/token"),
    ],
)
def test_pointers_that_no_message_can_have_together_are_refused(
    when: dict[str, Constant], token: str
) -> None:
    with pytest.raises(ValueError, match=r"^no message has both .*; name two places"):
        pattern(when, token)


def test_a_text_that_no_message_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^no message can hold this text; remove"):
        pattern({"/type": "\ud800"})


# Any spelling

TEXTS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    ["refresh", "type", 'a"b', "\\", "/", "\n", "é", "0", "1"]
)
CONSTANTS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0]) | TEXTS
VALUES = st.recursive(
    CONSTANTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def spelled(draw: st.DrawFn, value: Any) -> str:
    """A JSON text of the value: any white space, any order, any escapes."""
    blank = draw(st.text(" \t\r\n", max_size=2))
    if isinstance(value, dict):
        members = [
            f"{draw(spelled(name))}:{draw(spelled(one))}"
            for name, one in draw(st.permutations(list(value.items())))
        ]
        return f"{blank}{{{blank}{','.join(members)}}}{blank}"
    if isinstance(value, list):
        return f"{blank}[{','.join(draw(spelled(one)) for one in value)}]{blank}"
    if isinstance(value, str):
        return f'{blank}"{"".join(draw(spelled_character(one)) for one in value)}"{blank}'
    return f"{blank}{json.dumps(value)}{blank}"


@st.composite
def spelled_character(draw: st.DrawFn, character: str) -> str:
    units = character.encode("utf-16-be")
    forms = ["".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))]
    forms.append(json.dumps(character, ensure_ascii=False)[1:-1])
    forms += ["\\/"] if character == "/" else []
    return draw(st.sampled_from(forms))


@st.composite
def messages(draw: st.DrawFn) -> tuple[MessagePattern, bytes, str]:
    """A pattern, a message of it, and the token in it."""
    document = draw(st.dictionaries(TEXTS, VALUES, max_size=4))
    when: dict[str, Constant] = {}
    for name in draw(st.lists(TEXTS.filter(bool), max_size=3, unique=True)):
        pointer = "/" + name.replace("~", "~0").replace("/", "~1")
        wanted = draw(CONSTANTS)
        nested = draw(st.booleans())
        document[name] = [wanted] if nested else wanted
        when[f"{pointer}/0" if nested else pointer] = wanted
    document["token!"] = token = draw(TEXTS.filter(bool))
    return pattern(when, "/token!"), draw(spelled(document)).encode(), token


@given(messages())
def test_every_spelling_of_a_message_is_recognised(one: tuple[MessagePattern, bytes, str]) -> None:
    matcher, message, token = one
    assert matcher.match(message) == token
    assert matcher.could_match(message)
    assert all(matcher.could_begin(message[:end]) for end in range(len(message) + 1))


@given(messages(), st.booleans())
def test_a_second_token_hides_no_message(
    one: tuple[MessagePattern, bytes, str], ahead: bool
) -> None:
    matcher, message, _ = one
    start, end = message.index(b"{") + 1, message.rindex(b"}")
    member = b'"token!": 1'
    doubled = (
        message[:start] + member + b"," + message[start:]
        if ahead
        else message[:end] + b"," + member + message[end:]
    )
    assert isinstance(matcher.match(doubled), BadToken)
    assert matcher.could_match(doubled)


@given(
    st.binary(max_size=60)
    | st.text('{}[]":,\\u0typerefsh \n', max_size=60).map(str.encode)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | TEXTS.map(lambda text: json.dumps({"type": "refresh", "data": {"token": text}}).encode())
)
def test_what_matches_could_have_matched(message: bytes) -> None:
    for matcher in (REFRESH, pattern({}), pattern({"/type": 1})):
        if matcher.match(message) is not None:
            assert matcher.could_match(message)
