"""A chat server without any authentication: whoever connects to /ws/<room> is in the room.

It stands for the server that cannot be changed. It greets each client with the identity headers
that it was sent, so that one can see what the sidecar told it.
"""

import argparse
import asyncio
import contextlib
import json
import signal
from collections import defaultdict

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

ROOMS: dict[str, set[ServerConnection]] = defaultdict(set)


async def chat(connection: ServerConnection) -> None:
    """Greet one client, then hand on what it says to everyone in its room."""
    assert connection.request is not None
    room = ROOMS[connection.request.path]
    seen = {
        name: value
        for name, value in connection.request.headers.raw_items()
        if name.lower().startswith("x-")
    }
    await connection.send(json.dumps({"type": "welcome", "headers": seen}))
    room.add(connection)
    try:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                broadcast(room, message)
    finally:
        room.discard(connection)


async def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9000)
    args = parser.parse_args()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serve(chat, "127.0.0.1", args.port):
        print(f"chat server on ws://127.0.0.1:{args.port}, for everyone", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
