"""A sidecar in the test's own loop, and one as a process of its own."""

import asyncio
import contextlib
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from sidecar.clock import Clock, SystemClock
from sidecar.config.source import load_policy
from sidecar.proxy.app import Sidecar
from tests.support.tokens import SECRET

ENVIRON: Mapping[str, str] = {"JWT_SECRET": SECRET}
PROVIDER: Mapping[str, Any] = {"algorithms": ["HS256"], "secrets": [{"env": "JWT_SECRET"}]}
SYSTEM_CLOCK = SystemClock()


def policy_of(url: str, *, route: Mapping[str, Any] | None = None, **sections: Any) -> str:
    """A small policy as YAML: one upstream, one provider, one route with these keys. Drains are not
    spread, unless a section says so.
    """
    document: dict[str, Any] = {
        "version": 1,
        "server": {"listen": ["127.0.0.1:0"]},
        "admin": {"listen": "127.0.0.1:0"},
        "upstreams": {"main": {"url": url}},
        "jwt": {"providers": {"app": PROVIDER}},
        "routes": [
            {"name": "main", "origins": {"missing": "allow"}, **(route or {})},
        ],
    }
    for name, section in sections.items():
        if isinstance(section, Mapping) and isinstance(document.get(name), dict):
            document[name] |= section
        else:
            document[name] = section
    _end_drains_at_once(document)
    return yaml.safe_dump(document, sort_keys=False)


def _end_drains_at_once(document: dict[str, Any]) -> None:
    server = document["server"]
    if isinstance(server, dict):
        drain = server.get("drain", {})
        if isinstance(drain, Mapping):
            document["server"] = server | {"drain": {"spread": "0s", **drain}}


class Running:
    """A started sidecar and where it listens."""

    def __init__(self, sidecar: Sidecar) -> None:
        self.sidecar = sidecar

    @property
    def port(self) -> int:
        return self.sidecar.public[0].port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        assert self.sidecar.admin is not None
        return f"http://{self.sidecar.admin}"

    async def until_idle(self, timeout: float = 8) -> None:
        """Wait until no connection and no handshake is left."""
        async with asyncio.timeout(timeout):
            while self.sidecar.connections.places_taken:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def sidecar(
    policy: str,
    folder: Path,
    environ: Mapping[str, str] = ENVIRON,
    clock: Clock = SYSTEM_CLOCK,
) -> AsyncIterator[Running]:
    """A sidecar with this policy, in the running loop."""
    path = folder / "policy.yaml"
    path.write_text(textwrap.dedent(policy))
    program = Sidecar(load_policy([path], environ).policy, environ, clock=clock)
    try:
        await program.start()
        yield Running(program)
    finally:
        await program.close()


class Process:
    """`ws-sidecar serve` as a process; `output` is what it has written so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self._started = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.output += line.decode()
            if '"started"' in self.output:
                self._started.set()

    async def started(self, timeout: float = 20) -> None:
        """Wait for the line that says that it listens."""
        async with asyncio.timeout(timeout):
            await self._started.wait()

    async def ended(self, timeout: float = 40) -> int:
        """Its exit code, once it has one and everything it wrote is read."""
        async with asyncio.timeout(timeout):
            await self._reader
            return await self.process.wait()


@contextlib.asynccontextmanager
async def sidecar_process(
    *arguments: str, environ: Mapping[str, str] = ENVIRON
) -> AsyncIterator[Process]:
    """Run `python -m sidecar` with these arguments; it is ended with the block."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sidecar",
        *arguments,
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    process = Process(child)
    try:
        yield process
    finally:
        if child.returncode is None:
            child.kill()
        await process.ended()
