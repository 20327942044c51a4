"""Bodies of requests, bounded in size and time before anything is made of them."""

import asyncio
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from sidecar.admin.problems import Refused

__all__ = ["PATIENCE", "read_body"]

PATIENCE: Final = 10.0
"""Seconds for a whole body."""


async def read_body(request: web.Request, content_type: str, limit: int) -> bytes:
    """The body, of this type and of `limit` bytes at most. Raises Refused."""
    if request.content_type != content_type or hdrs.CONTENT_ENCODING in request.headers:
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send the body as {content_type}")
    try:
        async with asyncio.timeout(PATIENCE):
            return await _read(request, limit)
    except TimeoutError:
        raise Refused(HTTPStatus.REQUEST_TIMEOUT, "the body did not come in time") from None
    except (ConnectionError, web.RequestPayloadError):
        raise Refused(HTTPStatus.BAD_REQUEST, "the body broke off") from None


async def _read(request: web.Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send a body of at most {limit} bytes"
            )
    return bytes(body)
