"""Several worker processes on one address, seen from outside: one program."""

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from websockets.asyncio.client import ClientConnection, connect, unix_connect

from tests.support.certificates import authority
from tests.support.clients import head, raw
from tests.support.programs import Program, serving
from tests.support.sidecars import ENVIRON, policy_of
from tests.support.tokens import token
from tests.support.upstreams import websocket_server

# The processes choose their own loop; the test's makes no difference.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

BEARER = {"Authorization": "Bearer " + token()}
Samples = dict[tuple[str, ...], float]

PARSERS: Mapping[str, Callable[[str], Any]] = {
    "text/plain": parse_text,
    "application/openmetrics-text": parse_openmetrics,
}


@contextlib.asynccontextmanager
async def running(
    folder: Path, *, workers: int = 2, server: Mapping[str, Any] | None = None, **sections: Any
) -> AsyncIterator[Program]:
    """The program with so many workers, before a real server. It ends well with the block."""
    async with websocket_server() as url:
        policy = policy_of(url, server={"workers": workers, **(server or {})}, **sections)
        async with serving(policy, folder) as program:
            yield program
            if program.process.process.returncode is None:
                program.process.process.terminate()
                assert await program.process.ended() == 0


async def echoes(client: ClientConnection) -> None:
    await client.send("hello")
    assert await client.recv() == "hello"


async def opened(program: Program, count: int) -> list[ClientConnection]:
    """So many connections that work, each from a port of its own."""
    clients = [await connect(program.url, additional_headers=BEARER) for _ in range(count)]
    await asyncio.gather(*map(echoes, clients))
    return clients


async def closed(clients: list[ClientConnection]) -> None:
    await asyncio.gather(*(client.close() for client in clients))


def workers_of(program: Program, event: str = "handshake") -> set[int]:
    return {line["worker"] for line in program.logged(event)}


async def samples(program: Program, accept: str = "text/plain") -> Samples:
    """The metrics, by name and label values in the order of the labels' names."""
    status, text = await program.ask("/metrics", headers={"Accept": accept})
    assert status == 200
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in PARSERS[accept](text)
        for sample in family.samples
    }


async def test_connections_are_spread_over_the_workers(tmp_path: Path) -> None:
    async with running(tmp_path, workers=3) as program:
        clients = []
        while len(workers_of(program)) < 3:  # the kernel chooses
            clients += await opened(program, 10)
            assert len(clients) < 500
        await asyncio.gather(*map(echoes, clients))
        await closed(clients)


@pytest.mark.parametrize("accept", PARSERS)
async def test_the_metrics_are_the_sums_of_what_was_done(tmp_path: Path, accept: str) -> None:
    async with running(tmp_path, workers=3, server={"max_connections": 100}) as program:
        clients = await opened(program, 40)
        for _ in range(10):
            async with raw(program.port) as stranger:
                await stranger.send(head("/ws"))
                await stranger.refusal()
        found = await samples(program, accept)
        name = "ws_sidecar_handshakes_total"
        assert found[name, "allowed", "none", "main"] == 40
        assert found[name, "refused", "token_missing", "main"] == 10
        assert found["ws_sidecar_handshake_seconds_count", "allowed"] == 40
        assert found["ws_sidecar_messages_total", "client", "main"] == 40
        assert found["ws_sidecar_connections_open", "main"] == 40
        assert found["ws_sidecar_max_connections",] == 100
        assert found["ws_sidecar_provider_ready", "app"] == 1
        assert found["ws_sidecar_workers", "wanted"] == 3
        assert found["ws_sidecar_workers", "up"] == 3
        assert found["ws_sidecar_worker_restarts_total",] == 0
        assert found["ws_sidecar_worker_silences_total",] == 0
        assert sum(key[0] == "ws_sidecar_build_info" for key in found) == 1
        await closed(clients)


async def test_connections_are_limited_by_each_workers_share(tmp_path: Path) -> None:
    async with running(tmp_path, server={"max_connections": 2}) as program:
        refused = 0
        async with contextlib.AsyncExitStack() as stack:
            while not (refused and len(workers_of(program)) == 2):
                client = await stack.enter_async_context(raw(program.port))
                await client.send(head("/ws", f"Authorization: {BEARER['Authorization']}"))
                answer = await client.response()
                refused += answer.startswith(b"HTTP/1.1 503 ")
            found = await samples(program)
        assert found["ws_sidecar_connections_open", "main"] <= 2


async def test_one_program_is_ready_and_started_once(tmp_path: Path) -> None:
    async with running(tmp_path) as program:
        assert (await program.ask("/readyz"))[0] == 200
        (started,) = program.logged("started")
        assert started["workers"] == 2
        assert sorted(line["worker"] for line in program.logged("worker_started")) == [1, 2]
        assert len(program.logged("policy_warning")) == 1


async def test_a_problem_of_the_workers_is_the_programs(tmp_path: Path) -> None:
    health = {"url": "ws://127.0.0.1:1", "health": {"path": "/healthz", "interval": "1h"}}
    async with running(tmp_path, upstreams={"main": health}) as program:
        await program.until_logged("upstream_unhealthy")
        status, body = await program.ask("/readyz")
        assert status == 503
        assert list(json.loads(body)["problems"]) == ["upstream main"]


async def test_a_user_has_one_pseudonym_in_all_workers(tmp_path: Path) -> None:
    async with running(tmp_path) as program:
        clients = []
        while len(workers_of(program)) < 2:
            clients += await opened(program, 10)
        assert len({line["user"] for line in program.logged("handshake")}) == 1
        await closed(clients)


async def test_the_policy_is_the_one_that_was_read_at_the_start(tmp_path: Path) -> None:
    async with running(tmp_path) as program:
        (tmp_path / "policy.yaml").write_text("nonsense: [")
        first = program.logged("worker_started")[0]
        program.kill(first["pid"])
        await program.until(lambda: len(program.logged("worker_started")) == 3)
        await closed(await opened(program, 10))


async def test_they_share_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    async with running(
        tmp_path,
        server={"listen": [f"unix:{path}"]},
        route={"origins": {"allow": ["http://localhost"], "missing": "allow"}},
    ) as program:
        assert program.listen == [f"unix:{path}"]
        clients = []
        while len(workers_of(program)) < 2:
            clients.append(
                await unix_connect(str(path), "ws://localhost/ws", additional_headers=BEARER)
            )
            await echoes(clients[-1])
            assert len(clients) < 1000
        await closed(clients)
        program.process.process.terminate()
        assert await program.process.ended() == 0
    assert not path.exists()


async def test_tls_and_the_proxy_protocol_come_before_each_of_them(tmp_path: Path) -> None:
    made = authority(tmp_path)
    certificate, key = made.issue("127.0.0.1")
    server = {
        "tls": {"certificate": str(certificate), "key": str(key)},
        "proxy_protocol": True,
        "trusted_proxies": ["127.0.0.0/8"],
    }
    trusting = ssl.create_default_context(cafile=str(made.ca))
    async with running(tmp_path, server=server) as program:
        while len(workers_of(program)) < 2:
            sock = socket.create_connection(("127.0.0.1", program.port))
            sock.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n")
            address = f"wss://127.0.0.1:{program.port}"
            async with connect(
                address, sock=sock, ssl=trusting, additional_headers=BEARER
            ) as client:
                await echoes(client)
        assert {line["address"] for line in program.logged("handshake")} == {"192.0.2.7"}


async def test_they_write_one_audit_file_that_may_be_rotated(tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    async with running(tmp_path, logging={"audit": {"file": str(audit)}}) as program:

        def lines() -> list[dict[str, Any]]:
            return [json.loads(line) for line in audit.read_text().splitlines()]

        async def until_both_wrote() -> None:
            while {line["worker"] for line in lines() if line["event"] == "handshake"} != {1, 2}:
                await closed(await opened(program, 10))

        await until_both_wrote()
        audit.rename(tmp_path / "audit.1")
        audit.touch()
        await until_both_wrote()
    moved = [json.loads(line) for line in (tmp_path / "audit.1").read_text().splitlines()]
    assert {line["worker"] for line in moved} == {1, 2}


async def test_auto_is_what_this_machine_gives(tmp_path: Path) -> None:
    async with websocket_server() as url:
        policy = policy_of(url, server={"workers": "auto"})
        async with serving(policy, tmp_path, ENVIRON) as program:
            await closed(await opened(program, 5))
            assert (await program.ask("/readyz"))[0] == 200
