"""The forwarder as a process, in clear and with TLS."""

import asyncio
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from benchmarks import forwarder
from benchmarks.credentials import write_certificate


@asynccontextmanager
async def forwarding(to: int, *flags: str) -> AsyncIterator[int]:
    """The port of a forwarder that listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, forwarder.__file__, "--port", str(port), "--to", str(to), *flags)
    )
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
                else:
                    break
        writer.close()
        yield port
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def echo(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Echoes one line of each connection in capitals and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def exchange(port: int, line: bytes) -> bytes:
    """What comes back until the other side hangs up; the line is sent at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line)
    try:
        async with asyncio.timeout(30):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("size", [1, 100_000 // 2])
async def test_bytes_go_both_ways_and_so_does_the_end(size: int) -> None:
    async with echo() as to, forwarding(to) as port:
        assert await exchange(port, size * b"a" + b"\n") == size * b"A" + b"\n"


async def test_the_other_leg_speaks_tls(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
    async with echo(context) as to, forwarding(to, "--ca", str(tmp_path / "server.pem")) as port:
        assert await exchange(port, b"hello\n") == b"HELLO\n"


async def test_a_proxy_that_is_not_there_ends_the_connection() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        async with forwarding(nobody.getsockname()[1]) as port:
            assert await exchange(port, b"hello\n") == b""
