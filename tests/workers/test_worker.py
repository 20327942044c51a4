"""A worker in the test's own process, with the test as its parent."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import WorkerError
from sidecar.observe.families import Families
from sidecar.policy.compiled import Address
from sidecar.proxy.app import Sidecar
from sidecar.workers.channel import Body, Channel
from sidecar.workers.ports import Ports
from sidecar.workers.worker import _Worker
from tests.workers.conftest import MakeOrders

WITHIN = 20.0


class Parent:
    """What a worker says to its parent, and the channel to ask it."""

    def __init__(self) -> None:
        self.channel: Channel
        self.work: asyncio.Task[int]
        self.told: list[str] = []
        self.last: Families | None = None

    async def leaving(self, _: Body) -> Body:
        self.told.append("leaving")
        return {}

    async def ended(self, body: Body) -> Body:
        self.told.append("ended")
        self.last = Families.from_json(body["families"])
        return {}

    async def ask(self, verb: str, body: Body | None = None) -> Body:
        return await self.channel.ask(verb, body or {}, within=WITHIN)

    async def code(self) -> int:
        async with asyncio.timeout(WITHIN):
            return await self.work


@contextlib.asynccontextmanager
async def working() -> AsyncIterator[Parent]:
    """A worker that has not been told to start."""
    ours, theirs = socket.socketpair()
    parent = Parent()
    verbs = {"leaving": parent.leaving, "ended": parent.ended}
    parent.channel = await Channel.open(ours, verbs)
    parent.work = asyncio.create_task(_Worker(7).run(theirs))
    try:
        yield parent
    finally:
        await parent.channel.close()
        await parent.code()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_it_tells_of_itself_and_ends_when_asked_to(orders: MakeOrders) -> None:
    async with working() as parent:
        await parent.ask("start", orders(server={"max_connections": 9}).to_json())
        families = Families.from_json((await parent.ask("metrics"))["families"])
        limit = families.by_name["ws_sidecar_max_connections"].samples
        assert list(limit.values()) == [5]
        assert await parent.ask("readiness") == {"problems": {}}
        await parent.ask("stop")
        assert await parent.code() == 0
    assert parent.told == ["ended"]
    assert parent.last is not None
    assert parent.last.by_name.keys() == families.by_name.keys()


async def test_a_drain_is_answered_when_it_is_over(orders: MakeOrders) -> None:
    async with working() as parent:
        await parent.ask("start", orders().to_json())
        await parent.ask("drain")
        assert await parent.ask("readiness") == {"problems": {"server": "draining"}}
        assert not parent.work.done()


async def test_a_signal_lets_it_leave_and_end(orders: MakeOrders) -> None:
    async with working() as parent:
        await parent.ask("start", orders().to_json())
        os.kill(os.getpid(), signal.SIGTERM)
        assert await parent.code() == 0
    assert parent.told == ["leaving", "ended"]


async def test_without_its_parent_it_ends(orders: MakeOrders) -> None:
    async with working() as parent:
        await parent.ask("start", orders().to_json())
        await parent.channel.close()
        assert await parent.code() == 0
    assert parent.told == []


async def test_what_it_cannot_do_is_told_in_its_own_words(
    orders: MakeOrders, tmp_path: Path
) -> None:
    file = tmp_path / "no" / "folder"
    async with working() as parent:
        with pytest.raises(WorkerError, match=r"logging\.audit\.file"):
            await parent.ask("start", orders(logging={"audit": {"file": str(file)}}).to_json())
        await parent.channel.close()
        assert await parent.code() == 1


@pytest.mark.parametrize("verb", ["listen", "metrics", "readiness", "drain", "hurry", "kick"])
async def test_before_the_start_there_is_nothing_to_tell(verb: str) -> None:
    async with working() as parent:
        with pytest.raises(WorkerError, match="has not started"):
            await parent.ask(verb)


async def test_it_does_for_the_api_what_its_parent_asks(orders: MakeOrders) -> None:
    async with working() as parent:
        await parent.ask("start", orders().to_json())
        assert await parent.ask("kick", {"id": "none"}) == {"kicked": False}
        assert await parent.ask("withdraw", {"id": "none"}) == {"closed": 0}


async def test_it_listens_when_it_is_told_to(orders: MakeOrders) -> None:
    ports = Ports()
    await ports.open([Address("127.0.0.1", 0)])
    async with working() as parent:
        await parent.ask("start", replace(orders(), places=ports.places).to_json())
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", ports.bound[0].port)
        await parent.ask("listen")
        _, writer = await asyncio.open_connection("127.0.0.1", ports.bound[0].port)
        writer.close()
        await writer.wait_closed()
        await parent.ask("stop")
        assert await parent.code() == 0
    ports.close()


async def test_where_it_cannot_listen_is_told(
    orders: MakeOrders, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Sidecar) -> None:
        raise OSError("server.listen: cannot listen")

    monkeypatch.setattr(Sidecar, "listen", fail)
    async with working() as parent:
        await parent.ask("start", orders().to_json())
        with pytest.raises(WorkerError, match=r"^server\.listen: cannot listen$"):
            await parent.ask("listen")


async def test_its_log_lines_bear_its_number(
    orders: MakeOrders, capsys: pytest.CaptureFixture[Any]
) -> None:
    async with working() as parent:
        await parent.ask("start", orders().to_json())
        await parent.ask("drain")
    assert '"event":"drained","worker":7,"cut_off":0}' in capsys.readouterr().err
