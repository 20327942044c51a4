"""Reading the policy again: when, how often at a time, and what is said of it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar.config.source import Loaded
from sidecar.errors import ConfigError, KeyMaterialError
from sidecar.proxy import reloading
from sidecar.proxy.reloading import Reloader
from tests.support.certificates import authority
from tests.support.reloads import eager, until
from tests.support.sidecars import ENVIRON, policy_of

__all__ = ["eager"]

pytestmark = pytest.mark.usefixtures("eager")

NOWHERE = "ws://127.0.0.1:1"


class Program:
    """Takes policies, or fails to."""

    def __init__(self) -> None:
        self.taken: list[Loaded] = []
        self.outcomes: list[bool] = []
        self.wrong: Exception | None = None
        self.busy = False
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def apply(self, loaded: Loaded) -> int:
        assert not self.busy
        self.busy = True
        await self.go_on.wait()
        self.busy = False
        if self.wrong is not None:
            raise self.wrong
        self.taken.append(loaded)
        return 3


@contextlib.asynccontextmanager
async def running(reloader: Reloader) -> AsyncIterator[Program]:
    program = Program()
    task = asyncio.create_task(reloader.run(program.apply, program.outcomes.append))
    try:
        yield program
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "policy.yaml"
    file.write_text(policy_of(NOWHERE))
    return file


def test_a_bad_policy_is_told_at_first(path: Path) -> None:
    path.write_text("routes: 1")
    with pytest.raises(ConfigError):
        Reloader([path], ENVIRON).load()


async def test_nothing_is_read_again_while_nothing_changes(path: Path) -> None:
    reloader = Reloader([path], ENVIRON)
    reloader.load()
    async with running(reloader) as program:
        await asyncio.sleep(0.1)
        assert program.outcomes == []


async def test_who_asks_while_it_is_read_has_it_read_once_more(path: Path) -> None:
    reloader = Reloader([path], ENVIRON)
    reloader.load()
    async with running(reloader) as program:
        program.go_on.clear()
        reloader.ask()
        await until(lambda: program.busy)
        for _ in range(3):
            reloader.ask()
        program.go_on.set()
        await until(lambda: program.outcomes == [True, True])
        await asyncio.sleep(0.05)
        assert program.outcomes == [True, True]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (OSError("no such address"), "no such address"),
        (KeyMaterialError("the secret is short", "use another"), "the secret is short; use ano"),
        (RuntimeError("a mistake of the program"), "internal error"),
    ],
)
async def test_what_cannot_be_applied_is_logged_and_the_next_one_is(
    path: Path, wrong: Exception, said: str
) -> None:
    reloader = Reloader([path], ENVIRON)
    reloader.load()
    async with running(reloader) as program:
        program.wrong = wrong
        with capture_logs() as logs:
            reloader.ask()
            await until(lambda: program.outcomes == [False])
        (failed,) = logs
        assert (failed["event"], failed["log_level"]) == ("policy_reload_failed", "error")
        assert failed["error"].startswith(said)
        program.wrong = None
        path.write_text(policy_of(NOWHERE, server={"max_connections": 7}))
        await until(lambda: program.outcomes == [False, True])
        assert program.taken[0].policy.server.max_connections == 7


async def test_each_problem_of_a_policy_and_each_warning_is_a_line(path: Path) -> None:
    reloader = Reloader([path], ENVIRON)
    reloader.load()
    async with running(reloader) as program:
        with capture_logs() as logs:
            path.write_text("version: 1\nupstreams: 1\nroutes: 2\n")
            await until(lambda: program.outcomes == [False])
            path.write_text(policy_of(NOWHERE))
            await until(lambda: program.outcomes == [False, True])
        events = [line["event"] for line in logs]
        assert events == [
            "policy_problem",
            "policy_problem",
            "policy_reload_failed",
            "policy_warning",
            "policy_reloaded",
        ]
        assert logs[0]["problem"].startswith(f"{path}:2:12: upstreams:")
        assert (logs[-1]["connections"], logs[-1]["then"]) == (3, "they are judged by it")


async def test_files_that_only_the_new_policy_names_are_looked_at_when_it_fails(
    path: Path, tmp_path: Path
) -> None:
    ca = authority(tmp_path).ca
    reloader = Reloader([path], ENVIRON)
    reloader.load()
    async with running(reloader) as program:
        program.wrong = OSError("the certificate is no good")
        main = {"url": "wss://127.0.0.1:1", "tls": {"ca": str(ca)}}
        path.write_text(policy_of("", upstreams={"main": main}))
        await until(lambda: program.outcomes == [False])
        program.wrong = None
        ca.write_bytes(ca.read_bytes() + b"\n")
        await until(lambda: program.outcomes == [False, True])
        path.write_text(policy_of(NOWHERE))
        await until(lambda: program.outcomes == [False, True, True])
        ca.unlink()  # nobody asks for it any more
        await asyncio.sleep(0.1)
        assert len(program.outcomes) == 3


async def test_a_policy_that_could_not_be_taken_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "AGAIN", 0.0)
    reloader = Reloader([path], ENVIRON)
    reloader.load()
    async with running(reloader) as program:
        program.wrong = OSError("the secret is not there")
        reloader.ask()
        await until(lambda: program.outcomes[:3] == [False] * 3)
        program.wrong = None
        await until(lambda: program.outcomes[-1])
        await asyncio.sleep(0.05)
        assert program.outcomes.count(True) == 1


async def test_a_wait_for_whoever_asks_ends_once_for_each(path: Path) -> None:
    reloader = Reloader([path], ENVIRON)
    reloader.ask()
    await asyncio.wait_for(reloader.asked(), 5)
    waiting = asyncio.create_task(reloader.asked())
    await asyncio.sleep(0)
    assert not waiting.done()
    reloader.ask()
    await asyncio.wait_for(waiting, 5)
