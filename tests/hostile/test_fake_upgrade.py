"""Tunnels through an upgrade that the upstream did not make, and redirected ones."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import frames
from tests.support.attacks import bearer, refused
from tests.support.clients import head, raw
from tests.support.sidecars import policy_of, sidecar
from tests.support.upstreams import Recording, accept_key, recording, switching

INTERNAL = b"GET /internal HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
SECRETS = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsecrets"


def status(line: str, *extra: str) -> Callable[[bytes], bytes]:
    """An answer with this status line, and everything else as in a right one."""

    def answer(request: bytes) -> bytes:
        _, _, rest = switching(request, *extra).partition(b"\r\n")
        return f"HTTP/1.1 {line}\r\n".encode() + rest

    return answer


def without(name: str) -> Callable[[bytes], bytes]:
    def answer(request: bytes) -> bytes:
        lines = switching(request).split(b"\r\n")
        return b"\r\n".join(line for line in lines if not line.startswith(name.encode()))

    return answer


def with_lines(*extra: str) -> Callable[[bytes], bytes]:
    return lambda request: switching(request, *extra)


def instead(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda request: switching(request).replace(old.encode(), new.encode(), 1)


ANSWERS: dict[str, Callable[[bytes], bytes]] = {
    "426 with upgrade fields": status("426 Upgrade Required"),
    "200 with upgrade fields": status("200 OK"),
    "200 without": lambda _: SECRETS,
    "101 without Accept": without("Sec-WebSocket-Accept"),
    "101 without Upgrade": without("Upgrade"),
    "101 without Connection": without("Connection"),
    "101 with another Accept": lambda request: switching(request).replace(
        accept_key(request).encode(), b"kfL1xCGUKhSnVVcPIOoVQW5PBaA="
    ),
    "101 with the Accept in lower case": lambda request: switching(request).replace(
        accept_key(request).encode(), accept_key(request).lower().encode()
    ),
    "101 with two Accepts": lambda request: switching(
        request, f"Sec-WebSocket-Accept: {accept_key(request)}"
    ),
    "101 to h2c": instead("Upgrade: websocket", "Upgrade: h2c"),
    "101 in HTTP/1.0": instead("HTTP/1.1", "HTTP/1.0"),
    "101 with a subprotocol nobody offered": with_lines("Sec-WebSocket-Protocol: chat"),
    "101 with an empty subprotocol": with_lines("Sec-WebSocket-Protocol:"),
    "101 with an extension": with_lines("Sec-WebSocket-Extensions: permessage-deflate"),
    "101 with a length": with_lines("Content-Length: 7"),
    "101 with chunks": with_lines("Transfer-Encoding: chunked"),
    "100 alone": lambda _: b"HTTP/1.1 100 Continue\r\n\r\n",
    "204 and then 101": lambda request: b"HTTP/1.1 204 No Content\r\n\r\n" + switching(request),
    "304 and then 101": lambda request: b"HTTP/1.1 304 Not Modified\r\n\r\n" + switching(request),
    "200 and then 101": lambda request: (
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + switching(request)
    ),
    "bare line feeds": lambda request: switching(request).replace(b"\r\n", b"\n"),
    "a folded field": with_lines("X-A: b", " c"),
    "no HTTP": lambda _: b"\x00\x01\x02 SSH-2.0\r\n\r\n",
    "an endless head": lambda _: b"HTTP/1.1 101 Switching Protocols\r\n" + b"X-A: b\r\n" * 10_000,
    "one endless field": lambda _: b"HTTP/1.1 101 Switching Protocols\r\nX-A: " + b"b" * 100_000,
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_nothing_but_a_right_101_opens_a_tunnel(tmp_path: Path, name: str) -> None:
    answer = ANSWERS[name]
    async with (
        recording(lambda request: answer(request) + SECRETS) as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()) + INTERNAL)
        problem = await client.refusal()
        assert problem["reason"] == "upstream_refused"
        assert problem["status"] == 502
        await running.until_idle()
        await upstream.until(lambda seen: seen.eof + seen.lost == 1)
        assert len(upstream.heads) == 1
        assert upstream.forwarded == b""


async def test_the_answer_may_come_byte_by_byte(tmp_path: Path) -> None:
    async with (
        recording(lambda _: None) as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        await upstream.until(lambda seen: len(seen.heads) == 1)
        for byte in switching(upstream.heads[0]):
            await upstream.send(bytes([byte]))
        assert (await client.response()).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize("version", ["1337", "8", "0", "12", "14", "013", "13.0", "13, 8", ""])
async def test_another_version_never_reaches_the_upstream(tmp_path: Path, version: str) -> None:
    request = head(
        "/ws",
        bearer(),
        f"Sec-WebSocket-Version: {version}",
        without=["Sec-WebSocket-Version"],
    )
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        problem = await refused(running, upstream, request + INTERNAL, "bad_handshake")
    assert problem["status"] == 426
    assert "Sec-WebSocket-Version: 13" in problem["head"]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_neither_followed_nor_handed_on(tmp_path: Path, code: int) -> None:
    async with recording() as canary:

        def redirect(_: bytes) -> bytes:
            return f"HTTP/1.1 {code} Away\r\nLocation: {canary.url}/ws\r\n\r\n".encode()

        async with (
            recording(redirect) as upstream,
            sidecar(policy_of(upstream.url), tmp_path) as running,
            raw(running.port) as client,
        ):
            await client.send(head("/ws", bearer()))
            problem = await client.refusal()
            await running.until_idle()
            assert problem["reason"] == "upstream_refused"
            assert "location" not in problem["head"].lower()
            assert canary.url not in str(problem)
            assert len(upstream.heads) == 1
        assert canary.heads == []


async def test_a_refusal_of_the_upstream_shows_nothing_of_it(tmp_path: Path) -> None:
    def answer(_: bytes) -> bytes:
        return (
            b"HTTP/1.1 403 Forbidden\r\nServer: legacy/0.1\r\nSet-Cookie: admin=1\r\n"
            b"Content-Length: 7\r\n\r\nsecrets"
        )

    async with (
        recording(answer) as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        seen = await client.rest()
        for part in (b"legacy", b"admin=1", b"secrets", b"403"):
            assert part not in seen


async def test_one_handshake_is_one_connection_to_the_upstream(tmp_path: Path) -> None:
    def hang_up(upstream: Recording) -> None:
        upstream.connections[-1][1].close()

    async with (
        recording(lambda _: None) as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws", bearer()))
        await upstream.until(lambda seen: len(seen.heads) == 1)
        hang_up(upstream)
        assert (await client.refusal())["reason"] == "upstream_refused"
        await running.until_idle()
        assert len(upstream.heads) == 1


async def test_the_same_socket_takes_no_second_request_after_a_refusal(tmp_path: Path) -> None:
    good = head("/ws", bearer())
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head("/ws") + good + good + frames.frame(1, b"hi"))
        answer = await client.rest()
        assert answer.count(b"HTTP/1.") == 1
        assert b"token_missing" in answer
        await running.until_idle()
        assert upstream.heads == []


async def test_a_plain_request_before_the_upgrade_ends_the_connection(tmp_path: Path) -> None:
    plain = b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(plain + head("/ws", bearer()))
        answer = await client.rest()
        assert answer.count(b"HTTP/1.") == 1
        assert upstream.heads == []
