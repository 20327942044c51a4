"""Who may come in: rules on claims, CEL, shadow rules, and the choice of the route."""

from pathlib import Path

import aiohttp

from tests.support.admitted import reason_for, seen_by
from tests.support.audits import audit_to, events
from tests.support.clients import head, raw
from tests.support.refused import bearer
from tests.support.sidecars import policy_of, sidecar
from tests.support.upstreams import fields, recording


async def test_a_token_opens_the_rooms_that_it_names(tmp_path: Path) -> None:
    route = {
        "match": {"path": "/ws/{room}"},
        "authorize": [{"claim": "rooms", "contains": "{path.room}", "reason": "not_your_room"}],
    }
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        await seen_by(up, s, bearer(rooms=["blue", "café"]), path="/ws/blue")
        await seen_by(up, s, bearer(rooms=["blue", "café"]), path="/ws/caf%C3%A9")
        assert await reason_for(s, bearer(rooms=["blue"]), path="/ws/red") == "not_your_room"
        assert await reason_for(s, bearer(rooms="{path.room}"), path="/ws/red") == "not_your_room"
        assert await reason_for(s, bearer(), path="/ws/blue") == "not_your_room"
        assert len(up.heads) == 2


async def test_cel_reads_claims_request_path_and_session(tmp_path: Path) -> None:
    expression = (
        "('member' in claims.roles || claims.admin) && path.room != 'secret'"
        " && request.headers['x-client'] == 'app' && session.provider == 'app' && user == 'alice'"
    )
    route = {"match": {"path": "/ws/{room}"}, "authorize": [{"cel": expression}]}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        app = "X-Client: app"
        await seen_by(up, s, bearer(roles=["member"]), app, path="/ws/blue")
        await seen_by(up, s, bearer(roles=[], admin=True), app, path="/ws/blue")
        for lines, path in [
            ((bearer(roles=[], admin=False), app), "/ws/blue"),
            ((bearer(roles=["member"]), app), "/ws/secret"),
            ((bearer(roles=["member"]),), "/ws/blue"),
            ((bearer(user="bob", roles=["member"]), app), "/ws/blue"),
            ((bearer(), app), "/ws/blue"),  # an error in the expression does not hold
        ]:
            assert await reason_for(s, *lines, path=path) == "claims_denied"
        assert len(up.heads) == 2


async def test_a_cel_rule_cannot_read_the_token(tmp_path: Path) -> None:
    rule = {"cel": "has(request.headers.authorization) || has(request.headers.cookie)"}
    async with (
        recording() as up,
        sidecar(policy_of(up.url, route={"authorize": [rule]}), tmp_path) as s,
    ):
        assert await reason_for(s, bearer(), "Cookie: a=1") == "claims_denied"


async def test_a_shadow_rule_lets_in_and_is_told_of(tmp_path: Path) -> None:
    rules = [
        {"claim": "email_verified", "equals": True, "shadow": True, "reason": "unverified"},
        {"claim": "level", "exists": True, "shadow": True, "reason": "no_level"},
    ]
    async with recording() as up:
        policy = policy_of(
            up.url, route={"authorize": rules}, logging=audit_to(tmp_path / "audit.jsonl")
        )
        async with sidecar(policy, tmp_path) as s:
            await seen_by(up, s, bearer(level=1))
            async with (
                aiohttp.ClientSession() as session,
                session.get(s.admin_url + "/metrics") as answer,
            ):
                metrics = await answer.text()
            label = s.sidecar._policy.routes[0].authorize[0].label
    (logged,) = events(tmp_path / "audit.jsonl")
    assert logged["decision"] == "allowed"
    assert logged["shadowed"] == label
    counted = f'ws_sidecar_shadow_denials_total{{route="main",rule="{label}"}} 1.0'
    assert counted in metrics


async def test_rules_see_an_anonymous_client(tmp_path: Path) -> None:
    route = {
        "authenticate": {"anonymous": True},
        "authorize": [{"cel": "!session.anonymous || request.path == '/public'"}],
    }
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        await seen_by(up, s, path="/public")
        await seen_by(up, s, bearer(), path="/private")
        assert await reason_for(s, path="/private") == "claims_denied"


async def test_the_first_route_that_matches_decides(tmp_path: Path) -> None:
    routes = [
        {"name": "admin", "match": {"path": "/admin/{rest...}"}, "upstream": "main",
         "origins": {"missing": "allow"}, "authorize": [{"claim": "admin", "equals": True}]},
        {"name": "host", "match": {"host": "*.example.com"}, "upstream": "other",
         "origins": {"missing": "allow"}},
    ]  # fmt: skip
    async with recording() as up, recording() as other:
        upstreams = {"main": {"url": up.url}, "other": {"url": other.url}}
        policy = policy_of(up.url, upstreams=upstreams, routes=routes)
        async with sidecar(policy, tmp_path) as s:
            assert await reason_for(s, bearer(), path="/admin/x") == "claims_denied"
            assert await reason_for(s, bearer(), path="/other") == "no_route"
            async with raw(s.port) as client:
                await client.send(head("/other", bearer(), host="chat.EXAMPLE.com:80"))
                await client.response()
    assert (len(up.heads), len(other.heads)) == (0, 1)
    assert fields(other.heads[0])["host"] == "chat.example.com:80"


async def test_what_a_rule_cannot_read_it_refuses(tmp_path: Path) -> None:
    route = {"authorize": [{"claim": "level", "in": [1, 2]}, {"claim": "id", "matches": "[a-z]+"}]}
    async with recording() as up, sidecar(policy_of(up.url, route=route), tmp_path) as s:
        await seen_by(up, s, bearer(level=1, id="abc"))
        for claims in ({"level": True}, {"level": "1"}, {"level": 1, "id": "abc\n"}):
            assert await reason_for(s, bearer(**{"id": "abc", **claims})) == "claims_denied"
