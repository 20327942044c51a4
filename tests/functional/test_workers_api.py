"""The admin API before several workers: what it does holds in each of them."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.functional.test_workers import Samples, closed, echoes, running, samples
from tests.functional.test_workers_ends import pid_of, stopped
from tests.support.forgery import signed
from tests.support.programs import Program
from tests.support.sidecars import PROVIDER
from tests.support.tokens import token

# The processes choose their own loop; the test's makes no difference.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

REVOCATIONS = "/api/revocations"
CONNECTIONS = "/api/connections"
ISSUER = "https://login.example.com"


def bearer_of(**claims: Any) -> dict[str, str]:
    """The header with a token that was issued before anything was revoked."""
    issued: dict[str, Any] = {"iat": int(time.time()) - 600}
    return {"Authorization": f"Bearer {token(**issued, **claims)}"}


class Api:
    """A program of two workers, and its admin API. `clients` are by the worker that has them."""

    def __init__(self, program: Program, session: aiohttp.ClientSession) -> None:
        self.program = program
        self.session = session
        self.clients: dict[int, list[ClientConnection]] = {1: [], 2: []}

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        async with self.session.request(method, path, **options) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body else None

    async def revoke(self, **body: Any) -> dict[str, Any]:
        status, answer = await self.ask("POST", REVOCATIONS, json=body)
        assert status == 201, answer
        revocation: dict[str, Any] = answer
        return revocation

    async def join(self, **claims: Any) -> int:
        """Open a connection that works; the worker that has it."""
        before = len(self.program.logged("handshake"))
        bearer = bearer_of(**claims)
        client = await connect(self.program.url, additional_headers=bearer)
        await echoes(client)
        await self.program.until(lambda: len(self.program.logged("handshake")) > before)
        worker = int(self.program.logged("handshake")[before]["worker"])
        self.clients[worker].append(client)
        return worker

    async def join_both(self, **claims: Any) -> None:
        """Open connections until each worker has one more."""
        reached = {await self.join(**claims)}
        while len(reached) < 2:  # the kernel chooses
            reached.add(await self.join(**claims))

    async def refused_by(self, **claims: Any) -> None:
        """Try until each worker has refused; none lets the client in."""
        bearer = bearer_of(**claims)
        before = len(self.program.logged("handshake"))
        refusers: set[int] = set()
        while refusers != {1, 2}:
            with pytest.raises(InvalidStatus) as refused:
                await connect(self.program.url, additional_headers=bearer)
            assert refused.value.response.status_code == 401
            new = self.program.logged("handshake")[before:]
            assert {line["reason"] for line in new} <= {"token_revoked"}
            refusers = {line["worker"] for line in new}

    async def refused_logout(self, detail: str) -> None:
        """Wait for the line about a logout token that was refused for this."""
        program = self.program
        await program.until(
            lambda: detail in [line["detail"] for line in program.logged("logout_refused")]
        )

    async def ends(self) -> set[tuple[int | None, str | None]]:
        """How all the clients end."""
        clients = [client for each in self.clients.values() for client in each]
        async with asyncio.timeout(20):
            await asyncio.gather(*(client.wait_closed() for client in clients))
        return {(client.close_code, client.close_reason) for client in clients}

    @property
    def count(self) -> int:
        return sum(map(len, self.clients.values()))


@contextlib.asynccontextmanager
async def api(folder: Path, **sections: Any) -> AsyncIterator[Api]:
    async with (
        running(folder, **sections) as program,
        aiohttp.ClientSession(program.admin_url) as session,
    ):
        each = Api(program, session)
        yield each
        await closed([client for clients in each.clients.values() for client in clients])


@contextlib.contextmanager
def hanging(program: Program, worker: int) -> Iterator[None]:
    with stopped(pid_of(program, worker)):
        yield


async def test_a_revoked_user_is_cut_off_in_every_worker(tmp_path: Path) -> None:
    async with api(tmp_path) as it:
        await it.join_both(sub="alice")
        revocation = await it.revoke(user="alice", reason="lost laptop")
        assert revocation["closed"] == it.count
        assert await it.ends() == {(4401, "token_revoked")}
        await it.refused_by(sub="alice")
        added = await it.program.until_logged("revocation_added")
        assert (added["closed"], added["revocation_id"]) == (it.count, revocation["id"])
        assert "worker" not in added
        found: Samples = await samples(it.program)
        assert found["ws_sidecar_revocations_active",] == 1
        assert found["ws_sidecar_revocations_total", "user"] == 1


async def test_a_worker_that_takes_anothers_place_knows_what_is_revoked(tmp_path: Path) -> None:
    async with api(tmp_path) as it:
        for number in range(250):
            await it.revoke(jti=f"t-{number}")
        for worker in (1, 2):
            it.program.kill(pid_of(it.program, worker))
        await it.program.until(lambda: len(it.program.logged("worker_started")) == 4, 60)
        for number in (0, 249):
            await it.refused_by(sub="alice", jti=f"t-{number}")
        await it.join_both(sub="alice", jti="other")
        assert (await samples(it.program))["ws_sidecar_revocations_active",] == 250


async def test_what_is_withdrawn_is_good_again_in_every_worker(tmp_path: Path) -> None:
    async with api(tmp_path) as it:
        revocation = await it.revoke(jti="t-1")
        await it.refused_by(sub="alice", jti="t-1")
        status, listed = await it.ask("GET", REVOCATIONS)
        assert (status, [each["id"] for each in listed["revocations"]]) == (200, [revocation["id"]])
        assert await it.ask("DELETE", f"{REVOCATIONS}/{revocation['id']}") == (204, None)
        assert (await it.ask("DELETE", f"{REVOCATIONS}/{revocation['id']}"))[0] == 404
        await it.join_both(sub="alice", jti="t-1")
        assert (await samples(it.program))["ws_sidecar_revocations_active",] == 0


async def test_connections_are_listed_over_all_workers(tmp_path: Path) -> None:
    async with api(tmp_path) as it:
        await it.join_both(sub="alice")
        await it.join_both(sub="bob")
        expected = {line["connection_id"] for line in it.program.logged("handshake")}
        found: list[str] = []
        query = {"limit": "2"}
        while True:
            status, page = await it.ask("GET", CONNECTIONS, params=query)
            assert status == 200
            assert len(page["connections"]) <= 2
            found += [each["id"] for each in page["connections"]]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        assert found == sorted(expected)
        _, bobs = await it.ask("GET", CONNECTIONS, params={"user": "bob"})
        assert {each["user"] for each in bobs["connections"]} == {"bob"}
        assert 2 <= len(bobs["connections"]) < it.count


async def test_a_connection_is_kicked_in_whatever_worker(tmp_path: Path) -> None:
    async with api(tmp_path) as it:
        await it.join_both()
        for line in it.program.logged("handshake"):
            path = f"{CONNECTIONS}/{line['connection_id']}"
            assert await it.ask("DELETE", path) == (204, None)
            assert (await it.ask("DELETE", path))[0] == 404
        assert await it.ends() == {(4403, "kicked")}
        await it.program.until(lambda: len(it.program.logged("kicked")) == it.count)


async def test_an_issuers_logout_ends_the_session_in_every_worker(tmp_path: Path) -> None:
    provider = {**PROVIDER, "issuer": ISSUER, "audience": ["chat"]}
    session = {"iss": ISSUER, "aud": "chat", "sid": "s-1"}
    async with api(tmp_path, jwt={"providers": {"app": provider}}) as it:
        await it.join_both(sub="alice", **session)
        claims = {
            **session,
            "iat": int(time.time()),
            "exp": int(time.time()) + 120,
            "jti": "l-1",
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        }
        form = {"logout_token": signed(claims, {"alg": "HS256", "typ": "logout+jwt"})}
        bad = {"logout_token": signed(claims, key="x" * 64)}
        answer = await it.ask("POST", "/backchannel-logout", data=bad)
        assert answer == (400, {"error": "invalid_request"})
        await it.refused_logout("app: the signature fits no key")
        assert await it.ask("POST", "/backchannel-logout", data=form) == (200, None)
        assert await it.ends() == {(4401, "token_revoked")}
        await it.refused_by(sub="alice", **session)
        assert (await it.ask("POST", "/backchannel-logout", data=form))[0] == 400
        await it.refused_logout("the logout token was used before")
        found = await samples(it.program)
        assert found["ws_sidecar_logout_tokens_total", "ok"] == 1
        assert found["ws_sidecar_logout_tokens_total", "token_invalid"] == 2


async def test_a_revocation_is_not_lost_upon_a_worker_that_hangs(tmp_path: Path) -> None:
    async with api(tmp_path) as it:
        await it.join_both(sub="alice")
        with hanging(it.program, 1):
            async with it.session.post(REVOCATIONS, json={"user": "alice"}) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
            (kept,) = (await it.ask("GET", REVOCATIONS))[1]["revocations"]
            assert (await it.ask("GET", CONNECTIONS))[0] == 503
            async with asyncio.timeout(20):
                await asyncio.gather(*(client.wait_closed() for client in it.clients[2]))
            await asyncio.gather(*(client.send("still here") for client in it.clients[1]))
        assert await it.ends() == {(4401, "token_revoked")}
        late = await it.program.until_logged("worker_caught_up", 60)
        assert (late["worker"], late["closed"]) == (1, len(it.clients[1]))
        await it.refused_by(sub="alice")
        again = await it.revoke(user="alice")
        assert (again["id"], again["closed"]) == (kept["id"], 0)


async def test_a_worker_that_is_leaving_is_reached_until_its_end(tmp_path: Path) -> None:
    drain = {"grace": "200h", "spread": "100h"}
    async with api(tmp_path, server={"drain": drain}) as it:
        await it.join(sub="alice")
        await it.join(sub="bob")
        status, _ = await it.ask("POST", "/drain")
        assert status == 202
        assert (await it.revoke(user="alice"))["closed"] == 1
        found = (await it.ask("GET", CONNECTIONS))[1]["connections"]
        assert [one["user"] for one in found] == ["bob"]


async def test_without_a_worker_what_is_asked_for_holds_for_the_next_ones(tmp_path: Path) -> None:
    async with api(tmp_path) as it:
        for worker in (1, 2):
            os.kill(pid_of(it.program, worker), signal.SIGKILL)
        assert (await it.revoke(user="alice"))["closed"] == 0
        await it.program.until(lambda: len(it.program.logged("worker_started")) == 4, 60)
        await it.refused_by(sub="alice")
