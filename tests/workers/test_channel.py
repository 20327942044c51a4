"""What parent and worker say to each other."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
import structlog

from sidecar.errors import WorkerError
from sidecar.workers import channel as module
from sidecar.workers.channel import Body, Channel, Verb


async def double(body: Body) -> Body:
    return {"number": 2 * body["number"]}


async def refuse(_: Body) -> Body:
    raise WorkerError("not today")


async def fail(_: Body) -> Body:
    raise RuntimeError("inner")


async def never(_: Body) -> Body:
    await asyncio.Event().wait()
    return {}


VERBS: Mapping[str, Verb] = {"double": double, "refuse": refuse, "fail": fail, "never": never}


@pytest.fixture
def log() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[Channel, Channel]]:
    sockets = socket.socketpair()
    first, second = [await Channel.open(sock, VERBS) for sock in sockets]
    try:
        yield first, second
    finally:
        await first.close()
        await second.close()


@contextlib.asynccontextmanager
async def by_hand() -> AsyncIterator[tuple[Channel, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A channel, and the other end as bare streams."""
    ours, theirs = socket.socketpair()
    channel = await Channel.open(ours, VERBS)
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    try:
        yield channel, reader, writer
    finally:
        await channel.close()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_both_sides_ask_and_answer() -> None:
    async with pair() as ends:
        for channel in ends:
            assert await channel.ask("double", {"number": 21}, within=5) == {"number": 42}


async def test_many_questions_at_once_get_their_own_answers() -> None:
    async with pair() as (channel, _):
        asked = [channel.ask("double", {"number": n}, within=5) for n in range(50)]
        assert [one["number"] for one in await asyncio.gather(*asked)] == list(range(0, 100, 2))


async def test_an_error_is_told_in_its_own_words() -> None:
    async with pair() as (channel, _):
        with pytest.raises(WorkerError, match=r"^not today$"):
            await channel.ask("refuse", {}, within=5)


@pytest.mark.parametrize("verb", ["fail", "unknown"])
async def test_a_failure_is_logged_and_told_in_short(log: list[Any], verb: str) -> None:
    async with pair() as (channel, _):
        with pytest.raises(WorkerError, match=f"^{verb} failed; the log says more$"):
            await channel.ask(verb, {}, within=5)
        assert await channel.ask("double", {"number": 1}, within=5) == {"number": 2}
    assert [(line["event"], line["verb"]) for line in log] == [("worker_verb_failed", verb)]


async def test_what_is_not_answered_in_time_is_left_and_harms_nobody() -> None:
    async with by_hand() as (channel, reader, writer):
        with pytest.raises(WorkerError, match=r"no answer to late within 0.01 s"):
            await channel.ask("late", {}, within=0.01)
        question = json.loads(await reader.readline())
        writer.write(json.dumps({"id": question["id"], "answer": {}}).encode() + b"\n")
        other = asyncio.create_task(channel.ask("other", {}, within=5))
        question = json.loads(await reader.readline())
        for _ in range(2):  # an answer twice is one answer
            writer.write(json.dumps({"id": question["id"], "answer": {"a": 1}}).encode() + b"\n")
        assert await other == {"a": 1}


async def test_a_large_message_fits() -> None:
    text = "x" * 5_000_000
    sockets = socket.socketpair()

    async def length(body: Body) -> Body:
        return {"length": len(body["text"])}

    first, second = [await Channel.open(sock, {"length": length}) for sock in sockets]
    assert await first.ask("length", {"text": text}, within=10) == {"length": len(text)}
    await first.close()
    await second.close()


async def test_a_message_that_is_too_large_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGE", 1000)
    async with pair() as (channel, _):
        with pytest.raises(WorkerError, match=r"a message of 10.. bytes is over 1000"):
            await channel.ask("double", {"text": "x" * 1000}, within=5)
        assert await channel.ask("double", {"number": 1}, within=5) == {"number": 2}


async def test_an_answer_that_is_too_large_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(_: Body) -> Body:
        return {"text": "x" * 1000}

    monkeypatch.setattr(module, "MAX_MESSAGE", 1000)
    first, second = [await Channel.open(sock, {"tell": tell}) for sock in socket.socketpair()]
    with pytest.raises(WorkerError, match=r"a message of 10.. bytes is over 1000"):
        await first.ask("tell", {}, within=5)
    await first.close()
    await second.close()


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"[]\n", b"{}\n", b"5\n", b'{"verb": 1}\n', b"x" * 2000 + b"\n"]
)
async def test_nonsense_ends_the_channel(
    log: list[Any], monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    monkeypatch.setattr(module, "MAX_MESSAGE", 1000)
    async with by_hand() as (channel, _, writer):
        asked = asyncio.create_task(channel.ask("double", {}, within=5))
        await asyncio.sleep(0)
        writer.write(line)
        with pytest.raises(WorkerError, match="gone"):
            await asked
        await channel.ended()
        assert not channel.is_open
    assert [one["event"] for one in log] == ["worker_channel_broken"]


async def test_an_answer_before_the_nonsense_is_an_answer(log: list[Any]) -> None:
    async with by_hand() as (channel, reader, writer):
        asked = asyncio.create_task(channel.ask("double", {}, within=5))
        question = json.loads(await reader.readline())
        writer.write(json.dumps({"id": question["id"], "answer": {}}).encode() + b"\nnonsense\n")
        assert await asked == {}
        await channel.ended()
    assert [one["event"] for one in log] == ["worker_channel_broken"]


async def test_the_other_ends_end_is_the_end() -> None:
    async with pair() as (channel, other):
        asked = asyncio.create_task(channel.ask("never", {}, within=5))
        while not other._answering:
            await asyncio.sleep(0)
        assert channel.is_open
        await other.close()
        with pytest.raises(WorkerError, match="the other process is gone"):
            await asked
        await channel.ended()
        with pytest.raises(WorkerError, match="the other process is gone"):
            await channel.ask("double", {"number": 1}, within=5)


async def test_the_end_with_something_unread_is_the_end() -> None:
    async with by_hand() as (channel, _, writer):
        with pytest.raises(WorkerError, match="no answer"):
            await channel.ask("unread", {}, within=0.01)
        writer.transport.abort()
        await channel.ended()


async def test_nobody_waits_for_an_answer_to_a_channel_that_is_closed() -> None:
    async with pair() as (channel, other):
        asked = asyncio.create_task(channel.ask("never", {}, within=5))
        while not other._answering:
            await asyncio.sleep(0)
        await channel.close()
        with pytest.raises(WorkerError, match="gone"):
            await asked
