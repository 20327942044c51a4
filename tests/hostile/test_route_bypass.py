"""Paths that are matched in one form and served in another."""

from pathlib import Path
from posixpath import normpath
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.policy.routes import PathPattern, check_path
from tests.support.attacks import bearer, refused, served
from tests.support.clients import head, raw
from tests.support.sidecars import policy_of, sidecar
from tests.support.upstreams import recording

MISSHAPEN = [
    "/public/../ws",
    "/ws/..",
    "/ws/.",
    "/./ws",
    "/ws/%2e%2e/admin",
    "/ws/%2E%2E/admin",
    "/ws/.%2e/admin",
    "/ws/%2e",
    "//ws",
    "//evil.com/ws",
    "/ws//admin",
    "/ws//",
    "/ws;x",
    "/ws;/../admin",
    "/ws/..;/admin",
    "/ws%3bx",
    "/ws%2fadmin",
    "/ws%2Fadmin",
    "/ws%5cadmin",
    "/ws\\admin",
    "/ws\\..\\admin",
    "/ws%00",
    "/ws%00.html",
    "/ws%0d%0aX-Admin:1",
    "/ws%0a",
    "/ws%09",
    "/ws%7f",
    "/ws%c2%85",
    "/ws%23x",
    "/ws%3fx",
    "/ws%",
    "/ws%2",
    "/ws%zz",
    "/ws%u002e",
    "/ws%25",
    "/ws%252e%252e/admin",
    "/ws%c0%ae%c0%ae/admin",
    "/ws%e0%80%ae",
    "/ws%ff",
    "/ws%ed%a0%80",
    "/%77s",
    "/w%73",
    "/ws%2d",
    "/ws/..%20/admin",
    "/ws/%20/admin",
    "/ws/%c2%a0/admin",
    "/ws/..%e3%80%80/admin",
    "/ws/%ef%bb%bf../../admin/..",
    "/ws#/admin",
    '/ws"',
]


@pytest.mark.parametrize("path", MISSHAPEN)
async def test_a_path_with_two_readings_is_refused(tmp_path: Path, path: str) -> None:
    route = {"match": {"path": "/{rest...}"}}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=route), tmp_path) as running,
    ):
        if path == '/ws"':
            seen = await served(running, upstream, bearer(), path=path)
            assert seen.startswith(b'GET /ws" HTTP/1.1\r\n')
        else:
            await refused(running, upstream, head(path, bearer()), "bad_handshake")


@pytest.mark.parametrize("path", ["/WS", "/ws/", "/wsx", "/ws.html", "/w", "/", "/ws/a", "/ws%20"])
async def test_a_path_that_only_looks_alike_has_no_route(tmp_path: Path, path: str) -> None:
    route = {"match": {"path": "/ws"}}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=route), tmp_path) as running,
    ):
        problem = await refused(running, upstream, head(path, bearer()), "no_route")
    assert problem["status"] == 404


async def test_a_guarded_path_cannot_be_reached_through_an_open_route(tmp_path: Path) -> None:
    routes: list[dict[str, Any]] = [
        {
            "name": "open",
            "match": {"path": "/public/{rest...}"},
            "origins": {"missing": "allow"},
            "authenticate": {"anonymous": True},
        },
        {"name": "ws", "match": {"path": "/ws"}, "origins": {"missing": "allow"}},
    ]
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, routes=routes), tmp_path) as running,
    ):
        for path in ("/public/../ws", "/public/%2e%2e/ws", "/public/..;/ws", "/public/..%2fws"):
            await refused(running, upstream, head(path), "bad_handshake")
        await refused(running, upstream, head("/ws"), "token_missing")
        await refused(running, upstream, head("/ws?/public/x"), "token_missing")


@pytest.mark.parametrize(
    ("path", "forwarded"),
    [
        ("/room/a%20b", "/chat/a%20b"),
        ("/room/a@b", "/chat/a@b"),
        ("/room/%E6%97%A5", "/chat/%E6%97%A5"),
        ("/room/a?b=%2e%2e/..", "/chat/a?b=%2e%2e/.."),
        ("/room/a?http://evil/", "/chat/a?http://evil/"),
    ],
)
async def test_a_capture_stays_one_segment_of_the_upstreams_path(
    tmp_path: Path, path: str, forwarded: str
) -> None:
    route = {"match": {"path": "/room/{room}"}, "upstream_path": "/chat/{room}"}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=route), tmp_path) as running,
        raw(running.port) as client,
    ):
        await client.send(head(path, bearer()))
        assert (await client.response()).startswith(b"HTTP/1.1 101 ")
    assert upstream.heads[0].startswith(f"GET {forwarded} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    "host", ["evil.com", "chat.example.com.evil.com", "xchat.example.com", "chat.example.com:81"]
)
async def test_another_host_has_no_route(tmp_path: Path, host: str) -> None:
    route = {"match": {"path": "/ws", "host": "chat.example.com:80"}}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=route), tmp_path) as running,
    ):
        async with raw(running.port) as client:
            await client.send(head("/ws", bearer(), host=host))
            assert (await client.refusal())["reason"] == "no_route"
        assert upstream.heads == []


_PIECES = st.sampled_from(
    [
        "/",
        ".",
        "..",
        "%2e",
        "%2f",
        "%5c",
        "\\",
        ";",
        "%00",
        "%25",
        "%",
        "a",
        "ws",
        "%20",
        "%41",
        "?",
    ]
)


@given(st.lists(_PIECES, max_size=12).map(lambda pieces: "/" + "".join(pieces)))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_what_passes_means_the_same_decoded_never_once_or_twice(path: str) -> None:
    if check_path(path) is not None:
        return
    once, twice = unquote(path), unquote(unquote(path))
    assert once == twice
    assert normpath(once) == once.rstrip("/") or once == "/"
    assert PathPattern.parse("/ws").match(path) is None or once == "/ws"
