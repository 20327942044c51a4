"""A network of its own, cut in the middle of a live connection: run as

    unshare -rn python -m tests.support.cut_link client|upstream FOLDER

The sidecar reaches one side over the loopback interface of a new network namespace, which is taken
down, and the other side over a Unix socket. Nobody is told of the cut. The end of the connection is
in FOLDER/audit.jsonl.
"""

import asyncio
import fcntl
import socket
import struct
import sys
from pathlib import Path

from tests.support.audits import audit_to
from tests.support.clients import Raw, head
from tests.support.sidecars import policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import switching

SESSION = {"heartbeat": {"interval": "1s", "timeout": "1s"}}
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


def set_loopback(*, up: bool) -> None:
    """Switch the namespace's only interface (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name = b"lo".ljust(16, b"\0")
        answer = fcntl.ioctl(sock, SIOCGIFFLAGS, name + bytes(24))
        flags = struct.unpack_from("H", answer, 16)[0]
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        fcntl.ioctl(sock, SIOCSIFFLAGS, name + struct.pack("H", flags) + bytes(22))


async def main(which: str, folder: Path) -> None:
    set_loopback(up=True)
    accepted: asyncio.Queue[Raw] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = Raw(reader, writer)
        await upstream.send(switching(await upstream.response()))
        accepted.put_nowait(upstream)

    path = str(folder / "s.sock")
    if which == "client":
        server = await asyncio.start_unix_server(serve, path)
        listen, url = "127.0.0.1:0", f"unix:{path}"
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        listen, url = f"unix:{path}", f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    policy = policy_of(
        url,
        route={"session": SESSION},
        server={"listen": [listen]},
        admin=None,
        logging=audit_to(folder / "audit.jsonl"),
    )
    async with sidecar(policy, folder) as it:
        if which == "client":
            streams = await asyncio.open_connection("127.0.0.1", it.port)
        else:
            streams = await asyncio.open_unix_connection(path)
        client = Raw(*streams)
        await client.send(head("/ws", "Authorization: Bearer " + token()))
        await client.response()
        upstream = await accepted.get()
        set_loopback(up=False)
        if which == "client":
            # Its close frame shows that the upstream is not kept waiting.
            assert (await upstream.exactly(1, 60)) == b"\x88"
            upstream.writer.close()
        else:
            answering = asyncio.create_task(answer_pings(client))
            await it.until_idle(60)
            answering.cancel()
        await it.until_idle(60)


async def answer_pings(client: Raw) -> None:
    """Any byte will do: an empty pong for whatever comes."""
    while await client.reader.read(65536):
        await client.send(b"\x8a\x80\x00\x00\x00\x00")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
