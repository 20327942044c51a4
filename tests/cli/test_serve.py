"""`ws-sidecar serve` within the test's process: what is said, and with which code it ends."""

import argparse
import asyncio
import gc
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from sidecar.cli import serve
from sidecar.config.source import Loaded
from sidecar.policy.compiled import Policy
from sidecar.proxy.app import Sidecar
from sidecar.workers import runtime
from tests.support.sidecars import ENVIRON, policy_of


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    thresholds = gc.get_threshold()
    yield
    structlog.reset_defaults()
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def run(folder: Path, policy: str) -> int:
    path = folder / "policy.yaml"
    path.write_text(policy)
    parser = argparse.ArgumentParser()
    serve.add_parser(parser.add_subparsers())
    return serve.run(parser.parse_args(["serve", "-c", str(path)]))


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    output = capsys.readouterr()
    assert output.out == ""
    return [json.loads(line) for line in output.err.splitlines()]


def ended_by(*numbers: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process get these signals, in turn, as soon as the sidecar has started."""
    start = Sidecar.start

    async def start_and_signal(self: Sidecar) -> None:
        await start(self)
        for number in numbers:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Sidecar, "start", start_and_signal)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    ended_by(number, monkeypatch=monkeypatch)
    assert run(tmp_path, policy_of("ws://127.0.0.1:1")) == 0
    events = [line["event"] for line in lines(capsys)]
    assert events == ["policy_warning", *started(events), "draining", "drained", "stopped"]


def test_what_is_there_once_it_has_started_is_not_collected_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended_by(signal.SIGTERM, monkeypatch=monkeypatch)
    assert gc.get_freeze_count() == 0
    assert run(tmp_path, policy_of("ws://127.0.0.1:1")) == 0
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == runtime._GC_THRESHOLDS


def test_a_hangup_has_the_policy_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take = Sidecar.take

    async def take_and_signal(self: Sidecar, policy: Policy) -> int:
        live = await take(self, policy)
        os.kill(os.getpid(), signal.SIGTERM)
        return live

    monkeypatch.setattr(Sidecar, "take", take_and_signal)
    ended_by(signal.SIGHUP, monkeypatch=monkeypatch)
    assert run(tmp_path, policy_of("ws://127.0.0.1:1")) == 0
    events = [line["event"] for line in lines(capsys)]
    assert "policy_settled" in events
    told = [event for event in events if event != "policy_settled"]
    assert told[-4:] == ["policy_reloaded", "draining", "drained", "stopped"]


def test_with_several_workers_a_hangup_reaches_their_parent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken: list[object] = []

    class Parent:
        """Several workers that end once they have been told to take a changed policy."""

        def __init__(self, *_: object) -> None:
            pass

        async def start(self) -> None:
            os.kill(os.getpid(), signal.SIGHUP)

        async def reload(self, loaded: Loaded) -> int:
            taken.append(loaded.policy.server.workers)
            return 0

        def note_reload(self, good: bool) -> None:
            taken.append(good)
            os.kill(os.getpid(), signal.SIGTERM)

        def drain(self) -> None:
            pass

        def hurry(self) -> None:
            pass

        async def drain_begun(self) -> None:
            await asyncio.Event().wait()

        async def drained(self) -> None:
            pass

        async def close(self) -> None:
            pass

    monkeypatch.setattr(serve, "Supervisor", Parent)
    assert run(tmp_path, policy_of("ws://127.0.0.1:1", server={"workers": 2})) == 0
    assert taken == [2, True]


def test_a_drain_ends_the_program_and_the_taking_of_changed_policies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given_up: list[bool] = []

    async def drain_and_wait(self: Sidecar, _: Policy) -> None:
        self.drain()
        try:
            async with asyncio.timeout(20):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.append(True)
            raise

    monkeypatch.setattr(Sidecar, "take", drain_and_wait)
    ended_by(signal.SIGHUP, monkeypatch=monkeypatch)
    assert run(tmp_path, policy_of("ws://127.0.0.1:1")) == 0
    assert given_up == [True]
    events = [line["event"] for line in lines(capsys)]
    assert events[-3:] == ["draining", "drained", "stopped"]


def started(events: list[str]) -> list[str]:
    """The lines of the start; the file limit of this machine may be worth one."""
    return [event for event in events if event in ("file_limit_too_low", "started")]


def test_people_may_have_their_own_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended_by(signal.SIGTERM, monkeypatch=monkeypatch)
    assert run(tmp_path, policy_of("ws://127.0.0.1:1", logging={"format": "console"})) == 0
    assert "[info] started version=" in capsys.readouterr().err


def test_a_bad_policy_ends_it_with_1_and_every_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "upstreams: {a: {url: nonsense}}\njwt: {leeway: 1}\n") == 1
    output = capsys.readouterr()
    assert "jwt.leeway" in output.err
    assert output.out == ""


def test_an_address_in_use_ends_it_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        policy = policy_of("ws://127.0.0.1:1", server={"listen": [address]})
        assert run(tmp_path, policy) == 1
    last = lines(capsys)[-1]
    assert (last["event"], last["level"]) == ("start_failed", "error")
    wrong = f"server.listen: cannot listen on {address}: Address already in use"
    assert last["error"] == f"{wrong}; end the program that does, or choose another port"


def test_an_audit_file_that_cannot_be_written_ends_it_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "no" / "such" / "folder")
    assert run(tmp_path, policy_of("ws://127.0.0.1:1", logging={"audit": {"file": file}})) == 1
    last = lines(capsys)[-1]
    assert last["event"] == "start_failed"
    assert "logging.audit.file" in last["error"]


def test_a_short_key_for_pseudonyms_ends_it_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WS_SIDECAR_HASH_KEY", "short")
    assert run(tmp_path, policy_of("ws://127.0.0.1:1")) == 1
    error = lines(capsys)[-1]["error"]
    assert "WS_SIDECAR_HASH_KEY" in error
    assert "'short'" not in error
