"""Requests that two parsers could read differently, and fields that a hop could remove."""

from pathlib import Path

import pytest

from tests.support.attacks import bearer, refused, served
from tests.support.clients import head, raw
from tests.support.sidecars import policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import fields, recording

INNER = b"GET /internal HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
AUTH = bearer()

REQUESTS: dict[str, bytes] = {
    "a length and chunks": head("/ws", AUTH, "Content-Length: 5", "Transfer-Encoding: chunked")
    + b"0\r\n\r\n"
    + INNER,
    "chunks": head("/ws", AUTH, "Transfer-Encoding: chunked") + b"0\r\n\r\n" + INNER,
    "chunk extensions": head("/ws", AUTH, "Transfer-Encoding: chunked")
    + b'5;a="\r\nb"\r\nhello\r\n0\r\n\r\n',
    "trailers": head("/ws", AUTH, "Transfer-Encoding: chunked", "Trailer: X-User-Id")
    + b"0\r\nX-User-Id: admin\r\n\r\n",
    "identity coding": head("/ws", AUTH, "Transfer-Encoding: identity") + INNER,
    "chunks in disguise": head("/ws", AUTH, "Transfer-Encoding: \x0bchunked") + INNER,
    "a length": head("/ws", AUTH, f"Content-Length: {len(INNER)}") + INNER,
    "a length behind a sign": head("/ws", AUTH, "Content-Length: +0"),
    "a length of two numbers": head("/ws", AUTH, "Content-Length: 0, 0"),
    "a length that is negative": head("/ws", AUTH, "Content-Length: -1"),
    "two lengths": head("/ws", AUTH, "Content-Length: 0", "Content-Length: 0"),
    "two lengths that differ": head("/ws", AUTH, "Content-Length: 0", "Content-Length: 5"),
    "a folded field": head("/ws", "Authorization: Bearer", f" {token()}"),
    "a folded field at the start": head("/ws", AUTH).replace(b"\r\nHost", b"\r\n Host", 1),
    "bare line feeds": head("/ws", AUTH).replace(b"\r\n", b"\n"),
    "one bare line feed": head("/ws", AUTH).replace(b"websocket\r\n", b"websocket\n"),
    "a bare carriage return": head("/ws", AUTH, "X-A: a\rX-User-Id: admin"),
    "a NUL": head("/ws", AUTH, "X-A: a\0b"),
    "space before the colon": head("/ws", AUTH, "X-User-Id : admin"),
    "no colon": head("/ws", AUTH, "X-User-Id"),
    "no name": head("/ws", AUTH, ": admin"),
    "a name with a space": head("/ws", AUTH, "X User-Id: admin"),
    "a name beyond ASCII": head("/ws", AUTH, "X-\xdcser-Id: admin"),
    "absolute form": head("http://127.0.0.1/ws", AUTH),
    "absolute form of another host": head("http://internal/ws", AUTH),
    "absolute form with a user": head("http://admin@127.0.0.1/ws", AUTH),
    "authority form": head("127.0.0.1:80", AUTH),
    "asterisk form": head("*", AUTH),
    "a fragment": head("/ws#/../internal", AUTH),
    "a target beyond ASCII": head("/ws/\xe9", AUTH),
    "a tab": head("/ws\tHTTP/1.1\tx", AUTH),
    "POST": head("/ws", AUTH, method="POST"),
    "PUT": head("/ws", AUTH, method="PUT"),
    "CONNECT": head("/ws", AUTH, method="CONNECT"),
    "get": head("/ws", AUTH, method="get"),
    "a made-up method": head("/ws", AUTH, method="GETX"),
    "HTTP/1.0": head("/ws", AUTH, version="HTTP/1.0"),
    "HTTP/0.9 in disguise": head("/ws", AUTH, version="HTTP/0.9"),
    "HTTP/1.2": head("/ws", AUTH, version="HTTP/1.2"),
    "HTTP/2.0": head("/ws", AUTH, version="HTTP/2.0"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an upgrade to h2c": head(
        "/ws", AUTH, "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAA", without=["Upgrade"]
    ),
    "no upgrade": head("/ws", AUTH, without=["Upgrade"]),
    "no Connection": head("/ws", AUTH, without=["Connection"]),
    "a Connection that only looks alike": head(
        "/ws", AUTH, "Connection: xUpgrade", without=["Connection"]
    ),
    "no Host": head("/ws", AUTH, without=["Host"]),
    "an empty Host": head("/ws", AUTH, host=""),
    "a Host with a path": head("/ws", AUTH, host="127.0.0.1/internal"),
    "a Host with a user": head("/ws", AUTH, host="admin@127.0.0.1"),
    "a Host of two": head("/ws", AUTH, host="127.0.0.1, internal"),
    "a Host with a dot at the end": head("/ws", AUTH, host="localhost."),
    "a Host with a port that is none": head("/ws", AUTH, host="localhost:080"),
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(200),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_an_ambiguous_request_is_refused(tmp_path: Path, name: str) -> None:
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        problem = await refused(running, upstream, REQUESTS[name], "bad_handshake")
    assert problem["status"] == 400
    # RFC 9110 section 2.5: the version in an answer is the server's own, whatever was named.
    assert problem["head"].startswith("HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "connection",
    [
        "Upgrade, X-User-Id",
        "X-User-Id, Upgrade",
        "Upgrade, X-User-Id, X-Forwarded-For, Host, Sec-WebSocket-Key",
        "close, upgrade, x-user-id",
    ],
)
async def test_no_hop_can_be_told_to_remove_a_header(tmp_path: Path, connection: str) -> None:
    route = {
        "identity": {"headers": {"X-User-Id": "user"}},
        "forward_headers": ["User-Agent"],
    }
    lines = [
        f"Connection: {connection}",
        AUTH,
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Trailer: X-User-Id",
        "Proxy-Connection: Upgrade",
        "Proxy-Authorization: Basic YTpi",
        "Proxy: http://evil/",
        "User-Agent: test",
    ]
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=route), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", *lines, without=["Connection"]))
        assert (await client.response()).startswith(b"HTTP/1.1 101 ")
        seen = fields(upstream.heads[0])
    assert seen["connection"] == "Upgrade"
    assert seen["x-user-id"] == "alice"
    assert seen["user-agent"] == "test"
    assert seen.keys() == {
        *("host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version"),
        *("user-agent", "x-forwarded-for", "x-forwarded-proto", "x-request-id", "x-user-id"),
    }


async def test_an_expectation_is_neither_answered_nor_forwarded(tmp_path: Path) -> None:
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        seen = await served(running, upstream, AUTH, "Expect: 100-continue")
    assert "expect" not in fields(seen)


async def test_a_compressed_body_is_not_unpacked_for_a_stranger(tmp_path: Path) -> None:
    request = head("/ws", "Content-Length: 1000000", "Content-Encoding: gzip", method="POST")
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        await refused(running, upstream, request, "bad_handshake")
