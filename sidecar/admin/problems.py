"""Errors of the admin listener as application/problem+json (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

__all__ = ["Refused", "with_problems"]

_NO_PATH: Final = "there is no such path; those that there are stand in docs/admin-api.md"
_FAILED: Final = "the sidecar failed here; its log says why"


class Refused(Exception):  # noqa: N818  # a way out, not an error
    """A request that cannot be done: the status, and what would be right. `retry_after` is in
    seconds, `challenge` says how to show who one is (RFC 9110 section 11.6.1).
    """

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        retry_after: int | None = None,
        challenge: str | None = None,
    ) -> None:
        self.status = status
        self.detail = detail
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers[hdrs.RETRY_AFTER] = str(retry_after)
        if challenge is not None:
            self.headers[hdrs.WWW_AUTHENTICATE] = challenge
        super().__init__(detail)


@web.middleware
async def with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Make an answer of whatever was raised. What was not foreseen is logged and tells nothing."""
    try:
        return await handler(request)
    except Refused as refused:
        return _problem(refused.status, refused.headers, detail=refused.detail)
    except web.HTTPMethodNotAllowed as error:
        allow = error.headers[hdrs.ALLOW]
        detail = f"{error.method} is not for this path; use {allow.replace(',', ' or ')}"
        return _problem(error.status, {hdrs.ALLOW: allow}, detail=detail)
    except web.HTTPNotFound as error:
        return _problem(error.status, {}, detail=_NO_PATH)
    except Exception:
        structlog.get_logger().exception("admin_request_failed", path=request.path)
        return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, {}, detail=_FAILED)


def _problem(status: int, headers: Mapping[str, str], *, detail: str) -> web.Response:
    title = HTTPStatus(status).phrase
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return web.json_response(
        body, status=status, headers=headers, content_type="application/problem+json"
    )
