"""The parent in the test's own process, with real workers."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sidecar.config.source import Loaded
from sidecar.errors import ConfigError, WorkerError
from sidecar.workers import process
from sidecar.workers import supervisor as module
from sidecar.workers.channel import Body
from sidecar.workers.orders import Orders
from sidecar.workers.process import WorkerProcess
from sidecar.workers.supervisor import Supervisor
from tests.support.clients import head, raw
from tests.support.sidecars import ENVIRON

Load = Callable[..., Loaded]


@contextlib.asynccontextmanager
async def supervising(loaded: Loaded) -> AsyncIterator[Supervisor]:
    """Two workers and their parent."""
    supervisor = Supervisor(loaded, ENVIRON, 2)
    try:
        await supervisor.start()
        yield supervisor
    finally:
        await supervisor.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def kill(supervisor: Supervisor, number: int) -> None:
    os.kill(supervisor._up[number].pid, signal.SIGKILL)


def refusals(exposition: bytes) -> float:
    lines = exposition.decode().splitlines()
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("ws_sidecar_handshakes_total{")
    )


async def test_what_workers_count_is_noted_now_and_then(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TICK", 0.05)
    async with supervising(load()) as supervisor:
        for _ in range(10):
            async with raw(supervisor.public[0].port) as client:
                await client.send(head("/ws"))
                await client.refusal()
        await until(lambda: refusals(supervisor._figures.render("")[0]) == 10)
        killed = set(supervisor._processes)
        for number in (1, 2):
            kill(supervisor, number)
        await until(lambda: not killed & supervisor._processes)
        body, _ = await supervisor.metrics("")
        assert refusals(body) == 10


async def test_nobody_listens_before_all_could(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, listen = WorkerProcess.prepare, WorkerProcess.listen
    supervisor = Supervisor(load(), ENVIRON, 2)
    prepared: list[int] = []
    found: list[object] = []
    connected = asyncio.Event()

    async def note(worker: WorkerProcess, orders: Orders) -> None:
        await prepare(worker, orders)
        prepared.append(worker.number)

    async def look_and_listen(worker: WorkerProcess) -> None:
        if worker.number == 1:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", supervisor.public[0].port)
            found.extend([sorted(prepared), supervisor.admin is not None])
            found.append(await supervisor.readiness())
            connected.set()
        await connected.wait()
        await listen(worker)

    monkeypatch.setattr(WorkerProcess, "prepare", note)
    monkeypatch.setattr(WorkerProcess, "listen", look_and_listen)
    await supervisor.start()
    await supervisor.close()
    assert found == [[1, 2], True, {"workers": "none is up"}]


async def test_a_worker_that_cannot_listen_ends_the_start(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(worker: WorkerProcess) -> None:
        raise WorkerError(f"worker {worker.number} cannot listen")

    monkeypatch.setattr(WorkerProcess, "listen", fail)
    supervisor = Supervisor(load(), ENVIRON, 2)
    with pytest.raises(WorkerError, match="worker 1 cannot listen"):
        await supervisor.start()
    await supervisor.close()
    assert supervisor._processes == set()


async def test_a_worker_that_hangs_for_long_is_replaced(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TICK", 0.05)
    monkeypatch.setattr(module, "_HUNG", 5.0)
    monkeypatch.setattr(process, "_ANSWER_TIMEOUT", 0.5)
    async with supervising(load()) as supervisor:
        hanging, other = supervisor._up[1], supervisor._up[2]
        os.kill(hanging.pid, signal.SIGSTOP)
        await until(lambda: hanging not in supervisor._processes)
        await until(lambda: len(supervisor._up) == 2)
        assert supervisor._up[1] is not hanging
        assert supervisor._up[2] is other


async def test_a_drain_reaches_a_worker_that_is_about_to_start(load: Load) -> None:
    async with supervising(load()) as supervisor:
        kill(supervisor, 1)
        await until(lambda: any(not one.started for one in supervisor._processes))
        supervisor.drain()
        await until(lambda: len(supervisor._up) == 2)
        await supervisor.drained()
        assert await supervisor.readiness() == {"server": "draining"}


def limit(supervisor: Supervisor) -> float:
    """The limit of connections that the metrics tell."""
    text = supervisor._figures.render("")[0].decode()
    line = next(one for one in text.splitlines() if one.startswith("ws_sidecar_max_connections "))
    return float(line.rpartition(" ")[2])


async def test_another_policy_is_in_force_in_all_processes(load: Load) -> None:
    async with supervising(load(server={"max_connections": 10})) as supervisor:
        await supervisor.reload(load(server={"max_connections": 20}))
        supervisor.note_reload(True)
        assert limit(supervisor) == 20
        kill(supervisor, 1)
        await until(lambda: len(supervisor._up) == 1)
        await until(lambda: len(supervisor._up) == 2)
        assert await supervisor.readiness() == {}


async def test_a_policy_that_a_worker_cannot_take_is_in_force_nowhere(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, asked = WorkerProcess.ask, []

    async def refuse(worker: WorkerProcess, verb: str, body: Body, within: float) -> Body:
        if verb.startswith("reload_"):
            asked.append((worker.number, verb))
        if (worker.number, verb) == (2, "reload_prepare"):
            raise WorkerError("no room")
        return await ask(worker, verb, body, within)

    async with supervising(load(server={"max_connections": 10})) as supervisor:
        before = supervisor._documents
        monkeypatch.setattr(WorkerProcess, "ask", refuse)
        with pytest.raises(WorkerError, match=r"^worker 2: no room$"):
            await supervisor.reload(load(server={"max_connections": 20}))
        assert supervisor._documents == before
        assert limit(supervisor) == 10
        assert sorted(asked) == [
            (1, "reload_discard"),
            (1, "reload_prepare"),
            (2, "reload_discard"),
            (2, "reload_prepare"),
        ]
        monkeypatch.undo()


async def test_a_worker_starts_before_or_after_a_change_and_not_within(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, before = WorkerProcess.prepare, load(server={"max_connections": 10})
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def wait_and_prepare(worker: WorkerProcess, orders: Orders) -> None:
        begun.set()
        await goes_on.wait()
        assert orders.documents == before.documents
        await prepare(worker, orders)

    async with supervising(before) as supervisor:
        monkeypatch.setattr(WorkerProcess, "prepare", wait_and_prepare)
        kill(supervisor, 1)
        await begun.wait()
        changing = asyncio.create_task(supervisor.reload(load(server={"max_connections": 20})))
        await asyncio.sleep(0)
        goes_on.set()
        await changing
        assert len(supervisor._up) == 2
        assert limit(supervisor) == 20


async def test_the_end_waits_for_no_worker_that_has_not_started(load: Load) -> None:
    async with supervising(load()) as supervisor:
        kill(supervisor, 1)
        await until(lambda: any(not one.started for one in supervisor._processes))
    assert supervisor._processes == set()


async def test_the_end_waits_for_a_process_that_is_just_begun(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, begun = WorkerProcess.spawn, asyncio.Event()

    async def tell_and_spawn(*arguments: Any) -> WorkerProcess:
        begun.set()
        return await spawn(*arguments)

    async with supervising(load()) as supervisor:
        monkeypatch.setattr(WorkerProcess, "spawn", tell_and_spawn)
        kill(supervisor, 1)
        await begun.wait()
    assert supervisor._processes == set()


async def test_a_worker_that_does_not_end_is_ended_by_force(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MARGIN", 0.1)
    monkeypatch.setattr(process, "_ANSWER_TIMEOUT", 0.1)
    async with supervising(load()) as supervisor:
        os.kill(supervisor._up[1].pid, signal.SIGSTOP)
    assert supervisor._processes == set()


async def test_without_any_worker_it_is_not_ready(load: Load) -> None:
    supervisor = Supervisor(load(), ENVIRON, 2)
    assert await supervisor.readiness() == {"workers": "none is up"}
    await supervisor.close()


async def test_without_an_admin_listener_it_has_no_address_for_it(load: Load) -> None:
    sections: dict[str, Any] = {"admin": None}
    async with supervising(load(**sections)) as supervisor:
        assert supervisor.admin is None
        assert supervisor.public[0].port > 0


def test_a_short_key_of_pseudonyms_is_refused(load: Load) -> None:
    with pytest.raises(ConfigError, match="WS_SIDECAR_HASH_KEY"):
        Supervisor(load(), {"WS_SIDECAR_HASH_KEY": "short"}, 2)
