"""One worker as its parent sees it, with a stand-in for the program."""

import contextlib
import fcntl
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from math import inf
from pathlib import Path

import pytest

from sidecar.errors import WorkerError
from sidecar.observe.families import Families
from sidecar.workers import process as module
from sidecar.workers.process import WorkerProcess
from tests.workers.conftest import MakeOrders

StandIn = Callable[[str], None]

HEAD = """\
#!{python} -P
import json, socket, sys, time
control = socket.socket(fileno=int(sys.argv[-1]))
lines = control.makefile("r")

def answer(**fields):
    question = json.loads(lines.readline())
    control.sendall(json.dumps({{"id": question["id"], **fields}}).encode() + b"\\n")

"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Lets this program run for a worker's."""

    def put(code: str) -> None:
        script = tmp_path / "stand-in"
        script.write_text(HEAD.format(python=sys.executable) + textwrap.dedent(code))
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    return put


@contextlib.asynccontextmanager
async def spawned(figures: list[Families] | None = None) -> AsyncIterator[WorkerProcess]:
    noted = [] if figures is None else figures
    worker = await WorkerProcess.spawn(3, (), lambda _, families: noted.append(families))
    try:
        yield worker
    finally:
        worker.kill()
        await worker.ended()


async def test_one_that_starts_serves_until_it_ends(stand_in: StandIn, orders: MakeOrders) -> None:
    stand_in("answer(answer={}); answer(answer={}); lines.readline(); sys.exit(4)")
    async with spawned() as worker:
        await worker.prepare(orders())
        states = [worker.serving]
        await worker.listen()
        states.append(worker.serving)
        with pytest.raises(WorkerError, match="gone"):
            await worker.stop()
        await worker.gone()
        assert [*states, worker.serving] == [False, True, False]
        assert await worker.ended() == "exit code 4"
        assert not worker.leaving
        assert worker.lived > 0


async def test_a_program_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(FileNotFoundError):
        async with spawned():
            raise AssertionError


async def test_one_that_cannot_start_says_why(stand_in: StandIn, orders: MakeOrders) -> None:
    stand_in("answer(error='no audit file'); lines.read()")
    async with spawned() as worker:
        with pytest.raises(WorkerError, match=r"^no audit file$"):
            await worker.prepare(orders())


async def test_one_that_ends_before_the_start_is_told_of(
    stand_in: StandIn, orders: MakeOrders
) -> None:
    stand_in("sys.exit(3)")
    async with spawned() as worker:
        message = "worker 3 ended before it had started: exit code 3"
        with pytest.raises(WorkerError, match=message):
            await worker.prepare(orders())


async def test_one_that_ends_before_it_listens_is_told_of(
    stand_in: StandIn, orders: MakeOrders
) -> None:
    stand_in("answer(answer={}); lines.readline(); sys.exit(3)")
    async with spawned() as worker:
        await worker.prepare(orders())
        with pytest.raises(WorkerError, match="ended before it had started: exit code 3"):
            await worker.listen()
        assert not worker.started


async def test_a_probe_does_not_wait_as_long_as_a_scrape(
    stand_in: StandIn, orders: MakeOrders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ANSWER_TIMEOUT", 3600.0)
    stand_in("answer(answer={}); lines.read()")
    async with spawned() as worker:
        await worker.prepare(orders())
        with pytest.raises(WorkerError, match="no answer"):
            await worker.readiness()


async def test_one_that_lets_go_of_the_channel_and_stays_is_ended(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_EXIT_TIMEOUT", 0.1)
    stand_in("control.shutdown(socket.SHUT_RDWR); time.sleep(60)")
    async with spawned() as worker:
        assert await worker.ended() == "signal SIGKILL"


@pytest.mark.parametrize("figures", ["{}", "{'families': 5}", "{'families': [['a', 'b']]}"])
async def test_figures_that_are_none_are_an_error(
    stand_in: StandIn, orders: MakeOrders, figures: str
) -> None:
    stand_in(f"answer(answer={{}}); answer(answer={figures}); lines.read()")
    noted: list[Families] = []
    async with spawned(noted) as worker:
        await worker.prepare(orders())
        with pytest.raises(WorkerError, match="figures that are none"):
            await worker.count()
    assert noted == []


async def test_one_that_leaves_is_gone_but_serves(stand_in: StandIn, orders: MakeOrders) -> None:
    stand_in(
        """
        answer(answer={})
        answer(answer={})
        control.sendall(b'{"id": 1, "verb": "leaving", "body": {}}\\n')
        lines.read()
        """
    )
    async with spawned() as worker:
        await worker.prepare(orders())
        await worker.listen()
        await worker.gone()
        assert worker.leaving
        assert worker.serving


async def test_it_is_asked_for_whatever_there_is_a_verb_for(stand_in: StandIn) -> None:
    stand_in("answer(answer={'kicked': True}); sys.exit(5)")
    async with spawned() as worker:
        assert await worker.ask("kick", {"id": "c-1"}, 20.0) == {"kicked": True}
        with pytest.raises(WorkerError, match="gone"):
            await worker.ask("kick", {"id": "c-1"}, inf)
        assert not worker.reachable
        await worker.over()
        assert await worker.ended() == "exit code 5"


async def test_the_last_figures_are_noted(stand_in: StandIn, orders: MakeOrders) -> None:
    stand_in(
        """
        answer(answer={})
        control.sendall(b'{"id": 1, "verb": "ended", "body": {"families": []}}\\n')
        lines.readline()
        """
    )
    noted: list[Families] = []
    async with spawned(noted) as worker:
        await worker.prepare(orders())
        assert await worker.ended() == "exit code 0"
    assert noted == [Families()]


async def test_figures_that_are_none_are_no_reason_to_fail(
    stand_in: StandIn, orders: MakeOrders
) -> None:
    stand_in("answer(answer={}); answer(answer={}); answer(answer=5); lines.readline()")
    async with spawned() as worker:
        await worker.prepare(orders())
        await worker.listen()
        with pytest.raises(WorkerError, match="figures"):
            await worker.count()


async def test_no_descriptor_but_what_it_needs_reaches_a_worker(
    stand_in: StandIn, orders: MakeOrders, tmp_path: Path
) -> None:
    stand_in(
        """
        import os
        open(sys.argv[0] + ".found", "w").write("\\n".join(os.listdir("/dev/fd")))
        answer(answer={}); lines.readline()
        """
    )
    with (tmp_path / "stray").open("w") as stray:
        os.set_inheritable(stray.fileno(), True)
        high = fcntl.fcntl(stray.fileno(), fcntl.F_DUPFD, 900)
        try:
            async with spawned() as worker:
                await worker.prepare(orders())
        finally:
            os.close(high)
    assert str(high) not in (tmp_path / "stand-in.found").read_text().split()
