"""Identity headers that are the client's own, and claims that are no header values."""

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.attacks import bearer, refused, served
from tests.support.clients import head
from tests.support.forgery import LATER, signed
from tests.support.sidecars import policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import recording

ROUTE: dict[str, Any] = {
    "identity": {
        "headers": {
            "X-User-Id": "user",
            "X-User-Email": "claims.email",
            "X-User-Roles": {"claim": "roles", "join": ","},
            "X-Auth-Claims": {"claims": "all", "encode": "base64url-json"},
        }
    },
}
SPELLINGS = [
    "X-User-Id",
    "x-user-id",
    "X_User_Id",
    "X.User.Id",
    "x-USER-id",
    "X-User_Id",
    "X__User__Id",
    "HTTP_X_USER_ID",
    "X-User-Id-",
]


def names(request: bytes) -> list[str]:
    """Every field's name, folded as a careless server folds it."""
    lines = request.decode("latin-1").split("\r\n")[1:-2]
    return [line.partition(":")[0].lower().replace("_", "-").replace(".", "-") for line in lines]


def value(request: bytes, name: str) -> str:
    lines = request.decode("latin-1").split("\r\n")[1:-2]
    found = [line.partition(":")[2].strip() for line in lines if line.startswith(name + ":")]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_the_clients_own_identity_header_never_passes(tmp_path: Path, spelling: str) -> None:
    lines = [bearer(), f"{spelling}: admin", f"{spelling}:\tadmin", "X-User-Email: a@evil"]
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        seen = await served(running, upstream, *lines)
    assert b"admin" not in seen
    assert b"evil" not in seen
    assert names(seen).count("x-user-id") == 1
    assert names(seen).count("x-user-email") == 0
    assert value(seen, "X-User-Id") == "alice"


async def test_an_anonymous_client_has_no_identity_headers(tmp_path: Path) -> None:
    route = {**ROUTE, "authenticate": {"anonymous": True}}
    lines = [f"{spelling}: admin" for spelling in SPELLINGS]
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=route), tmp_path) as running,
    ):
        seen = await served(running, upstream, *lines, "X-Auth-Claims: e30")
    assert b"admin" not in seen
    assert not {"x-user-id", "x-user-email", "x-user-roles", "x-auth-claims"} & set(names(seen))


async def test_a_header_that_the_policy_forwards_cannot_be_the_alias_of_an_identity_header(
    tmp_path: Path,
) -> None:
    route = {**ROUTE, "forward_headers": ["User-Agent"]}
    lines = [bearer(), "User-Agent: good", "User_Agent: admin", "user.agent: admin"]
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=route), tmp_path) as running,
    ):
        seen = await served(running, upstream, *lines)
    assert names(seen).count("user-agent") == 1
    assert b"admin" not in seen


@pytest.mark.parametrize(
    "spelling", ["X-Forwarded-For", "X_Forwarded_For", "X-Forwarded-Proto", "X.Request.Id"]
)
async def test_the_sidecars_own_headers_are_never_the_clients(
    tmp_path: Path, spelling: str
) -> None:
    async with recording() as upstream, sidecar(policy_of(upstream.url), tmp_path) as running:
        seen = await served(running, upstream, bearer(), f"{spelling}: evil")
    assert b"evil" not in seen
    for name in ("x-forwarded-for", "x-forwarded-proto", "x-request-id"):
        assert names(seen).count(name) == 1


@pytest.mark.parametrize(
    "email",
    [
        "a\r\nX-Admin: 1",
        "a\nb",
        "a\rb",
        "a\0b",
        "a\x1bb",
        "a\x7fb",
        "a\x85b",
        "admin\ud800",
        "\udfffadmin",
        "",
        "a" * 1025,
        "日" * 400,
        {"a": 1},
        ["a\r\nX-Admin: 1"],
    ],
)
async def test_a_claim_that_is_no_header_value_refuses_the_handshake(
    tmp_path: Path, email: Any
) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        text = signed({"sub": "alice", "exp": LATER, "email": email})
        lone = isinstance(email, str) and any("\ud800" <= letter <= "\udfff" for letter in email)
        reason = "token_invalid" if lone else "claims_denied"
        problem = await refused(running, upstream, head("/ws", bearer(text)), reason)
    assert "Admin" not in problem["head"]


@pytest.mark.parametrize(
    "roles",
    [["a,b"], ["a", "b,admin"], ["a\r\n"], [["a"]], [{"a": 1}], [None], ["a", ""], [1e400]],
)
async def test_a_list_that_could_be_read_as_another_list_is_refused(
    tmp_path: Path, roles: Any
) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        reason = "token_invalid" if roles == [1e400] else "claims_denied"
        text = token(roles=roles)
        await refused(running, upstream, head("/ws", bearer(text)), reason)


@pytest.mark.parametrize("user", ["a\r\nX-Admin: 1", "", "a\0", "\ud800", 1.5, True, [], {}, None])
async def test_a_user_that_is_no_name_is_refused(tmp_path: Path, user: Any) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        text = signed({"sub": user, "exp": LATER})
        await refused(running, upstream, head("/ws", bearer(text)), "token_invalid")


@pytest.mark.parametrize("email", ["日本", "a b", "100%", " a ", "%0d%0aX-Admin: 1", "é", "a,b;c"])
async def test_other_text_arrives_percent_encoded_and_whole(tmp_path: Path, email: str) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        seen = await served(running, upstream, bearer(token(email=email)))
    text = value(seen, "X-User-Email")
    assert text.isascii()
    assert unquote(text) == email
    assert "x-admin" not in names(seen)


async def test_all_claims_stay_in_one_line_whatever_they_say(tmp_path: Path) -> None:
    async with (
        recording() as upstream,
        sidecar(policy_of(upstream.url, route=ROUTE), tmp_path) as running,
    ):
        seen = await served(running, upstream, bearer(token(note="a\r\nX-Admin: 1")))
    text = value(seen, "X-Auth-Claims")
    claims = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    assert claims["note"] == "a\r\nX-Admin: 1"
    assert "x-admin" not in names(seen)
