"""Errors of the admin listener as application/problem+json (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

__all__ = ["with_problems"]

_ERROR_FIELDS: Final = (hdrs.ALLOW, hdrs.WWW_AUTHENTICATE)


@web.middleware
async def with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Make an answer of whatever was raised. What was not foreseen is logged and tells nothing."""
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
