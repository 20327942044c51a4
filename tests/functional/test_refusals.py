"""Every refusal before the dial: what the client is told, what is logged, and that the upstream
sees nothing of it.
"""

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.clients import head, raw
from tests.support.refused import assert_well_formed, bearer, refused, with_audit
from tests.support.sidecars import policy_of, sidecar
from tests.support.upstreams import fields, recording

ROUTE = {
    "match": {"path": "/ws/{rest...}"},
    "origins": {"allow": ["https://app.example.com"], "missing": "allow"},
    "authenticate": {"sources": ["header", {"query": "token"}]},
    "authorize": [{"claim": "role", "in": ["user", "admin"]}],
}

BEFORE_THE_DIAL = [
    ("no_route", 404, "/elsewhere", ["Origin: https://app.example.com"]),
    ("bad_handshake", 400, "/ws/../admin", [bearer(role="user")]),
    ("bad_handshake", 400, "/ws/%2e%2e/admin", [bearer(role="user")]),
    ("bad_handshake", 400, "/ws/a", [bearer(role="user"), bearer(role="user")]),
    ("bad_handshake", 400, "/ws/a", ["Host: other.example", bearer(role="user")]),
    ("bad_handshake", 400, "/ws/a", ["Transfer-Encoding: chunked", bearer(role="user")]),
    ("origin_denied", 403, "/ws/a", ["Origin: https://app.example.com.evil", bearer(role="user")]),
    ("origin_denied", 403, "/ws/a", ["Origin: null", bearer(role="user")]),
    ("token_missing", 401, "/ws/a", []),
    ("token_missing", 401, "/ws/a", ["Authorization: Basic eDp5"]),
    ("token_invalid", 401, "/ws/a", ["Authorization: Bearer nonsense"]),
    ("token_invalid", 401, "/ws/a", ["Authorization: Bearer " + "x" * 8193]),
    ("token_invalid", 401, "/ws/a", [bearer(secret="z" * 64, role="user")]),
    ("token_expired", 401, "/ws/a", [bearer(ttl=-60, role="user")]),
    ("token_conflict", 400, "/ws/a?token=other", [bearer(role="user")]),
    ("claims_denied", 403, "/ws/a", [bearer(role="guest")]),
    ("claims_denied", 403, "/ws/a", [bearer()]),
]


@pytest.mark.parametrize(("reason", "status", "path", "lines"), BEFORE_THE_DIAL)
async def test_a_refusal_before_the_dial_never_reaches_the_upstream(
    tmp_path: Path, reason: str, status: int, path: str, lines: list[str]
) -> None:
    async with recording() as up:
        async with sidecar(with_audit(tmp_path, up.url, route=ROUTE), tmp_path) as s:
            problem = await refused(s, *lines, path=path)
            await s.until_idle()
        assert (problem["reason"], problem["status"]) == (reason, status)
        assert "?" not in assert_well_formed(problem, tmp_path).get("path", "")
        assert up.heads == []


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        (["Content-Length: 3"], {}),
        ([], {"method": "POST"}),
        ([], {"version": "HTTP/1.0"}),
        ([], {"without": ["Upgrade"]}),
        ([], {"without": ["Connection"]}),
        ([], {"without": ["Host"]}),
        ([], {"without": ["Sec-WebSocket-Key"]}),
        (["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="], {}),
        (["Sec-WebSocket-Key: short"], {"without": ["Sec-WebSocket-Key"]}),
        (["Upgrade: h2c"], {"without": ["Upgrade"]}),
        (["X Bad: 1"], {}),
        (["X-Control: a\x01b"], {}),
    ],
)
async def test_what_is_no_handshake_is_refused(
    tmp_path: Path, lines: list[str], options: dict[str, Any]
) -> None:
    async with recording() as up:
        async with sidecar(with_audit(tmp_path, up.url), tmp_path) as s:
            problem = await refused(s, bearer(), *lines, **options)
        assert (problem["reason"], problem["status"]) == ("bad_handshake", 400)
        assert_well_formed(problem, tmp_path)
        assert up.heads == []


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GARBAGE\r\n\r\n"])
async def test_what_is_no_http_is_a_bad_handshake(tmp_path: Path, data: bytes) -> None:
    async with recording() as up:
        async with sidecar(with_audit(tmp_path, up.url), tmp_path) as s, raw(s.port) as client:
            await client.send(data)
            problem = await client.refusal()
            problem["fields"] = fields(problem["head"].encode("latin-1"))
        assert (problem["reason"], problem["status"]) == ("bad_handshake", 400)
        assert_well_formed(problem, tmp_path)


@pytest.mark.parametrize("version", ["8", "14", "13, 8", ""])
async def test_another_version_is_told_which_one_is_spoken(tmp_path: Path, version: str) -> None:
    async with recording() as up:
        async with sidecar(with_audit(tmp_path, up.url), tmp_path) as s:
            problem = await refused(
                s,
                bearer(),
                f"Sec-WebSocket-Version: {version}",
                without=["Sec-WebSocket-Version"],
            )
        assert (problem["reason"], problem["status"]) == ("bad_handshake", 426)
        assert problem["fields"]["sec-websocket-version"] == "13"
        assert problem["fields"]["upgrade"] == "websocket"
        assert_well_formed(problem, tmp_path)
        assert up.heads == []


async def test_no_origin_is_refused_unless_the_route_allows_it(tmp_path: Path) -> None:
    async with recording() as up:
        policy = with_audit(tmp_path, up.url, route={"origins": {"missing": "deny"}})
        async with sidecar(policy, tmp_path) as s:
            problem = await refused(s, bearer())
        assert (problem["reason"], problem["status"]) == ("origin_missing", 403)
        assert_well_formed(problem, tmp_path)
        assert up.heads == []


async def test_clear_text_is_refused_where_tls_is_required(tmp_path: Path) -> None:
    server = {"require_tls": True, "trusted_proxies": ["127.0.0.0/8"]}
    async with recording() as up:
        async with sidecar(with_audit(tmp_path, up.url, server=server), tmp_path) as s:
            problem = await refused(s, bearer(), "X-Forwarded-Proto: http")
            assert (problem["reason"], problem["status"]) == ("tls_required", 403)
            assert up.heads == []
            async with raw(s.port) as client:
                await client.send(head("/ws", bearer(), "X-Forwarded-Proto: https"))
                assert (await client.response()).startswith(b"HTTP/1.1 101 ")
        assert_well_formed(problem, tmp_path)


@pytest.mark.parametrize(
    ("token_lines", "challenge"),
    [
        ([], "Bearer"),
        (["Authorization: Bearer nonsense"], 'Bearer error="invalid_token"'),
        ([bearer(ttl=-60)], 'Bearer error="invalid_token"'),
    ],
)
async def test_a_401_carries_a_challenge(
    tmp_path: Path, token_lines: list[str], challenge: str
) -> None:
    async with recording() as up, sidecar(policy_of(up.url), tmp_path) as s:
        assert (await refused(s, *token_lines))["fields"]["www-authenticate"] == challenge


async def test_a_rule_tells_its_own_reason(tmp_path: Path) -> None:
    route = {"authorize": [{"claim": "member", "equals": True, "reason": "not_a_member"}]}
    async with recording() as up:
        async with sidecar(with_audit(tmp_path, up.url, route=route), tmp_path) as s:
            problem = await refused(s, bearer())
            async with (
                aiohttp.ClientSession() as session,
                session.get(s.admin_url + "/metrics") as got,
            ):
                metrics = await got.text()
        assert (problem["reason"], problem["status"]) == ("not_a_member", 403)
        logged = assert_well_formed(problem, tmp_path)
        assert (logged["reason"], logged["rule"]) == ("claims_denied", "not_a_member")
        assert (
            'ws_sidecar_handshakes_total{outcome="refused",reason="not_a_member",route="main"} 1.0'
            in metrics
        )


async def test_a_refusal_says_nothing_of_the_detail(tmp_path: Path) -> None:
    async with recording() as up:
        async with sidecar(with_audit(tmp_path, up.url), tmp_path) as s:
            problem = await refused(s, bearer(secret="z" * 64))
        logged = assert_well_formed(problem, tmp_path)
        assert logged["detail"] not in json.dumps(problem)


async def test_early_data_of_a_refused_handshake_is_no_second_request(tmp_path: Path) -> None:
    async with recording() as up, sidecar(policy_of(up.url), tmp_path) as s:
        async with raw(s.port) as client:
            await client.send(head("/ws") + head("/ws", bearer()))
            answer = await client.rest()
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert up.heads == []
