"""The one place that builds the upstream's request head."""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policy import headers
from sidecar.policy.headers import (
    NEVER_FORWARDED,
    OWN_HEADERS,
    Encoding,
    ForwardToken,
    IdentityHeader,
    IdentityRules,
    Sign,
    build_head,
    encode_value,
    fold_name,
    never_forwarded,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
BASE = [
    ("Host", "chat.example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
]


def text(value: object, join: str | None = None) -> str | None:
    return encode_value(value, join, Encoding.TEXT)


def head(
    client_headers: Sequence[tuple[str, str]] = (),
    *,
    forward: Sequence[str] = (),
    target: str = "/ws",
    host: str = "chat.example.com",
    key: str = KEY,
    origin: str | None = None,
    subprotocols: Sequence[str] = (),
    own: Mapping[str, str] | None = None,
    identity: Mapping[str, str] | None = None,
    identity_names: Sequence[str] = ("x-user-id",),
) -> bytes:
    return build_head(
        target=target,
        host=host,
        key=key,
        origin=origin,
        subprotocols=subprotocols,
        client_headers=client_headers,
        forward=frozenset(forward),
        own=own or {},
        identity=identity or {},
        identity_names=frozenset(identity_names),
    )


class Collector:
    """What a real HTTP parser reads in a head."""

    def __init__(self, data: bytes) -> None:
        self.target = b""
        self.fields: list[tuple[str, str]] = []
        self.heads = 0
        self.parser = httptools.HttpRequestParser(self)
        with pytest.raises(httptools.HttpParserUpgrade) as upgrade:
            self.parser.feed_data(data)
        assert upgrade.value.args[0] == len(data)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.heads += 1
        assert self.parser.get_method() == b"GET"
        assert self.parser.get_http_version() == "1.1"
        assert self.parser.should_upgrade()


def fields(data: bytes) -> list[tuple[str, str]]:
    collected = Collector(data)
    assert collected.heads == 1
    return collected.fields


# Names


@pytest.mark.parametrize(
    "name", ["X-User-Id", "x-USER-id", "X_User_Id", "X.User.Id", "X User\tId", " X-User_Id\t"]
)
def test_every_alias_folds_to_one_name(name: str) -> None:
    assert fold_name(name) == "x-user-id"


@given(st.text())
def test_folding_twice_changes_nothing(name: str) -> None:
    assert fold_name(fold_name(name)) == fold_name(name)


@given(st.lists(st.tuples(st.sampled_from("abcxyz019"), st.sampled_from("-_. \t")), min_size=1))
def test_folding_takes_away_every_difference_of_spelling(pairs: list[tuple[str, str]]) -> None:
    spelled = "".join(letter.upper() + separator for letter, separator in pairs) + "z"
    assert fold_name(spelled) == "".join(f"{letter}-" for letter, _ in pairs) + "z"


@pytest.mark.parametrize(
    "name",
    [
        *sorted(NEVER_FORWARDED),
        "CONNECTION",
        "Transfer_Encoding",
        "Proxy-Foo",
        "Sec-WebSocket-Foo",
        "Sec_WebSocket_Key",
    ],
)
def test_hop_by_hop_and_handshake_fields_are_never_forwarded(name: str) -> None:
    assert never_forwarded(name)
    assert fields(head([(name, "x")], forward=[name.lower(), fold_name(name)])) == BASE


@pytest.mark.parametrize("name", ["User-Agent", "Cookie", "Authorization", "X-Proxy", "Tea"])
def test_other_fields_may_be_forwarded(name: str) -> None:
    assert not never_forwarded(name)


def test_the_names_of_the_rules_are_folded() -> None:
    rules = IdentityRules(
        headers=(IdentityHeader("X_User.Id", user=True), IdentityHeader("X-Roles")),
        forward_token=ForwardToken("Authorization"),
        sign=Sign("internal", 60, "X-Identity"),
    )
    assert rules.names == {"x-user-id", "x-roles", "authorization", "x-identity"}
    assert IdentityRules().names == frozenset()


# Values


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("ana", "ana"),
        ("a b", "a b"),
        (" a  b ", "%20a  b%20"),
        ("  ", "%20%20"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("日本", "%E6%97%A5%E6%9C%AC"),
        ("é€", "%C3%A9%E2%82%AC"),
        ("!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~", "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-7, "-7"),
        (2**70, "1180591620717411303424"),
        (1.0, "1"),
        (1.5, "1.5"),
        (None, None),
        ("x" * 1024, "x" * 1024),
    ],
)
def test_scalars_as_text(value: Any, encoded: str | None) -> None:
    assert text(value) == encoded


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        ("a\r\nX-Admin: 1", "control character"),
        ("a\nb", "control character"),
        ("a\x00", "control character"),
        ("a\tb", "control character"),
        ("a\x7f", "control character"),
        ("a\x85", "control character"),
        ("admin\ud800", "half a surrogate pair"),
        ("\udc80", "half a surrogate pair"),
        ("", "empty text"),
        ("x" * 1025, "over 1024 bytes"),
        ("日" * 114, "over 1024 bytes"),
        (float("nan"), "finite number"),
        (float("-inf"), "finite number"),
        ({"a": 1}, "neither text"),
        (["a"], "needs `join`"),
        ([], "needs `join`"),
    ],
)
def test_what_cannot_be_a_value_is_refused(value: Any, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        text(value)


@pytest.mark.parametrize(
    ("value", "join", "encoded"),
    [
        (["a", "b"], ",", "a,b"),
        (["a", 1, True, 2.0], "; ", "a; 1; true; 2"),
        (["a b", "日"], ",", "a b,%E6%97%A5"),
        (["a"], ",", "a"),
        ("a,b", ",", "a,b"),
        ([], ",", None),
    ],
)
def test_lists_are_joined(value: Any, join: str | None, encoded: str | None) -> None:
    assert text(value, join) == encoded


@pytest.mark.parametrize(
    ("value", "join", "wrong"),
    [
        (["a,admin", "b"], ",", "joins the elements"),
        (["a", "ab"], "aa", "joins the elements"),
        (["a", ""], ",", "empty text"),
        (["a", None], ",", "neither text"),
        (["a", ["b"]], ",", "neither text"),
        (["a", {"b": 1}], ",", "neither text"),
        (["a\r\nb"], ",", "control character"),
        (["a"], "", "needs `join`"),
        (["x" * 600, "y" * 600], ",", "over 1024 bytes"),
    ],
)
def test_lists_that_could_be_read_otherwise_are_refused(
    value: Any, join: str | None, wrong: str
) -> None:
    with pytest.raises(ValueError, match=wrong):
        text(value, join)


def decoded(value: str) -> object:
    return json.loads(urlsafe_b64decode(value + "=" * (-len(value) % 4)))


@pytest.mark.parametrize(
    "value", [{"b": [1, None], "a": "日本"}, {}, [], ["a"], "x", 1.5, True, "a\r\nX-Admin: 1"]
)
def test_json_in_base64url_reads_back(value: Any) -> None:
    encoded = encode_value(value, None, Encoding.BASE64URL_JSON)
    assert encoded is not None
    assert set(encoded) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert decoded(encoded) == value


def test_json_in_base64url_is_compact_and_sorted() -> None:
    encoded = encode_value({"b": 1, "a": "é"}, None, Encoding.BASE64URL_JSON)
    assert encoded == "eyJhIjoiw6kiLCJiIjoxfQ"


def test_json_null_is_left_out() -> None:
    assert encode_value(None, None, Encoding.BASE64URL_JSON) is None


@pytest.mark.parametrize("value", [{"a": "\ud800"}, {"a": float("nan")}, "x" * 6200])
def test_json_that_is_not_strict_or_too_long_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"strict JSON|over 8192 bytes"):
        encode_value(value, None, Encoding.BASE64URL_JSON)


any_text = st.text(st.characters(exclude_categories=()))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner) | st.dictionaries(any_text, inner),
    max_leaves=8,
)


@given(json_values, st.none() | any_text, st.sampled_from(Encoding))
def test_a_value_is_always_visible_ascii(value: Any, join: str | None, encoding: Encoding) -> None:
    try:
        encoded = encode_value(value, join, encoding)
    except ValueError:
        return
    if encoded is not None:
        assert encoded
        assert all(" " <= character <= "~" for character in encoded)
        assert encoded == encoded.strip()


@given(st.text(min_size=1, max_size=100))
def test_text_reads_back_by_percent_decoding(value: Any) -> None:
    try:
        encoded = text(value)
    except ValueError:
        assert any(ord(character) < 0xA0 for character in value)
    else:
        assert encoded is not None
        assert unquote(encoded, errors="strict") == value


@given(any_text | st.text(" %aé~\x1f", max_size=5))
def test_plain_text_is_encoded_as_it_would_be_step_by_step(value: str) -> None:
    def encoded() -> str | None:
        try:
            return text(value)
        except ValueError:
            return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(headers, "_PLAIN", re.compile("(?!)"))
        step_by_step = encoded()
    assert encoded() == step_by_step


@given(any_text | st.text("a \t\r\n\x7f\x80\xff", max_size=5))
def test_plain_ascii_stands_on_its_line_as_any_other_value(value: str) -> None:
    stands = re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value) is not None
    try:
        built = head(identity={"X-User-Id": value})
    except ValueError:
        assert not stands
    else:
        assert stands
        assert built.endswith(f"\r\nX-User-Id: {value}\r\n\r\n".encode("latin-1"))


# The head


def test_the_head_in_its_order() -> None:
    built = head(
        [("user-agent", "UA/1"), ("Accept", "*/*")],
        forward=["user-agent"],
        target="/ws/a?x=1",
        origin="https://app.example.com",
        subprotocols=("chat", "v2.chat"),
        own={"X-Forwarded-For": "192.0.2.1", "X-Request-Id": "r1"},
        identity={"X-User-Id": "ana"},
    )
    assert built == (
        b"GET /ws/a?x=1 HTTP/1.1\r\n"
        b"Host: chat.example.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: chat, v2.chat\r\n"
        b"Origin: https://app.example.com\r\n"
        b"user-agent: UA/1\r\n"
        b"X-Forwarded-For: 192.0.2.1\r\n"
        b"X-Request-Id: r1\r\n"
        b"X-User-Id: ana\r\n"
        b"\r\n"
    )


def test_without_subprotocols_and_origin_there_are_no_such_fields() -> None:
    assert fields(head()) == BASE


ALIASES = [
    "X-User-Id",
    "x-USER-id",
    "X_User_Id",
    "X.User.Id",
    "X_USER-ID",
    " X-User-Id ",
    "X User Id",
]


@pytest.mark.parametrize("alias", ALIASES)
def test_no_alias_of_an_identity_header_passes(alias: str) -> None:
    spoofed = [(alias, "admin"), (alias, "root")]
    forward = [alias.lower(), fold_name(alias)]
    assert fields(head(spoofed, forward=forward)) == BASE
    expected = [*BASE, ("X-User-Id", "ana")]
    assert fields(head(spoofed, forward=forward, identity={"X-User-Id": "ana"})) == expected


@pytest.mark.parametrize("name", sorted(OWN_HEADERS))
def test_no_alias_of_the_sidecars_own_headers_passes(name: str) -> None:
    aliases = [name, name.upper(), name.replace("-", "_"), name.replace("-", ".")]
    spoofed = [(alias, "203.0.113.9") for alias in aliases]
    assert fields(head(spoofed, forward=[alias.lower() for alias in aliases])) == BASE


def test_an_alias_of_a_forwarded_header_is_not_copied() -> None:
    client = [("User_Agent", "a"), ("USER-AGENT", "b"), ("User.Agent", "c")]
    assert fields(head(client, forward=["user-agent"])) == [*BASE, ("USER-AGENT", "b")]


def test_a_connection_header_can_take_nothing_away() -> None:
    client = [("Connection", "Upgrade, X-User-Id"), ("Keep-Alive", "timeout=5")]
    built = head(client, forward=["connection", "keep-alive"], identity={"X-User-Id": "ana"})
    assert fields(built) == [*BASE, ("X-User-Id", "ana")]


def test_repeated_headers_are_copied_in_order() -> None:
    client = [("Accept-Language", "de"), ("X-Other", "x"), ("accept-language", "")]
    assert fields(head(client, forward=["accept-language"])) == [
        *BASE,
        ("Accept-Language", "de"),
        ("accept-language", ""),
    ]


def test_obs_text_is_forwarded_byte_for_byte() -> None:
    client = [("X-Name", "caf\xc3\xa9 \xff\t\x80")]
    assert b"\r\nX-Name: caf\xc3\xa9 \xff\t\x80\r\n" in head(client, forward=["x-name"])


@pytest.mark.parametrize("bad", ["\r", "\n", "\x00", "\x1b", "\x7f", "日", "\r\nX-User-Id: root"])
def test_a_client_header_with_a_control_character_is_left_out(bad: str) -> None:
    client = [("X-Name", f"a{bad}"), ("X-Other", "b")]
    assert fields(head(client, forward=["x-name", "x-other"])) == [*BASE, ("X-Other", "b")]


@pytest.mark.parametrize(
    "parts",
    [
        {"target": "/ws HTTP/1.1\r\nX-User-Id: root"},
        {"target": "/a b"},
        {"target": ""},
        {"target": "/é"},
        {"host": "a\r\nX-User-Id: root"},
        {"key": "a\nb"},
        {"origin": "https://a\r\n\r\n"},
        {"subprotocols": ["a\r\nb"]},
        {"own": {"X-Request-Id": "a\r\nb"}},
        {"identity": {"X-User-Id": "a\r\nX-Admin: 1"}},
        {"identity": {"X-User-Id": "日本"}},
    ],
    ids=str,
)
def test_other_parts_that_cannot_stand_on_their_line_are_refused(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cannot stand in a header|not visible ASCII") as caught:
        head(**parts)
    assert "root" not in str(caught.value)


names = st.sampled_from([*ALIASES, "User-Agent", "Cookie", "Connection", "Host", "X-Request-Id"])
client_fields = st.lists(st.tuples(names, st.text(st.characters(codec="latin-1"), max_size=20)))


@given(
    client=client_fields,
    target=st.from_regex(r"/[\w/?&=%]{0,10}\r?", fullmatch=True),
    origin=st.none() | st.from_regex(r"https://[a-z.]{1,10}\n?", fullmatch=True),
    user=any_text | st.text("ab %,:=\r\n日", min_size=1),
    forward=st.sets(names),
)
def test_whatever_comes_in_the_fields_are_the_expected_ones(
    client: list[tuple[str, str]], target: str, origin: str | None, user: str, forward: set[str]
) -> None:
    try:
        encoded = text(user)
        assert encoded is not None
        built = head(
            client,
            target=target,
            origin=origin,
            forward=[name.lower() for name in forward],
            own={"X-Request-Id": "r1"},
            identity={"X-User-Id": encoded},
        )
    except ValueError:
        return
    collected = Collector(built)
    assert collected.target == target.encode()
    assert collected.heads == 1
    lower = [name.lower() for name, _ in collected.fields]
    copied = {"user-agent", "cookie"} & {name.lower() for name in forward}
    assert set(lower) - copied - {"origin"} == {name.lower() for name, _ in BASE} | {
        "x-request-id",
        "x-user-id",
    }
    assert ("X-User-Id", encoded) in collected.fields
    for single in ("host", "connection", "x-user-id", "x-request-id"):
        assert lower.count(single) == 1
