"""The program as a process, started and asked for its addresses."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.sidecars import ENVIRON, Process, sidecar_process


class Program:
    """A sidecar process that listens."""

    def __init__(self, process: Process) -> None:
        self.process = process
        started = self.logged("started")[0]
        self.listen: list[str] = started["listen"]
        self.admin_url = f"http://{started['admin']}"

    @property
    def port(self) -> int:
        return int(self.listen[0].rpartition(":")[2])

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log's lines about this event so far."""
        lines = [json.loads(line) for line in self.process.output.splitlines()]
        return [line for line in lines if line["event"] == event]

    def kill(self, pid: int) -> None:
        """End one of its workers, which it has named in its log, by force."""
        assert pid in [line["pid"] for line in self.logged("worker_started")]
        os.kill(pid, signal.SIGKILL)

    async def until(self, condition: Callable[[], bool], timeout: float = 20) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.02)

    async def until_logged(self, event: str, timeout: float = 10) -> dict[str, Any]:
        """Wait for a line about this event."""
        async with asyncio.timeout(timeout):
            while not (found := self.logged(event)):
                await asyncio.sleep(0.02)
        return found[-1]

    async def ask(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and body of an answer of the admin listener."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.admin_url + path, headers=headers) as answer,
        ):
            return answer.status, await answer.text()


@contextlib.asynccontextmanager
async def running_program(
    *arguments: str, environ: Mapping[str, str] = ENVIRON
) -> AsyncIterator[Program]:
    """`python -m sidecar serve` with these arguments, once it listens."""
    async with sidecar_process("serve", *arguments, environ=environ) as process:
        started = asyncio.create_task(process.started())
        await asyncio.wait({started, process._reader}, return_when=asyncio.FIRST_COMPLETED)
        assert started.done(), process.output
        yield Program(process)


@contextlib.asynccontextmanager
async def serving(
    policy: str, folder: Path, environ: Mapping[str, str] = ENVIRON
) -> AsyncIterator[Program]:
    """The program with this policy."""
    path = folder / "policy.yaml"
    path.write_text(policy)
    async with running_program("--config", str(path), environ=environ) as program:
        yield program
