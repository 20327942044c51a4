"""The admin listener: probes, metrics and drain. It never shares a port with the public one."""

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from sidecar.policy.compiled import Admin

__all__ = ["Wiring", "build"]

_PROBES: Final = frozenset({"/livez", "/readyz"})
_HEADERS: Final = {
    hdrs.CACHE_CONTROL: "no-store",
    hdrs.SERVER: "ws-sidecar",  # aiohttp's own names its version and Python's
    "X-Content-Type-Options": "nosniff",
}
_BROWSER_FIELDS: Final = (hdrs.ORIGIN, "Sec-Fetch-Site")
_ERROR_FIELDS: Final = (hdrs.ALLOW, hdrs.WWW_AUTHENTICATE)


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the endpoints call.

    `metrics` gives the exposition and its content type for a request's Accept field, `readiness`
    what is not ready and why (empty means ready), and `drain` starts to drain.
    """

    metrics: Callable[[str], Awaitable[tuple[bytes, str]]]
    readiness: Callable[[], Awaitable[Mapping[str, str]]]
    drain: Callable[[], None]


def build(admin: Admin, *, token: Callable[[], bytes] | None, wiring: Wiring) -> web.Application:
    """The admin application.

    With a `token` (asked for at each request), every path but the probes (and /metrics where
    `admin.metrics_public`) takes it as a bearer token (RFC 6750 section 2.1) and answers 401
    without; with no `token` they are open to requests whose Host is an address or localhost.
    A drain is started once, however often the endpoint is called. Errors are
    application/problem+json (RFC 9457).
    """
    endpoints = _Endpoints(wiring)
    public = _PROBES | {"/metrics"} if admin.metrics_public else _PROBES
    # In this order: headers for every answer, errors made of exceptions, then the guard.
    app = web.Application(middlewares=[_with_headers, _with_problems, _guard(token, public)])
    app.add_routes(
        [
            web.get("/livez", endpoints.livez),
            web.get("/readyz", endpoints.readyz),
            web.get("/metrics", endpoints.metrics),
            web.post("/drain", endpoints.drain),
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

    async def drain(self, request: web.Request) -> web.Response:
        # On loopback there may be no token, and any web page may send a POST there (or have its
        # name point there). Programs send none of these fields; browsers cannot leave them out.
        if any(field in request.headers for field in _BROWSER_FIELDS):
            raise web.HTTPForbidden
        if not self._draining:
            self._wiring.drain()
            self._draining = True
        return web.json_response({"status": "draining"}, status=HTTPStatus.ACCEPTED)


@web.middleware
async def _with_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    response.headers.update(_HEADERS)
    return response


@web.middleware
async def _with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        headers = {
            str(name): error.headers[name] for name in _ERROR_FIELDS if name in error.headers
        }
        return _problem(error.status, headers)
    except Exception:
        structlog.get_logger().exception("admin_request_failed", path=request.path)
        return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, {})


def _problem(status: int, headers: Mapping[str, str]) -> web.Response:
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    return web.json_response(
        body, status=status, headers=headers, content_type="application/problem+json"
    )


def _guard(token: Callable[[], bytes] | None, public: frozenset[str]) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in public:
            return await handler(request)
        if token is None and not _is_local(request.host):
            raise web.HTTPForbidden
        if token is not None and not _bears(request, token()):
            raise web.HTTPUnauthorized(headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
        return await handler(request)

    return guard


def _is_local(host: str) -> bool:
    """Whether a Host field names no name that a stranger could point to this address: a web page
    that does (DNS rebinding) would read what is open on loopback.
    """
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    if name == "localhost":
        return True
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _bears(request: web.Request, token: bytes) -> bool:
    fields = request.headers.getall(hdrs.AUTHORIZATION, [])
    if len(fields) != 1:
        return False
    scheme, _, credential = fields[0].partition(" ")
    presented = credential.strip().encode("utf-8", "surrogateescape")
    return scheme.lower() == "bearer" and hmac.compare_digest(presented, token)
