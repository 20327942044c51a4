"""Another policy for several workers: all take it, or none."""

import asyncio
import contextlib
import json
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.functional.test_workers import Samples, closed, echoes, samples
from tests.functional.test_workers_ends import pid_of
from tests.support.programs import Program, serving
from tests.support.sidecars import ENVIRON as JWT_SECRET
from tests.support.sidecars import policy_of
from tests.support.tokens import token
from tests.support.upstreams import websocket_server

# The processes choose their own loop; the test's makes no difference.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

TOKEN = "a-token-of-the-admin-listener-0123"
ENVIRON = {**JWT_SECRET, "ADMIN_TOKEN": TOKEN}
BEARER = {"Authorization": "Bearer " + token()}


def routes(*names: str) -> list[dict[str, Any]]:
    """A route for each name, at its path."""
    return [
        {"name": name, "match": {"path": f"/{name}"}, "origins": {"missing": "allow"}}
        for name in names
    ]


class Files:
    """A program of two workers and the file of its policy, before a real server."""

    def __init__(self, program: Program, url: str, path: Path) -> None:
        self.program = program
        self.url = url
        self.path = path

    async def reload(self, *names: str, **sections: Any) -> None:
        """Put a policy with these routes in force."""
        self.path.write_text(two_workers(self.url, *names, **sections))
        count = len(self.program.logged("policy_reloaded"))
        self.program.process.process.send_signal(signal.SIGHUP)
        await self.program.until(lambda: len(self.program.logged("policy_reloaded")) > count, 60)

    async def join(self, path: str) -> tuple[int, ClientConnection]:
        """Open a connection that works; the worker that has it."""
        before = len(self.program.logged("handshake"))
        client = await connect(self.program.url + path, additional_headers=BEARER)
        await echoes(client)
        await self.program.until(lambda: len(self.program.logged("handshake")) > before)
        return int(self.program.logged("handshake")[before]["worker"]), client

    async def join_both(self, path: str) -> list[ClientConnection]:
        """Open connections until each worker has one."""
        clients, reached = list[ClientConnection](), set[int]()
        while reached != {1, 2}:  # the kernel chooses
            worker, client = await self.join(path)
            reached.add(worker)
            clients.append(client)
        return clients

    async def refused_by_both(self, path: str, status: int) -> None:
        """Try until each worker has refused; none lets the client in."""
        before = len(self.program.logged("handshake"))
        while {line["worker"] for line in self.program.logged("handshake")[before:]} != {1, 2}:
            with pytest.raises(InvalidStatus) as refused:
                await connect(self.program.url + path, additional_headers=BEARER)
            assert refused.value.response.status_code == status


def two_workers(url: str, *names: str, **sections: Any) -> str:
    server = {"workers": 2, **sections.pop("server", {})}
    return policy_of(url, routes=routes(*names), server=server, **sections)


@contextlib.asynccontextmanager
async def running(folder: Path, *names: str, **sections: Any) -> AsyncIterator[Files]:
    async with (
        websocket_server() as url,
        serving(two_workers(url, *names, **sections), folder, ENVIRON) as program,
    ):
        yield Files(program, url, folder / "policy.yaml")
        program.process.process.terminate()
        assert await program.process.ended() == 0


async def ends(clients: list[ClientConnection]) -> set[tuple[int | None, str | None]]:
    async with asyncio.timeout(20):
        await asyncio.gather(*(client.wait_closed() for client in clients))
    return {(client.close_code, client.close_reason) for client in clients}


async def test_a_route_that_is_gone_is_gone_in_every_worker(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as it:
        gone, stay = await it.join_both("/a"), await it.join_both("/b")
        await it.reload("b", "c")
        assert await ends(gone) == {(4404, "no_route")}
        await asyncio.gather(*map(echoes, stay))
        await it.refused_by_both("/a", 404)
        await closed([*stay, *await it.join_both("/c")])
        found: Samples = await samples(it.program)
        assert found["ws_sidecar_policy_reloads_total", "ok"] == 1
        assert found["ws_sidecar_policy_last_reload_successful",] == 1
        assert len(it.program.logged("worker_started")) == 2
        live = len(gone) + len(stay)
        assert it.program.logged("policy_reloaded")[0]["connections"] == live
        settled = it.program.logged("policy_settled")
        assert sorted(line["worker"] for line in settled) == [1, 2]
        assert sum(line["judged"] for line in settled) == live
        assert sum(line["ended"] for line in settled) == len(gone)


async def test_a_worker_that_takes_anothers_place_goes_by_the_new_policy(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as it:
        await it.reload("b")
        for worker in (1, 2):
            it.program.kill(pid_of(it.program, worker))
        await it.program.until(lambda: len(it.program.logged("worker_started")) == 4, 60)
        await it.refused_by_both("/a", 404)
        await closed(await it.join_both("/b"))


async def test_a_broken_policy_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as it:
        clients = await it.join_both("/a")
        it.path.write_text("routes: [")
        failed = await it.program.until_logged("policy_reload_failed", 60)
        assert failed["level"] == "error"
        await asyncio.gather(*map(echoes, clients))
        await closed([*clients, *await it.join_both("/a")])
        found: Samples = await samples(it.program)
        assert found["ws_sidecar_policy_reloads_total", "error"] == 1
        assert found["ws_sidecar_policy_last_reload_successful",] == 0


async def test_what_one_worker_cannot_take_no_worker_takes(tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    async with running(tmp_path, "a") as it:
        clients = await it.join_both("/a")
        pid = pid_of(it.program, 1)
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))  # it can open nothing more
        it.path.write_text(two_workers(it.url, "b", logging={"audit": {"file": str(log)}}))
        failed = await it.program.until_logged("policy_reload_failed", 60)
        assert failed["error"].startswith("worker 1: ")
        assert "Too many open files" in failed["error"]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        await asyncio.gather(*map(echoes, clients))
        await closed([*clients, *await it.join_both("/a")])
        assert log.read_text() == ""
        await it.reload("b")
        await it.refused_by_both("/a", 404)


async def test_the_admin_listener_follows_and_what_is_revoked_stays(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as it:
        async with (
            aiohttp.ClientSession(it.program.admin_url) as admin,
            admin.post("/api/revocations", json={"jti": "t-1"}) as answer,
        ):
            assert answer.status == 201
        log = tmp_path / "audit.jsonl"
        admin_section = {"listen": "127.0.0.1:0", "token": {"env": "ADMIN_TOKEN"}}
        await it.reload("b", admin=admin_section, logging={"audit": {"file": str(log)}})
        assert (await it.program.ask("/api/revocations"))[0] == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        status, body = await it.program.ask("/api/revocations", headers=bearer)
        assert status == 200
        (kept,) = json.loads(body)["revocations"]
        assert kept["value"] == "t-1"
        path = f"/api/revocations/{kept['id']}"
        assert (await it.program.ask(path, "DELETE", bearer))[0] == 204
        (line,) = [json.loads(each) for each in log.read_text().splitlines()]
        assert line["event"] == "revocation_withdrawn"


async def test_workers_keep_the_addresses_that_they_were_started_with(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as it:
        await it.reload("b", server={"listen": ["127.0.0.1:0", "127.0.0.2:0"]})
        needed = await it.program.until_logged("restart_needed")
        assert needed["key"] == "server.listen"
        await closed(await it.join_both("/b"))
