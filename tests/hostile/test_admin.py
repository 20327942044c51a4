"""Strangers at the admin listener, and admin paths at the public one."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.support.attacks import bearer, refused
from tests.support.clients import head
from tests.support.sidecars import ENVIRON, policy_of, sidecar
from tests.support.upstreams import recording

TOKEN = "admin-token-0123456789"
ADMIN: dict[str, Any] = {"listen": "127.0.0.1:0", "token": {"env": "ADMIN_TOKEN"}}
WITH_TOKEN = {**ENVIRON, "ADMIN_TOKEN": TOKEN}


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz", "/drain", "/api/connections"])
async def test_the_public_listener_knows_no_admin_path(tmp_path: Path, path: str) -> None:
    route = {"match": {"path": "/ws"}}
    plain = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    drain = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode()
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=route), tmp_path) as running,
    ):
        await refused(running, upstream, plain, "bad_handshake")
        await refused(running, upstream, drain, "bad_handshake")
        await refused(running, upstream, head(path, bearer()), "no_route")
        assert not running.sidecar.draining


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/drain",
        "/nothing",
        "/metrics/",
        "//metrics",
        "/livez/../metrics",
        "/livez/..%2fmetrics",
        "/%6detrics",
        "/metrics?/livez",
        "/metrics;/livez",
        "/METRICS",
    ],
)
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"],
)
async def test_without_its_token_the_admin_listener_tells_nothing(
    tmp_path: Path, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    policy = policy_of("ws://127.0.0.1:9", admin=ADMIN)
    async with (
        sidecar(policy, tmp_path, WITH_TOKEN) as running,
        aiohttp.ClientSession() as session,
    ):
        url = URL(running.admin_url + path, encoded=True)
        for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT"):
            async with session.request(method, url, headers=headers) as response:
                assert response.status == 401
                assert b"ws_sidecar" not in await response.read()
        assert not running.sidecar.draining


@pytest.mark.parametrize(("content", "authorization"), [("", "Bearer "), ("x", "Bearer x")])
async def test_a_token_file_that_is_emptied_or_cut_opens_nothing(
    tmp_path: Path, content: str, authorization: str
) -> None:
    file = tmp_path / "admin.token"
    file.write_text(TOKEN)
    admin = {**ADMIN, "token": {"file": str(file)}}
    async with (
        sidecar(policy_of("ws://127.0.0.1:9", admin=admin), tmp_path) as running,
        aiohttp.ClientSession() as session,
    ):
        url = running.admin_url + "/api/connections"
        file.write_text(content)
        for value, status in ((authorization, 401), (f"Bearer {TOKEN}", 200)):
            async with session.get(url, headers={"Authorization": value}) as response:
                assert response.status == status


async def test_the_probes_tell_no_secret_without_the_token(tmp_path: Path) -> None:
    policy = policy_of("ws://127.0.0.1:9", admin=ADMIN)
    async with (
        sidecar(policy, tmp_path, WITH_TOKEN) as running,
        aiohttp.ClientSession() as session,
    ):
        for path in ("/livez", "/readyz"):
            async with session.get(running.admin_url + path) as response:
                text = await response.text()
                assert response.status == 200
                assert TOKEN not in text
                assert ENVIRON["JWT_SECRET"] not in text
        good = {"Authorization": f"Bearer {TOKEN}"}
        async with session.get(running.admin_url + "/metrics", headers=good) as response:
            text = await response.text()
            assert "ws_sidecar_connections_open" in text
            assert TOKEN not in text


@pytest.mark.parametrize("name", ["Origin", "Sec-Fetch-Site"])
async def test_a_web_page_cannot_drain_the_sidecar(tmp_path: Path, name: str) -> None:
    async with (
        sidecar(policy_of("ws://127.0.0.1:9"), tmp_path) as running,
        aiohttp.ClientSession() as session,
    ):
        url = running.admin_url + "/drain"
        async with session.post(url, headers={name: "cross-site"}) as response:
            assert response.status == 403
        async with session.get(url) as response:
            assert response.status == 405
        assert not running.sidecar.draining
