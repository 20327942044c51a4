"""The load generator against a server that notes what it is sent."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks.build import build

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")

ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
CLOSE = b"\x88\x02\x03\xe8"


@pytest.fixture(scope="module")
def loadgen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    build(folder)
    return folder / "loadgen"


@asynccontextmanager
async def server(heads: list[list[str]], *answer: bytes) -> AsyncIterator[int]:
    """Answers every handshake, with a 101 or in these parts, and what follows with a close frame;
    notes the lines of each head.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"))
            for part in answer or (ANSWER,):
                writer.write(part)
                await asyncio.sleep(0.01)
            await reader.readexactly(8)
            writer.write(CLOSE)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


async def run(loadgen: Path, *flags: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        loadgen, *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, complaints = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), complaints.decode()


async def test_handshakes_take_the_headers_of_the_file_in_turn(
    loadgen: Path, tmp_path: Path
) -> None:
    lines = ["X-Turn: one", "X-Turn: two", "X-Turn: three"]
    file = tmp_path / "headers"
    file.write_text("\n".join(lines))
    heads: list[list[str]] = []
    async with server(heads) as port:
        code, output, _ = await run(
            *(loadgen, "handshake", "--port", str(port), "--connections", "1"),
            *("--seconds", "1", "--warmup", "0", "--header", "Origin: https://a.example"),
            *("--header-file", str(file), "--header-start", "2"),
        )
    assert code == 0
    sent = [[line for line in head if line.startswith("X-Turn")] for head in heads]
    assert sent == [[lines[(2 + number) % 3]] for number in range(len(heads))]
    assert len(heads) > 3
    assert all(
        head[-3].startswith("X-Turn") and "Origin: https://a.example" in head for head in heads
    )
    result = json.loads(output)
    assert result["errors"] == 0
    assert result["begun"] - len(heads) in (0, 1)  # the last may not have been read


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no lines"),
        ("X-A: 1\n\nX-B: 2\n", "line 2 is empty or too long"),
        ("X-A: " + 17_000 * "a", "line 1 is empty or too long"),
    ],
)
async def test_a_file_without_good_headers_is_refused(
    loadgen: Path, tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "headers"
    file.write_text(text)
    code, _, complaints = await run(loadgen, "handshake", "--port", "1", "--header-file", str(file))
    assert code == 1
    assert complaint in complaints


async def test_without_a_file_every_handshake_is_alike(loadgen: Path) -> None:
    heads: list[list[str]] = []
    async with server(heads) as port:
        code, _, _ = await run(
            *(loadgen, "handshake", "--port", str(port), "--connections", "2"),
            *("--seconds", "1", "--warmup", "0", "--header", "X-A: 1"),
        )
    assert code == 0
    assert heads
    assert all(head == heads[0] and head[-3] == "X-A: 1" for head in heads)


async def test_a_preface_comes_before_the_request(loadgen: Path) -> None:
    heads: list[list[str]] = []
    line = "PROXY TCP4 203.0.113.7 127.0.0.1 56324 8080"
    async with server(heads) as port:
        code, _, _ = await run(
            *(loadgen, "handshake", "--port", str(port), "--connections", "1"),
            *("--seconds", "1", "--warmup", "0", "--preface", line),
        )
    assert code == 0
    assert heads[0][:2] == [line, "GET / HTTP/1.1"]


UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n"


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, (UNAUTHORIZED + b"{}",)),
        (401, (UNAUTHORIZED[:20], UNAUTHORIZED[20:])),
        (101, (ANSWER + CLOSE,)),
        (101, (ANSWER, CLOSE)),
    ],
)
async def test_refusals_are_counted_where_they_are_wanted(
    loadgen: Path, status: int, answer: tuple[bytes, ...]
) -> None:
    heads: list[list[str]] = []
    async with server(heads, *answer) as port:
        code, output, _ = await run(
            *(loadgen, "handshake", "--port", str(port), "--connections", "2"),
            *("--seconds", "1", "--warmup", "0", "--refused", str(status)),
        )
    result = json.loads(output)
    assert code == 0
    assert result["errors"] == 0
    assert 0 < result["count"] <= len(heads) <= result["begun"]


@pytest.mark.parametrize(
    ("status", "answer", "error"),
    [
        (401, (ANSWER,), "HTTP/1.1 101"),
        (101, (UNAUTHORIZED,), "HTTP/1.1 401"),
        (101, (ANSWER + b"\x81\x00",), "HTTP/1.1 101"),
    ],
)
async def test_another_answer_than_the_refusal_is_an_error(
    loadgen: Path, status: int, answer: tuple[bytes, ...], error: str
) -> None:
    async with server([], *answer) as port:
        code, output, _ = await run(
            *(loadgen, "handshake", "--port", str(port), "--connections", "1"),
            *("--seconds", "1", "--warmup", "0", "--refused", str(status)),
        )
    result = json.loads(output)
    assert code == 1
    assert result["count"] == 0
    assert error in result["first_error"]


async def test_with_json_the_messages_are_texts_of_a_chat(loadgen: Path) -> None:
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first, second = await reader.readexactly(2)
                mask = await reader.readexactly(4)
                text = unmasked(await reader.readexactly(second & 0x7F), mask)
                received.append(bytes((first,)) + text)
                writer.write(bytes((first, len(text))) + text)
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        code, output, _ = await run(
            *(loadgen, "roundtrip", "--port", str(port), "--connections", "1", "--json"),
            *("--payload", "100", "--seconds", "0.2", "--warmup", "0"),
        )
    assert code == 0
    assert json.loads(output)["errors"] == 0
    assert {one[0] for one in received} == {0x81}
    texts = [json.loads(one[1:]) for one in received]
    assert all(text["type"] == "chat" and text["text"].startswith("xyzab") for text in texts)
    assert {len(one) for one in received} == {101}


async def test_idle_connections_answer_pings(loadgen: Path) -> None:
    pongs: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        first, second = await reader.readexactly(2)
        await reader.readexactly(4 + (second & 0x7F if second & 0x7F < 126 else 0))
        if second & 0x7F == 126:
            raise AssertionError("the message is longer than expected")
        writer.write(bytes((first, second & 0x7F)) + bytes(second & 0x7F))
        await asyncio.sleep(0.2)
        writer.write(b"\x89\x04ping")
        first, second = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        pongs.put_nowait((first, unmasked(await reader.readexactly(second & 0x7F), mask)))
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(loadgen, "idle", "--port", str(port), "--connections", "2", "--payload", "100"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            assert [await pongs.get() for _ in range(2)] == [(0x8A, b"ping")] * 2
            await process.communicate()


def unmasked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
