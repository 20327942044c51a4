"""A worker: a sidecar that its parent starts, asks and ends."""

import asyncio
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from sidecar.errors import ConfigError, KeyMaterialError, WorkerError
from sidecar.observe import logs
from sidecar.proxy.app import Sidecar
from sidecar.proxy.tasks import first_of
from sidecar.workers.channel import Body, Channel, Verb
from sidecar.workers.orders import Orders
from sidecar.workers.ports import open_places
from sidecar.workers.reload import ReloadVerbs, policy_of
from sidecar.workers.runtime import loop_factory, settle_memory
from sidecar.workers.verbs import api_verbs

__all__ = ["main"]

_FAREWELL: Final = 2.0
"""Seconds that the parent has to take note of the last figures."""


def main(argv: Sequence[str]) -> int:
    """Run the worker with this number on the control channel with this descriptor. Its exit code:
    0 after a drain, 1 where it never started.
    """
    number, descriptor = map(int, argv)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_Worker(number).run(socket.socket(fileno=descriptor)))


class _Worker:
    """The worker's side of the control channel."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._sidecar: Sidecar | None = None
        self._stop = asyncio.Event()
        self._leave = asyncio.Event()

    async def run(self, control: socket.socket) -> int:
        """Work until the parent asks for the end, or is gone, or SIGTERM comes."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._leave.set)
        verbs: Mapping[str, Verb] = {
            "start": self._start,
            "listen": self._listen,
            "metrics": self._metrics,
            "readiness": self._readiness,
            "drain": self._drain,
            "hurry": self._hurry,
            "stop": self._note_stop,
            **api_verbs(lambda: self._started().api),
            **ReloadVerbs(lambda policy: self._started().prepare(policy)).verbs,
        }
        channel = await Channel.open(control, verbs)
        try:
            await first_of(channel.ended(), self._stop.wait(), self._leave.wait())
            if self._sidecar is None:
                return 1
            await self._finish(self._sidecar, channel)
        finally:
            await channel.close()
        return 0

    async def _finish(self, sidecar: Sidecar, channel: Channel) -> None:
        """Drain and end. Where others go on, or a new program takes the address, nobody new is
        to come here.
        """
        if not self._stop.is_set():
            await sidecar.stop_listening()
            with suppress(WorkerError):
                await channel.ask("leaving", {}, within=_FAREWELL)
        sidecar.drain()
        await sidecar.drained()
        await sidecar.close()
        with suppress(WorkerError):
            last = sidecar.metrics.families().to_json()
            await channel.ask("ended", {"families": last}, within=_FAREWELL)

    async def _start(self, body: Body) -> Body:
        orders = Orders.from_json(body)
        try:
            policy, environ = policy_of(orders)
            logs.configure(policy.logging, worker=self._number)
            sidecar = Sidecar(
                policy,
                environ,
                worker=self._number,
                sockets=open_places(orders.places),
            )
            await sidecar.start()
        except (ConfigError, KeyMaterialError, OSError) as error:
            raise WorkerError(str(error)) from error
        self._sidecar = sidecar
        settle_memory()
        return {}

    async def _listen(self, _: Body) -> Body:
        try:
            await self._started().listen()
        except OSError as error:
            raise WorkerError(str(error)) from error
        return {}

    async def _metrics(self, _: Body) -> Body:
        return {"families": self._started().metrics.families().to_json()}

    async def _readiness(self, _: Body) -> Body:
        return {"problems": dict(self._started().readiness())}

    async def _drain(self, _: Body) -> Body:
        self._started().drain()
        await self._started().drained()
        return {}

    async def _hurry(self, _: Body) -> Body:
        self._started().hurry()
        return {}

    async def _note_stop(self, _: Body) -> Body:
        self._stop.set()
        return {}

    def _started(self) -> Sidecar:
        if self._sidecar is None:
            raise WorkerError("the worker has not started")
        return self._sidecar
