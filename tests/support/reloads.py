"""Another policy for a running sidecar."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from sidecar.config.source import load_policy
from sidecar.proxy import reloading
from sidecar.proxy.reloading import Reloader
from tests.support.sidecars import ENVIRON, Running


async def reload(
    it: Running, folder: Path, policy: str, environ: Mapping[str, str] = ENVIRON
) -> None:
    """Put this policy in force, and wait until it holds for all."""
    path = folder / "next.yaml"
    path.write_text(policy)
    await it.sidecar.reload(load_policy([path], environ).policy)


def reloads(it: Running, outcome: str) -> float:
    """How many attempts there were to take a changed policy, with this outcome."""
    family = it.sidecar.metrics.families().by_name["ws_sidecar_policy_reloads"]
    return family.samples["ws_sidecar_policy_reloads_total", (("outcome", outcome),)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def following(it: Running, path: Path) -> AsyncIterator[Reloader]:
    """Let the sidecar take what this file or folder says, whenever it changes."""
    reloader = Reloader([path], ENVIRON)
    await it.sidecar.reload(reloader.load().policy)
    task = asyncio.create_task(
        reloader.run(
            lambda loaded: it.sidecar.take(loaded.policy), it.sidecar.metrics.policy_reload
        )
    )
    try:
        yield reloader
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at many times a second."""
    monkeypatch.setattr(reloading, "POLL", 0.01)
