"""One worker as its parent sees it."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Final

from sidecar.errors import WorkerError
from sidecar.observe.families import Families
from sidecar.proxy.tasks import first_of
from sidecar.workers.channel import Body, Channel
from sidecar.workers.orders import Orders

__all__ = ["WorkerProcess"]

_START_TIMEOUT: Final = 60.0
_ANSWER_TIMEOUT: Final = 2.0
"""Seconds for what a worker answers at once, so that a scrape does not hang on it."""

_PROBE_TIMEOUT: Final = 0.5
"""Seconds for the answer to a readiness probe, which by Kubernetes' default waits for 1 s."""

_EXIT_TIMEOUT: Final = 10.0
"""Seconds from the end of the channel to the end of the process."""

_STDERR: Final = 2

OnFigures = Callable[["WorkerProcess", Families], None]


class WorkerProcess:
    """A process, from `spawn` until it has `ended`. `on_figures` is told what it has counted,
    whenever it says so. `started` is whether it ever took connections.
    """

    def __init__(
        self, number: int, process: asyncio.subprocess.Process, on_figures: OnFigures
    ) -> None:
        self.number = number
        self.pid = process.pid
        self._process = process
        self._on_figures = on_figures
        self._channel: Channel
        self.started = False
        self._left = asyncio.Event()
        self._begun = self._answered = asyncio.get_running_loop().time()

    @classmethod
    async def spawn(
        cls, number: int, inherited: tuple[int, ...], on_figures: OnFigures
    ) -> "WorkerProcess":
        """Begin a process that inherits these descriptors. Raises OSError."""
        _keep_strays()
        with contextlib.ExitStack() as opened:
            ours, theirs = map(opened.enter_context, socket.socketpair())
            # The same program from the same places: -P keeps the working folder out of them.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "sidecar.workers", str(number), str(theirs.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                pass_fds=(theirs.fileno(), *inherited),
            )
            worker = cls(number, process, on_figures)
            verbs = {"leaving": worker._note_leaving, "ended": worker._note_end}
            worker._channel = await Channel.open(ours.dup(), verbs)
        return worker

    @property
    def reachable(self) -> bool:
        """Whether it is there to answer."""
        return self._channel.is_open

    @property
    def serving(self) -> bool:
        """Whether it has started and still answers for its connections."""
        return self.started and self.reachable

    @property
    def leaving(self) -> bool:
        """Whether it has said that it ends by itself."""
        return self._left.is_set()

    @property
    def lived(self) -> float:
        """Seconds since it began."""
        return asyncio.get_running_loop().time() - self._begun

    @property
    def silent_for(self) -> float:
        """Seconds since it answered last."""
        return asyncio.get_running_loop().time() - self._answered

    async def prepare(self, orders: Orders) -> None:
        """Let it get ready. Raises WorkerError with the reason why it cannot."""
        await self._begin("start", orders.to_json(), _START_TIMEOUT)

    async def listen(self) -> None:
        """Let it take connections, once it is ready. Raises WorkerError as `prepare` does."""
        await self._begin("listen", {}, _START_TIMEOUT)
        self.started = True

    async def count(self) -> None:
        """Let it tell its figures. Raises WorkerError."""
        self._note_figures(await self._ask("metrics"))

    async def readiness(self) -> Mapping[str, str]:
        """What is not ready in it, and why. Raises WorkerError."""
        answer = await self._ask("readiness", within=_PROBE_TIMEOUT)
        problems: Mapping[str, str] = answer["problems"]
        return problems

    async def drain(self, within: float) -> None:
        """Let it take no new handshakes, and wait until its connections have ended, for so many
        seconds at most. Raises WorkerError.
        """
        await self._ask("drain", within)

    async def hurry(self) -> None:
        """Let it spread the close frames of a drain no longer. Raises WorkerError."""
        await self._ask("hurry")

    async def stop(self) -> None:
        """Let it end once it has drained. Raises WorkerError."""
        await self._ask("stop")

    async def ask(self, verb: str, body: Body, within: float) -> Body:
        """Its answer within so many seconds. Raises WorkerError."""
        answer = await self._channel.ask(verb, body, within=within)
        self._answered = asyncio.get_running_loop().time()
        return answer

    async def over(self) -> None:
        """Wait until the process runs no more."""
        await self._process.wait()

    async def gone(self) -> None:
        """Wait until it is over, or takes no new connections."""
        await first_of(self._left.wait(), self._channel.ended())

    async def ended(self) -> str:
        """Wait for the end of the process; its exit code or signal in words."""
        await self._channel.ended()
        try:
            async with asyncio.timeout(_EXIT_TIMEOUT):
                await self._process.wait()
        except TimeoutError:  # it does not keep to the protocol
            self.kill()
        await self._channel.close()
        return _in_words(await self._process.wait())

    def kill(self) -> None:
        """End the process by force."""
        if self._process.returncode is None:
            self._process.kill()

    async def _begin(self, verb: str, body: Body, within: float) -> None:
        try:
            await self.ask(verb, body, within)
        except WorkerError as error:
            if self.reachable:
                raise
            how = _in_words(await self._process.wait())
            raise WorkerError(f"worker {self.number} ended before it had started: {how}") from error

    async def _ask(self, verb: str, within: float | None = None) -> Body:
        return await self.ask(verb, {}, within or _ANSWER_TIMEOUT)

    async def _note_leaving(self, _: Body) -> Body:
        self._left.set()
        return {}

    async def _note_end(self, body: Body) -> Body:
        self._note_figures(body)
        return {}

    def _note_figures(self, body: Body) -> None:
        try:
            families = Families.from_json(body["families"])
        except (KeyError, TypeError, ValueError) as error:
            raise WorkerError(f"figures that are none: {error}") from error
        self._on_figures(self, families)


def _keep_strays() -> None:
    """Let no descriptor that this program was started with reach a worker: uvloop would."""
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the one of this list is closed by now
            if int(name) > _STDERR:
                os.set_inheritable(int(name), False)


def _in_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
