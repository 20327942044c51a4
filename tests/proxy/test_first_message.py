"""Moments that no client can choose, and what is left behind."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from sidecar.model import Denial, Reason
from sidecar.policy.decide import Preflight
from sidecar.proxy import first_message
from sidecar.proxy.first_message import Waiting
from sidecar.proxy.front import Front, FrontServer, RequestHead
from sidecar.proxy.record import Attempt
from sidecar.wire.messages import FirstMessage
from tests.support.clients import head, raw
from tests.support.first_messages import WELCOME, accepted, asking, auth, decisions
from tests.support.frames import PING, TEXT, frame
from tests.support.sidecars import Running, sidecar
from tests.support.upstreams import recording, switching

NOWHERE = "ws://127.0.0.1:9"


async def the_one(running: Running) -> Waiting:
    """The client that waits."""
    messages = running.sidecar._admission._first_messages
    async with asyncio.timeout(5):
        while not len(messages):
            await asyncio.sleep(0.002)
    (waiting,) = messages._waiting
    return waiting


async def test_who_has_left_already_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = FrontServer.begin

    def begin_and_hang_up(server: FrontServer, front: Front, request: RequestHead) -> None:
        front.transport.abort()
        begin(server, front, request)

    monkeypatch.setattr(FrontServer, "begin", begin_and_hang_up)
    async with sidecar(asking(tmp_path, NOWHERE), tmp_path) as s:
        async with raw(s.port) as client:
            await client.send(head("/ws"))
            assert await client.rest() == b""
        await s.until_idle()
        assert len(s.sidecar._admission._first_messages) == 0
    (decision,) = decisions(tmp_path)
    assert decision["detail"] == "the client left during the handshake"


async def test_who_has_left_is_told_nothing_and_recorded_once(tmp_path: Path) -> None:
    async with sidecar(asking(tmp_path, NOWHERE), tmp_path) as s:
        async with accepted(s) as client:
            waiting = await the_one(s)
            waiting.transport.abort()
            s.sidecar._admission._first_messages.refuse(waiting, Denial(Reason.AUTH_TIMEOUT))
            assert await client.rest() == b""
        await s.until_idle()
        s.sidecar._admission._first_messages.refuse(waiting, Denial(Reason.AUTH_TIMEOUT))
    (decision,) = decisions(tmp_path)
    assert decision["reason"] == "bad_handshake"


async def test_who_leaves_as_the_upstream_answers_is_not_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over = Waiting.hand_over

    def leave(waiting: Waiting, *arguments: object) -> bytes:
        waiting.transport.abort()
        return hand_over(waiting, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Waiting, "hand_over", leave)
    async with recording() as up, sidecar(asking(tmp_path, up.url), tmp_path) as s:
        async with accepted(s) as client:
            await client.send(frame(TEXT, auth()))
            assert await client.rest() == b""
        await s.until_idle()
        await up.until(lambda u: u.eof + u.lost == 1)
        assert up.forwarded == b""
    (decision,) = decisions(tmp_path)
    assert decision["detail"] == "the client left during the handshake"


async def test_who_does_not_read_gets_no_more_pongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_message, "_MAX_UNSENT", 0)
    async with (
        recording() as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        accepted(s) as client,
    ):
        await client.send(frame(PING, b"here?") + frame(TEXT, auth()))
        assert await client.exactly(len(WELCOME)) == WELCOME


async def test_an_error_after_the_dial_is_told_and_frees_the_upstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(lambda _: None) as up, sidecar(asking(tmp_path, up.url), tmp_path) as s:

        def fail(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(s.sidecar._admission._joiner, "join", fail)
        async with accepted(s) as client:
            await client.send(frame(TEXT, auth()))
            await up.until(lambda u: len(u.heads) == 1)
            await up.send(switching(up.heads[0]))
            assert b"internal_error" in await client.rest()
        await s.until_idle()
        await up.until(lambda u: u.eof + u.lost == 1)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("text", [None, "nonsense"])
async def test_nothing_of_the_waiting_is_kept(tmp_path: Path, text: str | None) -> None:
    kinds = (Waiting, FirstMessage, Preflight, Attempt, Front)
    earlier = [one for one in gc.get_objects() if type(one) in kinds]

    def left() -> list[Any]:
        found = [one for one in gc.get_objects() if type(one) in kinds]
        return [one for one in found if not any(one is other for other in earlier)]

    async with (
        recording() as up,
        sidecar(asking(tmp_path, up.url), tmp_path) as s,
        accepted(s) as client,
    ):
        tasks = asyncio.all_tasks()
        await client.send(frame(TEXT, auth(text)))
        await client.exactly(20)
        async with asyncio.timeout(5):
            while left():
                await asyncio.sleep(0.005)
        assert len(asyncio.all_tasks() - tasks) == len(up.heads)  # the test's upstream's
