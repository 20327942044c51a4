import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import HandshakeError
from sidecar.model import Handshake
from sidecar.wire.extensions import is_token
from sidecar.wire.handshake import (
    _decode,
    accept_key,
    check_response,
    parse_request,
    switching_protocols,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 section 1.3

Fields = list[tuple[bytes, bytes]]

REQUEST: Fields = [
    (b"Host", b"chat.example.com"),
    (b"Upgrade", b"websocket"),
    (b"Connection", b"Upgrade"),
    (b"Sec-WebSocket-Key", KEY.encode()),
    (b"Sec-WebSocket-Version", b"13"),
]
ANSWER: Fields = [
    (b"Upgrade", b"websocket"),
    (b"Connection", b"Upgrade"),
    (b"Sec-WebSocket-Accept", ACCEPT.encode()),
]


def changed(fields: Fields, name: bytes, *values: bytes) -> Fields:
    """The fields with this one set to the values: none removes it, two double it."""
    others = [field for field in fields if field[0].lower() != name.lower()]
    return others + [(name, value) for value in values]


def parse(
    fields: Fields = REQUEST,
    *,
    method: str = "GET",
    target: str = "/ws",
    version: str = "1.1",
) -> Handshake:
    return parse_request(method, target, version, fields)


def refused(fields: Fields = REQUEST, *, method: str = "GET", target: str = "/ws") -> str:
    with pytest.raises(HandshakeError) as caught:
        parse(fields, method=method, target=target)
    assert not caught.value.unsupported_version
    return caught.value.detail


def answer(
    fields: Fields = ANSWER, *, status: int = 101, offered: tuple[str, ...] = ()
) -> str | None:
    return check_response(status, fields, accept=ACCEPT, offered=offered)


def answer_refused(
    fields: Fields = ANSWER, *, status: int = 101, offered: tuple[str, ...] = ()
) -> str:
    with pytest.raises(HandshakeError) as caught:
        answer(fields, status=status, offered=offered)
    return caught.value.detail


def test_a_valid_request_becomes_a_handshake() -> None:
    fields = changed(REQUEST, b"Host", b"Chat.Example.com:8080")
    fields += [
        (b"Origin", b"https://app.example.com"),
        (b"Sec-WebSocket-Protocol", b"chat, v2"),
        (b"X-Name", b" \tcaf\xe9 \t"),
    ]
    handshake = parse(fields, target="/ws/a?token=x?y")
    assert (handshake.path, handshake.query) == ("/ws/a", "token=x?y")
    assert handshake.host == "chat.example.com:8080"
    assert handshake.key == KEY
    assert handshake.origin == "https://app.example.com"
    assert handshake.subprotocols == ("chat", "v2")
    assert ("Host", "Chat.Example.com:8080") in handshake.headers
    assert handshake.headers[-1] == ("X-Name", "café")


def test_what_a_request_need_not_have_is_empty() -> None:
    handshake = parse()
    assert (handshake.query, handshake.origin, handshake.subprotocols) == ("", None, ())


def test_firefoxs_connection_header_is_accepted() -> None:
    assert parse(changed(REQUEST, b"Connection", b"keep-alive, Upgrade")).key == KEY


def test_upgrade_and_connection_count_in_any_case() -> None:
    fields = changed(REQUEST, b"UPGRADE", b"WebSocket")
    assert parse(changed(fields, b"connection", b"upgrade")).key == KEY


@pytest.mark.parametrize("method", ["POST", "get", "HEAD", "CONNECT", ""])
def test_another_method_is_refused(method: str) -> None:
    assert "GET" in refused(method=method)


@pytest.mark.parametrize("version", ["1.0", "0.9", "1.2", "2.0", "1.10", ""])
def test_another_http_version_is_refused(version: str) -> None:
    with pytest.raises(HandshakeError, match=r"HTTP/1\.1"):
        parse(version=version)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "ws",
        "?x",
        "http://chat.example.com/ws",
        "chat.example.com:443",
        "/ws#part",
        "/ws?a#b",
        "/a b",
        "/a\tb",
        "/ws\r\nX-Admin: 1",
        "/ws\n",
        "/\x00",
        "/\x7f",
        "/é",
        "/ws?\udc80",
    ],
)
def test_a_target_that_is_not_an_absolute_path_of_visible_ascii_is_refused(target: str) -> None:
    assert "target" in refused(target=target)


@pytest.mark.parametrize(
    "name",
    [b"Host", b"Upgrade", b"Connection", b"Sec-WebSocket-Key", b"Sec-WebSocket-Version"],
)
def test_a_missing_header_is_refused(name: bytes) -> None:
    assert name.decode() in refused(changed(REQUEST, name))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"Host", b"chat.example.com"),
        (b"Sec-WebSocket-Key", KEY.encode()),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Origin", b"https://a.example"),
        (b"Authorization", b"Bearer x"),
        (b"Content-Length", b"0"),
    ],
)
def test_a_singleton_header_twice_is_refused(name: bytes, value: bytes) -> None:
    fields = [*changed(REQUEST, name, value), (name.swapcase(), value)]
    assert refused(fields) == f"more than one {name.decode()}"


@pytest.mark.parametrize(
    "host",
    [
        b"localhost",
        b"chat.example.com",
        b"my_service:9000",
        b"127.0.0.1:80",
        b"[::1]:8080",
        b"[2001:db8::1]",
        b"a:65535",
    ],
)
def test_a_host_with_or_without_a_port_is_accepted(host: bytes) -> None:
    assert parse(changed(REQUEST, b"Host", host)).host == host.decode()


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"a b",
        b"a,b",
        b"user@a",
        b"a/b",
        b"a:",
        b":80",
        b"a:0",
        b"a:080",
        b"a:65536",
        b"a:99999",
        b"a:x",
        b"a.",
        b".a",
        b"a..b",
        b"a%2eb",
        b"\xe4.example",
        b"[::1",
        b"[:::]",
        b"[1.2.3.4]",
        b"::1",
    ],
)
def test_a_malformed_host_is_refused(host: bytes) -> None:
    assert "Host" in refused(changed(REQUEST, b"Host", host))


@pytest.mark.parametrize("value", [b"h2c", b"websockets", b"websocket/13", b""])
def test_an_upgrade_to_something_else_is_refused(value: bytes) -> None:
    assert "Upgrade" in refused(changed(REQUEST, b"Upgrade", value))


def test_a_connection_without_upgrade_is_refused() -> None:
    assert "Connection" in refused(changed(REQUEST, b"Connection", b"keep-alive"))


@pytest.mark.parametrize("value", [b"1337", b"8", b"14", b"013", b"+13", b"13, 8", b""])
def test_another_version_asks_for_a_426(value: bytes) -> None:
    fields = changed(REQUEST, b"Sec-WebSocket-Version", value)
    with pytest.raises(HandshakeError) as caught:
        parse(changed(fields, b"Sec-WebSocket-Key"))
    assert caught.value.unsupported_version


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"x",
        base64.b64encode(b"x" * 15),
        base64.b64encode(b"x" * 17),
        b"dGhlIHNhbXBsZSBub25jZR==",  # bits below the padding
        b"dGhlIHNhbXBsZSBub25jZQ",
        b"dGhlIHNhbXBs ZSBub25jZQ==",
        b"dGhlIHNhbXBsZSBub25j-_==",
        b"dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ==",
    ],
)
def test_a_key_that_is_not_16_bytes_in_base64_is_refused(key: bytes) -> None:
    assert "Sec-WebSocket-Key" in refused(changed(REQUEST, b"Sec-WebSocket-Key", key))


@given(st.binary(min_size=16, max_size=16))
def test_every_key_of_16_bytes_is_accepted(key: bytes) -> None:
    text = base64.b64encode(key)
    assert parse(changed(REQUEST, b"Sec-WebSocket-Key", text)).key == text.decode()


@pytest.mark.parametrize(
    "field",
    [
        (b"Content-Length", b"5"),
        (b"Content-Length", b"+0"),
        (b"Content-Length", b"0, 0"),
        (b"Content-Length", b""),
        (b"Transfer-Encoding", b"chunked"),
        (b"Transfer-Encoding", b"identity"),
        (b"transfer-encoding", b""),
    ],
)
def test_a_request_with_a_body_is_refused(field: tuple[bytes, bytes]) -> None:
    assert refused([*REQUEST, field]) == "a body"


def test_a_content_length_of_0_is_no_body() -> None:
    assert parse([*REQUEST, (b"Content-Length", b"0")]).key == KEY


@pytest.mark.parametrize(
    "name",
    [b"", b"X Name", b"X-Name ", b"X:Name", b"X,Name", b",", b"X\x00", b"X\xe9", b"\n"],
)
def test_a_header_name_that_is_not_a_token_is_refused(name: bytes) -> None:
    assert "name" in refused([*REQUEST, (name, b"x")])


@pytest.mark.parametrize(
    "value", [b"a\r\nX-Admin: 1", b"a\nb", b"\x00", b"a\x0b", b"\x1b[2J", b"\x7f"]
)
def test_a_control_character_in_a_header_is_refused(value: bytes) -> None:
    assert "control character" in refused([*REQUEST, (b"X-Name", value)])


def one_by_one(fields: Fields) -> tuple[tuple[str, str], ...] | None:
    """What is decoded where each field is checked by itself; None where one is refused."""
    for name, value in fields:
        if not is_token(name.decode("latin-1")):
            return None
        if any(octet != 0x09 and (octet < 0x20 or octet == 0x7F) for octet in value):
            return None
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1").strip(" \t")) for name, value in fields
    )


NAMES = st.sampled_from([b"A", b"x-b", b"~"]) | st.text("aB,: \t\n\x00é", max_size=3).map(
    lambda text: text.encode("latin-1")
)
VALUES = st.sampled_from([b"", b"x", b" x\ty ", b"\xe9,"]) | st.binary(max_size=3)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5))
def test_fields_are_checked_together_as_they_would_be_one_by_one(fields: Fields) -> None:
    try:
        decoded = _decode(fields)
    except HandshakeError:
        decoded = None
    assert decoded == one_by_one(fields)


def test_a_tab_inside_a_header_is_kept() -> None:
    assert parse([*REQUEST, (b"X-Name", b"a\tb")]).headers[-1] == ("X-Name", "a\tb")


def test_a_subprotocol_offered_twice_is_refused() -> None:
    assert "twice" in refused([*REQUEST, (b"Sec-WebSocket-Protocol", b"a, a")])


def test_the_detail_never_repeats_the_request() -> None:
    for fields in (
        changed(REQUEST, b"Sec-WebSocket-Protocol", b"bearer, hunter2=="),
        changed(REQUEST, b"Authorization", b"hunter2", b"hunter2"),
        [*REQUEST, (b"hunter2:", b"hunter2")],
    ):
        assert "hunter2" not in refused(fields)
    assert "hunter2" not in refused(target="/ws?token=hunter2#")


@given(
    target=st.text(max_size=20),
    fields=st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4),
)
def test_any_request_is_a_handshake_or_is_refused(target: str, fields: Fields) -> None:
    try:
        handshake = parse(REQUEST + fields, target=target)
    except HandshakeError:
        return
    rest = f"?{handshake.query}" if "?" in target else ""
    assert handshake.path + rest == target
    assert target.isascii()
    assert target.isprintable()


def test_the_accept_key_is_the_rfcs() -> None:
    assert accept_key(KEY) == ACCEPT


@pytest.mark.parametrize("request_id", [None, "0123456789abcdef"])
@pytest.mark.parametrize("subprotocol", [None, "v2"])
def test_the_answer_to_a_client_is_one_that_the_check_accepts(
    subprotocol: str | None, request_id: str | None
) -> None:
    start, *lines = switching_protocols(ACCEPT, subprotocol, request_id=request_id).split(b"\r\n")
    assert start == b"HTTP/1.1 101 Switching Protocols"
    assert lines[-2:] == [b"", b""]
    fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines[:-2])]
    assert answer(fields, offered=("v2",)) == subprotocol
    named = [value.decode() for name, value in fields if name == b"X-Request-Id"]
    assert named == ([request_id] if request_id else [])


def test_a_right_answer_chooses_no_subprotocol() -> None:
    assert answer() is None


def test_a_right_answer_chooses_an_offered_subprotocol() -> None:
    fields = [*ANSWER, (b"Sec-WebSocket-Protocol", b"v2")]
    assert answer(fields, offered=("v1", "v2")) == "v2"


@pytest.mark.parametrize("status", [100, 200, 302, 403, 426, 500])
def test_an_answer_other_than_101_is_refused(status: int) -> None:
    assert answer_refused(status=status) == f"answered {status}"


@pytest.mark.parametrize("name", [b"Upgrade", b"Connection", b"Sec-WebSocket-Accept"])
def test_an_answer_without_a_needed_header_is_refused(name: bytes) -> None:
    assert name.decode() in answer_refused(changed(ANSWER, name))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (b"Upgrade", [b"h2c"]),
        (b"Upgrade", [b"websocket, h2c"]),
        (b"Upgrade", [b"websocket", b"websocket"]),
        (b"Connection", [b"close"]),
        (b"Sec-WebSocket-Accept", [KEY.encode()]),
        (b"Sec-WebSocket-Accept", [ACCEPT.lower().encode()]),
        (b"Sec-WebSocket-Accept", [ACCEPT.encode(), ACCEPT.encode()]),
        (b"Content-Length", [b"0"]),
        (b"Transfer-Encoding", [b"chunked"]),
        (b"X-Name", [b"a\nb"]),
    ],
)
def test_a_wrong_header_in_an_answer_is_refused(name: bytes, values: list[bytes]) -> None:
    detail = answer_refused(changed(ANSWER, name, *values))
    assert name.decode() in detail or "control character" in detail


@pytest.mark.parametrize("value", [b"permessage-deflate", b""])
def test_an_extension_in_an_answer_is_refused(value: bytes) -> None:
    fields = [*ANSWER, (b"Sec-WebSocket-Extensions", value)]
    assert "extension" in answer_refused(fields)


@pytest.mark.parametrize("values", [[b"v3"], [b"V1"], [b"v1, v2"], [b""], [b"v1", b"v1"]])
def test_a_subprotocol_that_was_not_offered_is_refused(values: list[bytes]) -> None:
    fields = changed(ANSWER, b"Sec-WebSocket-Protocol", *values)
    detail = answer_refused(fields, offered=("v1", "v2"))
    assert "not offered" in detail or "more than one" in detail
