"""How a connection ends: close frames pass unchanged, who is left is told, nothing is left over."""

import asyncio
import gc
import logging
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar.model import Reason
from sidecar.proxy.pipe import Pipe
from sidecar.proxy.relay import Link
from sidecar.proxy.tail import Tail
from tests.support.certificates import authority
from tests.support.clients import Raw, head, raw
from tests.support.frames import BINARY, PING, TEXT, close, frame, mask
from tests.support.pairs import Pair, pair

pytestmark = pytest.mark.usefixtures("implementation")

CODES = [(1000, "bye"), (1001, ""), (3000, "thirty hundred"), (4999, "é"), (None, "")]
HELLO = frame(TEXT, b"hello")
PART = frame(BINARY, b"x" * 1000)[:500]
REST = frame(BINARY, b"x" * 1000)[500:]
BACK = frame(BINARY, b"y" * 1000, masked=False)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test passes because a timeout helped."""
    monkeypatch.setattr("sidecar.proxy.relay.CLOSE_TIMEOUT", 60.0)
    monkeypatch.setattr("sidecar.proxy.relay.FRAME_TIMEOUT", 60.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both timeouts are over soon."""
    monkeypatch.setattr("sidecar.proxy.relay.CLOSE_TIMEOUT", 0.3)
    monkeypatch.setattr("sidecar.proxy.relay.FRAME_TIMEOUT", 0.1)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Neither the loop nor aiohttp has anything to complain about."""
    yield
    records = caplog.get_records("call")
    assert [record.getMessage() for record in records if record.levelno >= logging.WARNING] == []


def vanish(end: Raw) -> None:
    end.writer.close()


ways = pytest.mark.parametrize("leave", [vanish, Raw.reset], ids=["eof", "rst"])


async def masked_close(upstream: Raw) -> bytes:
    """The payload of the close frame that comes next to an upstream, and then its end."""
    data = await upstream.rest()
    assert data[0] == 0x88
    assert data[1] == 0x80 | len(data) - 6
    return mask(data[6:], data[2:6])


async def moved(p: Pair) -> None:
    """Wait until the sidecar is inside a frame of the client's."""
    async with asyncio.timeout(5):
        while not p.link.client.meter.remaining:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(("code", "reason"), CODES)
async def test_the_clients_close_passes_unchanged(
    tmp_path: Path, code: int | None, reason: str
) -> None:
    async with pair(tmp_path) as p:
        sent, answer = close(code, reason), close(code, reason, masked=False)
        await p.client.send(HELLO + sent + HELLO)
        assert await p.upstream.exactly(len(HELLO + sent)) == HELLO + sent
        await p.upstream.send(answer)
        assert await p.client.rest() == answer
        p.upstream.writer.close()
        event = await p.closure()
        assert (event["code"], event["by"]) == (code or 1005, "client")
        assert "reason" not in event
        assert (event["client_messages"], event["upstream_messages"]) == (1, 0)
        assert event["client_bytes"] == len(HELLO + sent) - 12
        assert event["upstream_bytes"] == len(answer) - 2


@pytest.mark.parametrize(("code", "reason"), CODES)
async def test_the_upstreams_close_passes_unchanged(
    tmp_path: Path, code: int | None, reason: str
) -> None:
    async with pair(tmp_path) as p:
        sent, answer = close(code, reason, masked=False), close(code, reason)
        await p.upstream.send(BACK + sent + BACK)
        assert await p.client.exactly(len(BACK + sent)) == BACK + sent
        await p.client.send(answer + HELLO)
        assert await p.upstream.exactly(len(answer)) == answer
        p.upstream.writer.close()
        assert await p.client.rest() == b""
        assert await p.ending() == (code or 1005, "upstream", None)


async def test_an_upstream_may_hang_up_right_behind_its_close_frame(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        await p.upstream.send(close(1000, "bye", masked=False))
        p.upstream.writer.close()
        assert await p.client.exactly(7) == close(1000, "bye", masked=False)
        await p.client.send(close(1000))
        assert await p.client.rest() == b""
        assert await p.ending() == (1000, "upstream", None)


async def test_an_upstream_that_half_closes_behind_its_close_frame_gets_the_answer(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as p:
        await p.upstream.send(close(1000, masked=False))
        p.upstream.writer.write_eof()
        assert await p.client.exactly(4) == close(1000, masked=False)
        await p.client.send(close(1000))
        assert await p.upstream.rest() == close(1000)
        assert await p.ending() == (1000, "upstream", None)


async def test_a_client_that_half_closes_behind_its_close_frame_gets_the_answer(
    tmp_path: Path,
) -> None:
    async with pair(tmp_path) as p:
        await p.client.send(close(1000))
        p.client.writer.write_eof()
        assert await p.upstream.exactly(8) == close(1000)
        await p.upstream.send(close(1000, masked=False))
        assert await p.client.rest() == close(1000, masked=False)
        p.upstream.writer.close()
        assert await p.ending() == (1000, "client", None)


async def test_messages_may_still_come_between_the_two_close_frames(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        await p.client.send(close(1000))
        assert await p.upstream.exactly(8) == close(1000)
        await p.upstream.send(BACK)
        assert await p.client.exactly(len(BACK)) == BACK
        await p.upstream.send(close(1000, masked=False))
        p.upstream.writer.close()
        assert await p.client.rest() == close(1000, masked=False)
        assert await p.ending() == (1000, "client", None)


@ways
async def test_an_upstream_is_told_that_its_client_is_gone(
    tmp_path: Path, leave: Callable[[Raw], None]
) -> None:
    async with pair(tmp_path) as p:
        await p.client.send(HELLO)
        assert await p.upstream.exactly(len(HELLO)) == HELLO
        leave(p.client)
        telling = asyncio.create_task(masked_close(p.upstream))
        async with asyncio.timeout(5):
            while not p.link.upstream.farewell:
                await asyncio.sleep(0.005)
        p.upstream.writer.write_eof()
        assert await telling == (1001).to_bytes(2, "big")
        assert await p.ending() == (1006, "client", None)


@ways
async def test_a_client_that_is_gone_inside_a_frame_just_ends(
    tmp_path: Path, leave: Callable[[Raw], None]
) -> None:
    async with pair(tmp_path) as p:
        await p.client.send(HELLO + PART)
        assert await p.upstream.exactly(len(HELLO + PART)) == HELLO + PART
        leave(p.client)
        assert await p.upstream.rest() == b""
        assert await p.ending() == (1006, "client", None)


@ways
async def test_a_client_is_told_that_its_upstream_is_gone(
    tmp_path: Path, leave: Callable[[Raw], None]
) -> None:
    async with pair(tmp_path) as p:
        await p.upstream.send(BACK)
        assert await p.client.exactly(len(BACK)) == BACK
        leave(p.upstream)
        assert await p.client.rest() == close(1014, "upstream_lost", masked=False)
        p.client.writer.close()
        assert await p.ending() == (1014, "upstream", "upstream_lost")


@ways
async def test_an_upstream_that_is_gone_inside_a_frame_just_ends(
    tmp_path: Path, leave: Callable[[Raw], None]
) -> None:
    async with pair(tmp_path) as p:
        await p.upstream.send(BACK[:500])
        assert await p.client.exactly(500) == BACK[:500]
        leave(p.upstream)
        assert await p.client.rest() == b""
        assert await p.ending() == (1014, "upstream", "upstream_lost")


@ways
async def test_an_upstream_that_is_gone_without_an_answer_ends_the_closing(
    tmp_path: Path, leave: Callable[[Raw], None]
) -> None:
    async with pair(tmp_path) as p:
        await p.client.send(close(3000, "done"))
        assert (await p.upstream.exactly(12))[0] == 0x88
        leave(p.upstream)
        assert await p.client.rest() == close(3000, masked=False)
        assert await p.ending() == (3000, "client", None)


@ways
async def test_a_client_that_is_gone_without_an_answer_ends_the_closing(
    tmp_path: Path, leave: Callable[[Raw], None]
) -> None:
    async with pair(tmp_path) as p:
        await p.upstream.send(close(3000, "done", masked=False))
        assert (await p.client.exactly(8))[0] == 0x88
        leave(p.client)
        async with asyncio.timeout(5):
            while not p.link.client.lost:
                await asyncio.sleep(0.005)
        p.upstream.writer.close()
        assert await p.ending() == (3000, "upstream", None)


async def test_both_sides_may_vanish_at_the_same_time(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        p.client.reset()
        p.upstream.reset()
        assert await p.ending() in (
            (1006, "client", None),
            (1014, "upstream", "upstream_lost"),
        )


async def test_both_sides_may_close_at_the_same_time(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        await asyncio.gather(p.client.send(close(1000)), p.upstream.send(close(1000, masked=False)))
        assert await p.client.rest() == close(1000, masked=False)
        assert await p.upstream.exactly(8) == close(1000)
        p.upstream.writer.close()
        assert (await p.closure())["code"] == 1000


@ways
async def test_a_client_that_is_gone_while_the_upstream_sends_makes_no_noise(
    tmp_path: Path, leave: Callable[[Raw], None]
) -> None:
    async with pair(tmp_path) as p:
        header = frame(BINARY, bytes(1_000_000), masked=False)[:10]
        await p.upstream.send(header + bytes(1000))
        assert await p.client.exactly(1010) == header + bytes(1000)
        leave(p.client)
        assert (await p.upstream.exactly(8))[0] == 0x88
        for _ in range(50):
            await p.upstream.send(bytes(1000))
            await asyncio.sleep(0)
        p.upstream.writer.close()
        assert await p.ending() == (1006, "client", None)


async def test_the_sidecar_ends_a_connection_with_a_close_frame_to_both(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        p.running.sidecar.drain()
        assert await p.client.rest() == close(1012, "draining", masked=False)
        await p.client.send(close(1012))
        p.client.writer.close()
        p.upstream.writer.write_eof()
        assert await masked_close(p.upstream) == (1012).to_bytes(2, "big") + b"draining"
        assert await p.ending() == (1012, "sidecar", "draining")


async def test_a_frame_under_way_ends_before_the_sidecars_close_frame(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        await p.client.send(PART)
        await p.upstream.send(BACK[:500])
        assert await p.client.exactly(500) == BACK[:500]
        await moved(p)
        p.link.end(Reason.DRAINING)
        p.link.end(Reason.MESSAGE_RATE)  # it ends once
        await p.client.send(REST + HELLO + close(1012))
        assert await p.upstream.exactly(len(PART + REST)) == PART + REST
        await p.upstream.send(BACK[500:] + BACK)
        assert await p.client.exactly(len(BACK) - 500) == BACK[500:]
        assert await p.client.rest() == close(1012, "draining", masked=False)
        p.upstream.writer.write_eof()
        assert await masked_close(p.upstream) == (1012).to_bytes(2, "big") + b"draining"
        event = await p.closure()
        assert (event["code"], event["by"], event["reason"]) == (1012, "sidecar", "draining")
        assert (event["client_messages"], event["client_bytes"]) == (1, 1000)
        assert (event["upstream_messages"], event["upstream_bytes"]) == (1, 1000)


@pytest.mark.usefixtures("quick")
async def test_a_frame_that_does_not_end_in_time_is_cut(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        await p.client.send(PART)
        await moved(p)
        p.link.end(Reason.DRAINING)
        assert await p.upstream.rest() == PART
        p.client.writer.close()
        assert await p.ending() == (1012, "sidecar", "draining")


@pytest.mark.usefixtures("quick")
async def test_the_upstreams_frame_that_does_not_end_in_time_is_cut(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        await p.upstream.send(BACK[:500])
        assert await p.client.exactly(500) == BACK[:500]
        p.link.end(Reason.DRAINING)
        assert await p.client.rest() == b""
        p.upstream.writer.close()
        assert await p.ending() == (1012, "sidecar", "draining")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("half_closes", [False, True])
async def test_an_upstream_that_never_answers_is_cut(tmp_path: Path, half_closes: bool) -> None:
    async with pair(tmp_path) as p:
        await p.client.send(close(1000))
        if half_closes:
            p.client.writer.write_eof()
        assert await p.upstream.rest() == close(1000)
        assert await p.client.rest() == b""
        assert await p.ending() == (1000, "client", None)


@pytest.mark.usefixtures("quick")
async def test_a_client_that_never_answers_is_cut(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        await p.upstream.send(close(1000, masked=False))
        assert await p.client.rest() == close(1000, masked=False)
        assert await p.upstream.rest() == b""
        assert await p.ending() == (1000, "upstream", None)


@pytest.mark.usefixtures("quick")
async def test_sides_that_ignore_the_sidecars_close_frame_are_cut(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        p.running.sidecar.drain()
        assert await p.client.rest() == close(1012, "draining", masked=False)
        assert await masked_close(p.upstream) == (1012).to_bytes(2, "big") + b"draining"
        assert await p.ending() == (1012, "sidecar", "draining")


async def test_a_violation_during_the_closing_ends_it(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        await p.client.send(close(1000))
        assert await p.upstream.exactly(8) == close(1000)
        await p.upstream.send(frame(PING, b"masked"))
        assert await p.client.rest() == close(1000, masked=False)
        p.upstream.writer.close()
        assert await p.ending() == (1000, "client", None)


async def test_a_cut_connection_is_recorded_too(tmp_path: Path) -> None:
    async with pair(tmp_path) as p:
        p.link.abort()
        assert await p.client.rest() == b""
        assert await p.ending() == (1006, "sidecar", None)


async def test_nothing_of_a_connection_is_left_in_memory(tmp_path: Path) -> None:
    limits = {"messages": {"rate": "1/hour", "burst": 1, "on_exceed": "delay"}}
    kinds = (Link, Pipe, Tail)
    # Those of earlier tests, whose loops ended before their timers.
    earlier = [left for left in gc.get_objects() if type(left) in kinds]  # proxies lie, and raise
    async with pair(tmp_path, limits=limits) as p:
        await p.client.send(HELLO + HELLO)
        assert await p.upstream.exactly(len(HELLO)) == HELLO
        async with asyncio.timeout(5):
            while p.link.client.transport.is_reading():
                await asyncio.sleep(0.005)
        p.link.end(Reason.DRAINING)
        p.hang_up()
        await p.closure()
        await asyncio.sleep(0)
        gc.collect()
        found = [left for left in gc.get_objects() if type(left) in kinds]
        assert [left for left in found if left not in earlier] == []


async def test_a_tls_client_that_ends_behind_its_close_frame_makes_no_noise(
    tmp_path: Path,
) -> None:
    made = authority(tmp_path)
    certificate, key = made.issue("localhost")
    tls = {"tls": {"certificate": str(certificate), "key": str(key)}}
    trusting = ssl.create_default_context(cafile=made.ca)
    async with pair(tmp_path, server=tls, client_tls=trusting) as p:
        await p.client.send(close(1000))
        p.client.writer.close()
        assert await p.upstream.exactly(8) == close(1000)
        await p.upstream.send(close(1000, masked=False))
        p.upstream.writer.close()
        assert await p.ending() == (1000, "client", None)


@pytest.mark.usefixtures("quick")
async def test_a_tls_client_that_does_not_end_tls_is_cut(tmp_path: Path) -> None:
    made = authority(tmp_path)
    certificate, key = made.issue("localhost")
    tls = {"tls": {"certificate": str(certificate), "key": str(key)}}
    trusting = ssl.create_default_context(cafile=made.ca)
    async with pair(tmp_path, server=tls, client_tls=trusting) as p:
        p.client.stop_reading()  # so that it does not see the end either
        await p.client.send(close(1000))
        assert await p.upstream.exactly(8) == close(1000)
        await p.upstream.send(close(1000, masked=False))
        p.upstream.writer.close()
        assert await p.ending() == (1000, "client", None)


async def test_the_place_of_a_connection_that_has_ended_is_free(tmp_path: Path) -> None:
    async with pair(tmp_path, server={"max_connections": 1}) as p:
        async with raw(p.running.port) as full:
            await full.send(head("/ws"))
            assert (await full.refusal())["reason"] == "overloaded"
        p.hang_up()
        await p.closure()
        async with raw(p.running.port) as free:
            await free.send(head("/ws"))
            assert (await free.refusal())["reason"] == "token_missing"
