"""The program told from outside to do something: SIGHUP, and a drain by the admin listener."""

import asyncio
import signal
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.support.clients import head, raw
from tests.support.programs import Program, serving
from tests.support.sidecars import policy_of
from tests.support.tokens import token
from tests.support.upstreams import websocket_server

# The process chooses its own loop; the test's makes no difference.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

BEARER = {"Authorization": "Bearer " + token()}


async def ended_at_once(program: Program) -> None:
    """SIGTERM must end it with 0, long before any grace is over."""
    program.process.process.send_signal(signal.SIGTERM)
    assert await program.process.ended(timeout=10) == 0
    assert len(program.logged("draining")) == 1
    assert len(program.logged("drained")) == 1


async def test_a_hangup_has_the_policy_read_again_and_nothing_ends(tmp_path: Path) -> None:
    async with (
        websocket_server() as url,
        serving(policy_of(url), tmp_path) as program,
        connect(program.url, additional_headers=BEARER) as client,
    ):
        for count in (1, 2):
            program.process.process.send_signal(signal.SIGHUP)
            async with asyncio.timeout(20):
                while len(program.logged("policy_reloaded")) < count:
                    await asyncio.sleep(0.02)
        assert 'policy_reloads_total{outcome="ok"} 2.0' in (await program.ask("/metrics"))[1]
        await client.send("hello")
        assert await client.recv() == "hello"
        assert (await program.ask("/readyz"))[0] == 200
        await client.close()
        await ended_at_once(program)


async def test_a_policy_that_changes_is_taken_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    async with (
        websocket_server() as url,
        serving(policy_of(url), tmp_path) as program,
        connect(program.url, additional_headers=BEARER) as client,
    ):
        path.write_text("routes: [")
        await program.until_logged("policy_reload_failed")
        assert f"{path}:2:1: is not valid YAML" in program.logged("policy_problem")[0]["problem"]
        await client.send("hello")
        assert await client.recv() == "hello"
        path.write_text(policy_of(url, route={"match": {"path": "/elsewhere"}}))
        await program.until_logged("policy_reloaded")
        await client.wait_closed()
        assert (client.close_code, client.close_reason) == (4404, "no_route")
        assert program.logged("policy_reloaded")[-1]["connections"] == 1
        settled = await program.until_logged("policy_settled")
        assert (settled["judged"], settled["ended"]) == (1, 1)
        metrics = (await program.ask("/metrics"))[1]
        assert "ws_sidecar_policy_last_reload_successful 1.0" in metrics
        await ended_at_once(program)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_drain_by_the_endpoint_ends_the_program_after_the_last_connection(
    tmp_path: Path, workers: int
) -> None:
    async with websocket_server() as url:
        server = {"workers": workers, "drain": {"grace": "1h", "spread": "0s"}}
        async with (
            serving(policy_of(url, server=server), tmp_path) as program,
            connect(program.url, additional_headers=BEARER) as client,
        ):
            assert (await program.ask("/drain", "POST"))[0] == 202
            await client.wait_closed()
            assert (client.close_code, client.close_reason) == (1012, "draining")
            assert await program.process.ended() == 0
            assert [line["cut_off"] for line in program.logged("drained")] == [0] * workers
            assert len(program.logged("stopped")) == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_drain_by_the_endpoint_is_answered_where_there_is_nobody_to_drain(
    tmp_path: Path, workers: int
) -> None:
    policy = policy_of("ws://127.0.0.1:1", server={"workers": workers})
    async with serving(policy, tmp_path) as program:
        assert await program.ask("/drain", "POST") == (202, '{"status": "draining"}')
        assert await program.process.ended() == 0
        assert len(program.logged("stopped")) == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_drain_by_the_endpoint_cuts_stragglers_off_at_the_grace(
    tmp_path: Path, workers: int
) -> None:
    async with websocket_server() as url:
        server = {"workers": workers, "drain": {"grace": "300ms"}}
        async with (
            serving(policy_of(url, server=server), tmp_path) as program,
            raw(program.port) as straggler,
        ):
            await straggler.send(head("/ws", f"Authorization: {BEARER['Authorization']}"))
            await straggler.response()
            assert (await program.ask("/drain", "POST"))[0] == 202
            assert await straggler.rest() == b"\x88\x0a\x03\xf4draining"
            assert await program.process.ended() == 0
            assert sum(line["cut_off"] for line in program.logged("drained")) == 1
            (closure,) = program.logged("connection_closed")
            assert (closure["code"], closure["reason"]) == (1012, "draining")
            assert closure["detail"] == "cut off at the end of the grace"
