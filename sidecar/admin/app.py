"""The admin listener: probes, metrics, drain, API. It never shares a port with the public one."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from sidecar.admin.api import LOGOUT_PATH, Api
from sidecar.admin.guard import guard
from sidecar.admin.problems import with_problems
from sidecar.policy.compiled import Admin

__all__ = ["Wiring", "build", "guard_of"]

_PROBES: Final = frozenset({"/livez", "/readyz"})
_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "no-store",
    hdrs.SERVER: "ws-sidecar",  # aiohttp's own names its version and Python's
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the endpoints call.

    `metrics` gives the exposition and its content type for a request's Accept field, `readiness`
    what is not ready and why (empty means ready), and `drain` starts to drain. `api` adds its
    paths where there is one.
    """

    metrics: Callable[[str], Awaitable[tuple[bytes, str]]]
    readiness: Callable[[], Awaitable[Mapping[str, str]]]
    drain: Callable[[], None]
    api: Api | None = None


def guard_of(admin: Admin, *, token: Callable[[], bytes] | None, wiring: Wiring) -> Middleware:
    """Who may ask for what.

    With a `token` (asked for at each request), every path but the probes and the logout of OpenID
    Connect issuers, which signs for itself (and /metrics where `admin.metrics_public`), takes it as
    a bearer token (RFC 6750 section 2.1) and answers 401 without; with no `token` they are open to
    requests whose Host is an address or localhost. Nothing is changed for a web page.
    """
    public = _PROBES | {"/metrics"} if admin.metrics_public else _PROBES
    if wiring.api is not None:
        public |= {LOGOUT_PATH}
    return guard(token, public)


def build(guarded: Middleware, wiring: Wiring) -> web.Application:
    """The admin application behind its guard. A drain is started once, however often the endpoint
    is called. Errors are application/problem+json (RFC 9457).
    """
    endpoints = _Endpoints(wiring)
    # In this order: headers for every answer, errors made of exceptions, then the guard.
    app = web.Application(middlewares=[_with_headers, with_problems, guarded])
    app.add_routes(
        [
            web.get("/livez", endpoints.livez),
            web.get("/readyz", endpoints.readyz),
            web.get("/metrics", endpoints.metrics),
            web.post("/drain", endpoints.drain),
            *(wiring.api.routes() if wiring.api is not None else ()),
        ]
    )
    return app


class _Endpoints:
    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._draining = False

    async def livez(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(self, _request: web.Request) -> web.Response:
        problems = dict(await self._wiring.readiness())
        if not problems:
            return web.json_response({"status": "ready"})
        body = {"status": "not ready", "problems": problems}
        return web.json_response(body, status=HTTPStatus.SERVICE_UNAVAILABLE)

    async def metrics(self, request: web.Request) -> web.Response:
        accept = ",".join(request.headers.getall(hdrs.ACCEPT, []))
        body, content_type = await self._wiring.metrics(accept)
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    async def drain(self, _request: web.Request) -> web.Response:
        if not self._draining:
            self._wiring.drain()
            self._draining = True
        return web.json_response({"status": "draining"}, status=HTTPStatus.ACCEPTED)


@web.middleware
async def _with_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    response.headers.update(_HEADERS)
    return response
