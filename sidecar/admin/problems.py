"""Errors of the admin listener as application/problem+json (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

__all__ = ["Refused", "with_problems"]

_ERROR_FIELDS: Final = (hdrs.ALLOW, hdrs.WWW_AUTHENTICATE)


class Refused(Exception):  # noqa: N818  # a way out, not an error
    """A request that cannot be done: the status, and what would be right. `retry_after` is in
    seconds.
    """

    def __init__(self, status: HTTPStatus, detail: str, *, retry_after: int | None = None) -> None:
        self.status = status
        self.detail = detail
        self.headers: dict[str, str] = (
            {} if retry_after is None else {hdrs.RETRY_AFTER: str(retry_after)}
        )
        super().__init__(detail)


@web.middleware
async def with_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Make an answer of whatever was raised. What was not foreseen is logged and tells nothing."""
    try:
        return await handler(request)
    except Refused as refused:
        return _problem(refused.status, refused.headers, detail=refused.detail)
    except web.HTTPException as error:
        headers = {
            str(name): error.headers[name] for name in _ERROR_FIELDS if name in error.headers
        }
        return _problem(error.status, headers)
    except Exception:
        structlog.get_logger().exception("admin_request_failed", path=request.path)
        return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, {})


def _problem(status: int, headers: Mapping[str, str], **members: str) -> web.Response:
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, **members}
    return web.json_response(
        body, status=status, headers=headers, content_type="application/problem+json"
    )
