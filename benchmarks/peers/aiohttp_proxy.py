"""What most people write first: aiohttp on both sides, message by message, on uvloop.

It checks no token and no limit; the Origin is all it looks at.
"""

import argparse
import asyncio

import uvloop
from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSMsgType, web

ORIGIN = "https://app.example.com"
MAX_MESSAGE = 1024 * 1024
UPSTREAM = web.AppKey("upstream", str)
SESSION = web.AppKey("session", ClientSession)

Side = web.WebSocketResponse | ClientWebSocketResponse


async def pump(source: Side, target: Side) -> None:
    """Pass messages on until one side closes."""
    async for message in source:
        if message.type is WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type is WSMsgType.TEXT:
            await target.send_str(message.data)
    await target.close(code=source.close_code or 1000)


async def handle(request: web.Request) -> web.StreamResponse:
    """Accept, dial, and pump both ways."""
    if request.headers.get("Origin") != ORIGIN:
        raise web.HTTPForbidden
    client = web.WebSocketResponse(compress=False, max_msg_size=MAX_MESSAGE)
    app = request.app
    async with app[SESSION].ws_connect(app[UPSTREAM], max_msg_size=MAX_MESSAGE) as upstream:
        await client.prepare(request)
        await asyncio.gather(pump(client, upstream), pump(upstream, client))
    return client


async def serve(port: int, upstream: int) -> None:
    """Serve until the process is ended."""
    app = web.Application()
    app[UPSTREAM] = f"ws://127.0.0.1:{upstream}/"
    app.router.add_get("/{rest:.*}", handle)
    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        app[SESSION] = session
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
        await asyncio.Event().wait()


def main() -> None:
    """Parse the ports and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", type=int, required=True)
    args = parser.parse_args()
    uvloop.run(serve(args.port, args.upstream))


if __name__ == "__main__":
    main()
