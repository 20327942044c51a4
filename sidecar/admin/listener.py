"""The admin listener's socket: opened, and closed."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from sidecar.admin.app import Wiring, build, guard_of
from sidecar.config.secrets import LiveToken
from sidecar.policy.compiled import Address, Admin

__all__ = ["AdminListener"]

_SHUTDOWN_TIMEOUT: Final = 1.0
_KEEPALIVE_TIMEOUT: Final = 30.0
"""Seconds that a socket may be without a request."""


class AdminListener:
    """Serves the admin application from `open` to `close`. `environ` is where the token's variable
    is looked up; `address` is where it really listens.
    """

    address: Address

    def __init__(self, admin: Admin, wiring: Wiring, environ: Mapping[str, str]) -> None:
        self._admin = admin
        self._wiring = wiring
        self._environ = environ
        self._guard = self.guard_for(admin)

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._guard(request, handler)

        self._runner = web.AppRunner(
            build(guarded, wiring),
            access_log=None,
            shutdown_timeout=_SHUTDOWN_TIMEOUT,
            keepalive_timeout=_KEEPALIVE_TIMEOUT,
        )

    @property
    def asked_for(self) -> Address:
        """Where the policy wants it to listen."""
        return self._admin.listen

    def guard_for(self, admin: Admin) -> Middleware:
        """The guard that these settings ask for. Raises KeyMaterialError for a token that cannot be
        used.
        """
        token = LiveToken(admin.token, self._environ).read if admin.token else None
        return guard_of(admin, token=token, wiring=self._wiring)

    def adopt(self, guard: Middleware) -> None:
        """Let this guard decide from now on."""
        self._guard = guard

    async def open(self) -> None:
        """Listen; `address` is known then (a port 0 was chosen by the system). Raises OSError."""
        await self._runner.setup()
        address = self._admin.listen
        site: web.BaseSite
        if address.unix is not None:
            site = web.UnixSite(self._runner, address.unix)
        else:
            site = web.TCPSite(self._runner, address.host, address.port)
        await site.start()
        bound = self._runner.addresses[0]
        self.address = address if address.unix else Address(bound[0], bound[1])

    async def close(self) -> None:
        """Stop listening, and end the requests under way."""
        await self._runner.cleanup()
