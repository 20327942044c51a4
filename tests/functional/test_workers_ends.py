"""How workers, and their parent, come to their end."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.functional.test_workers import BEARER, Samples, closed, echoes, opened, running, samples
from tests.support.clients import head, raw
from tests.support.programs import Program
from tests.support.sidecars import ENVIRON, policy_of, sidecar_process

# The processes choose their own loop; the test's makes no difference.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


@contextlib.asynccontextmanager
async def each_with_a_client(
    folder: Path, server: Mapping[str, Any] | None = None
) -> AsyncIterator[tuple[Program, dict[int, list[ClientConnection]]]]:
    """Two workers, and clients by the worker that has them: at least one each."""
    async with running(folder, server=server) as program:
        clients: dict[int, list[ClientConnection]] = {}
        while len(clients) < 2:
            before = len(program.logged("handshake"))
            (client,) = await opened(program, 1)
            await program.until(lambda before=before: len(program.logged("handshake")) > before)  # type: ignore[misc]
            worker = program.logged("handshake")[before]["worker"]
            clients.setdefault(worker, []).append(client)
        yield program, clients


def pid_of(program: Program, worker: int) -> int:
    """The process that has this number now."""
    lines = program.logged("worker_started")
    return int([line["pid"] for line in lines if line["worker"] == worker][-1])


def pids(program: Program) -> set[int]:
    return {int(line["pid"]) for line in program.logged("worker_started")}


async def until_gone(processes: set[int]) -> None:
    """Wait until none of them runs; one that only waits for its parent's attention has ended."""

    def lives(pid: int) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    async with asyncio.timeout(20):
        while any(map(lives, processes)):
            await asyncio.sleep(0.02)


async def codes(clients: list[ClientConnection]) -> set[int | None]:
    await asyncio.gather(*(client.wait_closed() for client in clients))
    return {client.close_code for client in clients}


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process does not run during the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


# A worker.


async def test_a_dead_worker_is_replaced_and_the_others_live(tmp_path: Path) -> None:
    async with each_with_a_client(tmp_path) as (program, clients):
        await samples(program)
        program.kill(pid_of(program, 1))
        assert await codes(clients[1]) == {1006}
        await asyncio.gather(*map(echoes, clients[2]))
        died = await program.until_logged("worker_died")
        assert (died["worker"], died["how"]) == (1, "signal SIGKILL")
        assert died["then"] == "another is started"
        await program.until(lambda: len(program.logged("worker_started")) == 3)
        assert (await program.ask("/readyz"))[0] == 200
        await closed(await opened(program, 10))
        found = await samples(program)
        assert found["ws_sidecar_worker_restarts_total",] == 1
        assert found["ws_sidecar_workers", "up"] == 2
        assert found["ws_sidecar_connections_open", "main"] == len(clients[2])
        await closed(clients[2])


async def test_counters_never_fall_when_a_worker_dies(tmp_path: Path) -> None:
    def counters(found: Samples) -> Samples:
        ends = ("_total", "_count", "_sum", "_bucket")
        return {key: value for key, value in found.items() if key[0].endswith(ends)}

    async with each_with_a_client(tmp_path) as (program, clients):
        before = counters(await samples(program))
        program.kill(pid_of(program, 2))
        await program.until_logged("worker_died")
        at_once = counters(await samples(program))
        await program.until(lambda: len(program.logged("worker_started")) == 3)
        after = counters(await samples(program))
        assert before.keys() <= at_once.keys() <= after.keys()
        assert all(before[key] <= at_once[key] <= after[key] for key in before)
        handshakes = ("ws_sidecar_handshakes_total", "allowed", "none", "main")
        assert before[handshakes] == after[handshakes] == sum(map(len, clients.values()))
        await closed(clients[1])


async def test_a_worker_that_is_told_to_end_drains_and_is_replaced(tmp_path: Path) -> None:
    async with each_with_a_client(tmp_path) as (program, clients):
        count = sum(map(len, clients.values()))
        os.kill(pid_of(program, 1), signal.SIGTERM)
        assert await codes(clients[1]) == {1012}
        await program.until(lambda: len(program.logged("worker_started")) == 3)
        ended = await program.until_logged("worker_ended")
        assert (ended["worker"], ended["how"]) == (1, "exit code 0")
        assert program.logged("worker_died") == []
        await asyncio.gather(*map(echoes, clients[2]))
        found = await samples(program)  # exact: it has told its last figures
        assert found["ws_sidecar_handshakes_total", "allowed", "none", "main"] == count
        closes = found["ws_sidecar_closes_total", "sidecar", "1012", "draining", "main"]
        assert closes == len(clients[1])
        await closed(clients[2])


async def test_a_draining_worker_does_not_hold_its_successor_up(tmp_path: Path) -> None:
    async with each_with_a_client(tmp_path, {"drain": {"grace": "1h"}}) as (program, clients):
        async with contextlib.AsyncExitStack() as stack:
            while True:  # a client that does not answer the close frame, on the first worker
                before = len(program.logged("handshake"))
                straggler = await stack.enter_async_context(raw(program.port))
                await straggler.send(head("/ws", f"Authorization: {BEARER['Authorization']}"))
                await straggler.response()
                await program.until(lambda: len(program.logged("handshake")) > before)  # noqa: B023
                if program.logged("handshake")[before]["worker"] == 1:
                    break
            os.kill(pid_of(program, 1), signal.SIGTERM)
            await program.until(lambda: len(program.logged("worker_started")) == 3)
            assert (await program.ask("/readyz"))[0] == 200
            await closed(await opened(program, 10))
        await closed(clients[2])


async def test_a_worker_that_hangs_holds_up_no_scrape(tmp_path: Path) -> None:
    async with each_with_a_client(tmp_path) as (program, clients):
        before = await samples(program)
        with stopped(pid_of(program, 1)):
            found = await samples(program)
            handshakes = ("ws_sidecar_handshakes_total", "allowed", "none", "main")
            assert found[handshakes] == before[handshakes]
            assert found["ws_sidecar_worker_silences_total",] >= 1
            status, body = await program.ask("/readyz")
            assert status == 503
            assert json.loads(body)["problems"] == {"worker 1": "does not answer"}
        assert (await program.ask("/readyz"))[0] == 200
        await closed([*clients[1], *clients[2]])


async def test_a_worker_that_cannot_start_again_is_tried_again(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(ENVIRON["JWT_SECRET"])
    provider = {"algorithms": ["HS256"], "secrets": [{"file": str(secret)}]}
    async with running(tmp_path, jwt={"providers": {"app": provider}}) as program:
        secret.rename(tmp_path / "moved")
        program.kill(pid_of(program, 1))
        failed = await program.until_logged("worker_not_started")
        assert failed["worker"] == 1
        assert str(secret) in failed["error"]
        assert (await program.ask("/readyz"))[0] == 200
        (tmp_path / "moved").rename(secret)
        await program.until(lambda: len(program.logged("worker_started")) == 3)
        await closed(await opened(program, 10))


# The program.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_parent_drains_all_together(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with each_with_a_client(tmp_path, {"drain": {"grace": "30s"}}) as (program, clients):
        workers = pids(program)
        program.process.process.send_signal(number)
        assert await codes([*clients[1], *clients[2]]) == {1012}
        assert await program.process.ended() == 0
        assert sorted(line["worker"] for line in program.logged("drained")) == [1, 2]
        assert len(program.logged("stopped")) == 1
        assert program.logged("worker_died") == []
        await until_gone(workers)


async def test_a_signal_to_the_whole_group_is_a_signal_to_the_parent(tmp_path: Path) -> None:
    async with each_with_a_client(tmp_path) as (program, clients):
        for pid in pids(program):
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGHUP)
        await asyncio.gather(*map(echoes, clients[1] + clients[2]))
        program.process.process.send_signal(signal.SIGINT)
        assert await codes([*clients[1], *clients[2]]) == {1012}
        assert await program.process.ended() == 0


async def test_a_signal_hurries_the_drain_that_the_endpoint_has_begun_in_all(
    tmp_path: Path,
) -> None:
    drain = {"drain": {"grace": "200h", "spread": "100h"}}
    async with each_with_a_client(tmp_path, drain) as (program, clients):
        assert (await program.ask("/drain", "POST"))[0] == 202
        await program.until(lambda: len(program.logged("draining")) == 2)
        status, body = await program.ask("/readyz")
        assert (status, json.loads(body)["problems"]) == (503, {"server": "draining"})
        async with raw(program.port) as late:
            await late.send(head("/ws", f"Authorization: {BEARER['Authorization']}"))
            assert (await late.refusal())["reason"] == "draining"
        await asyncio.gather(*map(echoes, [*clients[1], *clients[2]]))
        program.kill(pid_of(program, 1))  # nobody needs another one any more
        died = await program.until_logged("worker_died")
        assert died["then"] == "no other is started in the drain"
        program.process.process.terminate()
        assert await codes(clients[2]) == {1012}
        assert await program.process.ended() == 0
        assert len(program.logged("worker_started")) == 2


async def test_a_worker_that_does_not_end_is_ended_by_force(tmp_path: Path) -> None:
    async with running(tmp_path, server={"drain": {"grace": "0s"}}) as program:
        with stopped(pid_of(program, 1)):
            program.process.process.terminate()
            assert await program.process.ended() == 0
        assert program.logged("worker_not_drained")[0]["worker"] == 1
        await until_gone(pids(program))


async def test_no_worker_outlives_its_parent(tmp_path: Path) -> None:
    async with each_with_a_client(tmp_path) as (program, clients):
        program.process.process.kill()
        assert await codes([*clients[1], *clients[2]]) == {1012}
        await until_gone(pids(program))
        with pytest.raises(ConnectionError):
            await connect(program.url)


async def test_a_hangup_is_answered_once(tmp_path: Path) -> None:
    async with running(tmp_path) as program:
        program.process.process.send_signal(signal.SIGHUP)
        await program.until_logged("policy_reloaded")
        program.process.process.terminate()
        assert await program.process.ended() == 0
        assert len(program.logged("policy_reloaded")) == 1


# The start.


async def failed_start(folder: Path, policy: str) -> str:
    """What is said of a start in vain, in which no worker took a connection."""
    path = folder / "policy.yaml"
    path.write_text(policy)
    async with sidecar_process("serve", "--config", str(path)) as process:
        assert await process.ended() == 1
    lines = [json.loads(line) for line in process.output.splitlines()]
    assert "Traceback" not in process.output
    assert not any(line["event"].startswith("worker_") for line in lines)
    (error,) = [str(line["error"]) for line in lines if line["event"] == "start_failed"]
    return error


@pytest.mark.parametrize("section", ["server", "admin"])
async def test_a_port_in_use_ends_with_a_clear_line(tmp_path: Path, section: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        listen: Any = [address] if section == "server" else address
        sections: dict[str, Any] = {section: {"listen": listen}}
        sections["server"] = {**sections.get("server", {}), "workers": 2}
        error = await failed_start(tmp_path, policy_of("ws://127.0.0.1:1", **sections))
    remedy = "end the program that does, or choose another port"
    assert (
        error == f"{section}.listen: cannot listen on {address}: Address already in use; {remedy}"
    )


async def test_a_second_program_does_not_share_the_first_ones_port(tmp_path: Path) -> None:
    async with running(tmp_path) as program:
        (tmp_path / "second").mkdir()
        server = {"workers": 2, "listen": [f"127.0.0.1:{program.port}"]}
        policy = policy_of("ws://127.0.0.1:1", server=server)
        assert "Address already in use" in await failed_start(tmp_path / "second", policy)
        await closed(await opened(program, 5))


async def test_what_a_worker_cannot_do_ends_the_start_with_its_words(tmp_path: Path) -> None:
    file = str(tmp_path / "no" / "such" / "folder")
    policy = policy_of("ws://127.0.0.1:1", server={"workers": 2}, logging={"audit": {"file": file}})
    assert "logging.audit.file" in await failed_start(tmp_path, policy)


async def test_it_starts_from_a_folder_with_files_of_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("sidecar", "structlog"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent.parent))
    monkeypatch.chdir(tmp_path)
    async with running(tmp_path) as program:
        await closed(await opened(program, 3))
