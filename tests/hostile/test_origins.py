"""Web pages of strangers that open a socket from a user's browser."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.attacks import bearer, refused, served
from tests.support.clients import head
from tests.support.sidecars import policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import recording

ROUTE: dict[str, Any] = {
    "origins": {
        "allow": ["https://app.com", "https://*.wild.org", "https://v6.com:8443"],
        "missing": "allow",
    },
    "authenticate": {"sources": ["header", {"cookie": "session"}]},
}
LOOK_ALIKES = [
    "https://app.com.evil",
    "https://app.com.evil.com",
    "https://evilapp.com",
    "https://app.com:444",
    "https://app.com:0443",
    "https://app.com:",
    "https://app.com:80",
    "https://a@app.com",
    "https://app.com@evil.com",
    "https://app.com:443@evil.com",
    "https://app.com.",
    "https://app.com/",
    "https://app.com/ws",
    "https://app.com?",
    "https://app.com#",
    "https://app.com\\.evil.com",
    "https://app.com%2eevil.com",
    "https://app%2ecom",
    "https://app.com,https://evil.com",
    "https://app.com https://evil.com",
    "https://evil.com https://app.com",
    "http://app.com",
    "wss://app.com",
    "HTTPS//app.com",
    "https:/app.com",
    "https:app.com",
    "//app.com",
    "app.com",
    "null",
    "NULL",
    "",
    "*",
    "file://",
    "https://",
    "https://app_com",
    "https://\u0430pp.com",
    "https://app\uff0ecom",
    "https://app.com\u200b",
    "https://\u212a.com",
    "https://wild.org",
    "https://evilwild.org",
    "https://.wild.org",
    "https://a..wild.org",
    "https://a.wild.org.evil.com",
    "https://a.wild.org:8443",
    "https://-.wild.org",
    "https://*.wild.org",
    "https://v6.com",
    "https://v6.com:84430",
    "https://v6.com:+8443",
    "https://v6.com:\uff18443",
    "moz-extension://app.com",
    "chrome-extension://app.com",
]


@pytest.mark.parametrize("origin", LOOK_ALIKES)
async def test_a_look_alike_origin_is_refused(tmp_path: Path, origin: str) -> None:
    line = f"Origin: {origin}".encode().decode("latin-1")
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        request = head("/ws", bearer(), line)
        problem = await refused(running, upstream, request, "origin_denied")
    assert problem["status"] == 403
    assert "access-control" not in problem["head"].lower()


@pytest.mark.parametrize(
    "origin", ["https://app.com", "HTTPS://APP.com:443", "https://a.b.wild.org"]
)
async def test_the_right_origins_pass(tmp_path: Path, origin: str) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        await served(running, upstream, bearer(), f"Origin: {origin}")


async def test_a_cookie_without_an_origin_is_refused_though_missing_ones_are_allowed(
    tmp_path: Path,
) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        cookie = f"Cookie: session={token()}"
        await refused(running, upstream, head("/ws", cookie), "origin_missing")
        # neither does an Origin under another name help
        for name in ("Sec-WebSocket-Origin", "X-Origin", "Referer", "Origin_"):
            lines = [cookie, f"{name}: https://app.com"]
            await refused(running, upstream, head("/ws", *lines), "origin_missing")
        await served(running, upstream, cookie, "Origin: https://app.com")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.com", "127.0.0.1"),
        ("http://127.0.0.1:81", "127.0.0.1"),
        ("https://127.0.0.1:80", "127.0.0.1"),
        ("http://127.1", "127.0.0.1"),
        ("http://0x7f000001", "127.0.0.1"),
        ("http://2130706433", "127.0.0.1"),
        ("http://[::ffff:127.0.0.1]", "127.0.0.1"),
        ("http://localhost", "127.0.0.1"),
        ("http://app.com", "app.com:8080"),
        ("http://app.com", "app.com.evil"),
        ("null", "app.com"),
    ],
)
async def test_without_a_list_only_the_same_host_passes(
    tmp_path: Path, origin: str, host: str
) -> None:
    route = {"origins": {"missing": "allow"}}
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=route), tmp_path) as running,
    ):
        request = head("/ws", bearer(), f"Origin: {origin}", host=host)
        await refused(running, upstream, request, "origin_denied")


async def test_a_wildcard_takes_no_malformed_origin(tmp_path: Path) -> None:
    route = {"origins": {"allow": ["*"]}}
    async with (
        recording() as upstream,
        sidecar(
            policy_of(
                upstream.url, route={**route, "origins": {"allow": ["*"], "missing": "allow"}}
            ),
            tmp_path,
        ) as running,
    ):
        for origin in ("null", "file://", "https://a@b.com", "https://b.com/"):
            request = head("/ws", bearer(), f"Origin: {origin}")
            await refused(running, upstream, request, "origin_denied")
