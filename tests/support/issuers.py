"""An OpenID Connect issuer on this host."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web


class Issuer:
    """An issuer on the network: its key set and its metadata; `asked` counts."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.keys: dict[str, Any] = {"keys": []}
        self.asked: list[str] = []
        self.metadata: dict[str, Any] = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys.json",
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        if request.path == "/.well-known/openid-configuration":
            return web.json_response(self.metadata)
        if request.path == "/moved":
            raise web.HTTPFound("/keys.json")
        return web.json_response(self.keys)


@contextlib.asynccontextmanager
async def issuing(issuer: Issuer) -> AsyncIterator[Issuer]:
    """Let the issuer answer."""
    app = web.Application()
    app.router.add_get("/{path:.*}", issuer.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", issuer.port).start()
        yield issuer
    finally:
        await runner.cleanup()
