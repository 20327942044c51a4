"""Fields and tokens that come twice."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.attacks import bearer, refused, served
from tests.support.clients import KEY, head
from tests.support.sidecars import policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import fields, recording

ORIGIN = "Origin: https://app.com"
ROUTE: dict[str, Any] = {
    "origins": {"allow": ["https://app.com"], "missing": "allow"},
    "authenticate": {
        "sources": [
            "header",
            {"cookie": "session"},
            {"query": "token"},
            {"subprotocol": "bearer"},
        ]
    },
}


@pytest.mark.parametrize(
    "lines",
    [
        ["Host: 127.0.0.1"],
        ["host: internal"],
        [ORIGIN, ORIGIN],
        [ORIGIN, "Origin: https://evil.com"],
        ["Origin: https://evil.com", ORIGIN],
        [bearer()],
        ["Authorization: Basic YTpi"],
        [f"Sec-WebSocket-Key: {KEY}"],
        ["Sec-WebSocket-Version: 13"],
        ["Sec-WebSocket-Version: 8"],
        [ORIGIN, f"Cookie: session={token()}; session={token()}"],
        [ORIGIN, f"Cookie: session={token()}", "Cookie: session=x"],
        [ORIGIN, f"Cookie: session=x; a=b; session={token()}"],
        [ORIGIN, "Cookie: session=; session=x"],
    ],
)
async def test_a_field_that_comes_twice_is_refused(tmp_path: Path, lines: list[str]) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        await refused(running, upstream, head("/ws", bearer(), *lines), "bad_handshake")


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        ("/ws?token={other}", [bearer()]),
        ("/ws?token={good}&token={other}", []),
        ("/ws?token={good}&%74oken={other}", []),
        ("/ws?token={good}", ["Sec-WebSocket-Protocol: bearer, {other}"]),
        ("/ws", ["Sec-WebSocket-Protocol: bearer, {good}, bearer.{other}"]),
        ("/ws", [bearer(), ORIGIN, "Cookie: session={other}"]),
    ],
)
async def test_two_tokens_that_differ_are_a_conflict(
    tmp_path: Path, path: str, lines: list[str]
) -> None:
    tokens = {"good": token(), "other": token("mallory")}
    filled = [line.format(**tokens) for line in lines]
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        request = head(path.format(**tokens), *filled)
        problem = await refused(running, upstream, request, "token_conflict")
    assert problem["status"] == 400


async def test_the_same_token_twice_is_one_token_and_leaves_no_trace(tmp_path: Path) -> None:
    text = token()
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        path = f"/ws?token={text}&a=1&token={text}"
        seen = await served(running, upstream, bearer(text), path=path)
    assert text.encode() not in seen
    assert seen.startswith(b"GET /ws?a=1 HTTP/1.1\r\n")
    assert "authorization" not in fields(seen)
