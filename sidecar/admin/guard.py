"""Who may ask the admin listener for what."""

import hmac
import re
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from sidecar.admin.problems import Refused

__all__ = ["guard"]

_BROWSER_FIELDS: Final = (hdrs.ORIGIN, "Sec-Fetch-Site")
_SAFE: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_WEB_PAGE: Final = "nothing is changed for a web page; send no Origin and no Sec-Fetch-Site"
_FOREIGN_HOST: Final = "ask for an IP address or localhost, not for another name"
_NO_TOKEN: Final = "send the admin token: Authorization: Bearer and the token"  # noqa: S105


def guard(token: Callable[[], bytes] | None, public: frozenset[str]) -> Middleware:
    """The middleware that lets requests to `public` paths pass, and others with the token; without
    one, those whose Host is an address or localhost.

    Nothing that changes something (RFC 9110 section 9.2.1) is taken from a web page, wherever it
    asks: on loopback there may be no token, and any page may send a POST there (or have its name
    point there). Programs send none of the fields that browsers cannot leave out.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method not in _SAFE and any(name in request.headers for name in _BROWSER_FIELDS):
            raise Refused(HTTPStatus.FORBIDDEN, _WEB_PAGE)
        if request.path in public:
            return await handler(request)
        if token is None and not _is_local(request.host):
            raise Refused(HTTPStatus.FORBIDDEN, _FOREIGN_HOST)
        if token is not None and not _bears(request, token()):
            raise Refused(HTTPStatus.UNAUTHORIZED, _NO_TOKEN, challenge="Bearer")
        return await handler(request)

    return middleware


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
    if scheme.lower() != "bearer" or not presented:  # nothing is no token, whatever is expected
        return False
    return hmac.compare_digest(presented, token)
