"""JWK sets over the network: bounded in time and size, never redirected."""

from typing import Final

from aiohttp import ClientConnectorError, ClientError, ClientSession, ClientTimeout, DummyCookieJar
from yarl import URL

from sidecar.errors import SidecarError
from sidecar.policy.keys import MAX_SET_BYTES
from sidecar.policy.providers import Discovery, JwksUrl
from sidecar.policy.strict_json import json_object

__all__ = ["TIMEOUT", "FetchError", "fetch_jwks", "new_session"]

TIMEOUT: Final = 5.0
"""Seconds for one document, from the name's look-up to the last byte."""

_WELL_KNOWN: Final = "/.well-known/openid-configuration"
_CHUNK: Final = 16 * 1024


class FetchError(SidecarError):
    """A document could not be had. The text names no query and no content."""


def new_session() -> ClientSession:
    """A session for key fetches. Compression is neither asked for nor undone, so that the limit
    counts what is held in memory; cookies are not kept.
    """
    return ClientSession(
        timeout=ClientTimeout(total=TIMEOUT),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )


async def fetch_jwks(session: ClientSession, source: JwksUrl | Discovery) -> bytes:
    """The JWK set's document, which is not parsed. Raises FetchError."""
    if isinstance(source, JwksUrl):
        return await _get(session, source.url, allow_http=source.allow_http)
    url = await _discover(session, source)
    return await _get(session, url, allow_http=source.allow_http)


async def _discover(session: ClientSession, source: Discovery) -> str:
    """The jwks_uri of an issuer.

    The metadata must name the configured issuer exactly (OpenID Connect Discovery 1.0 section
    4.3, RFC 8414 section 3.3); else anyone who can answer for one issuer could speak for another.
    """
    address = source.issuer.removesuffix("/") + _WELL_KNOWN
    document = await _get(session, address, allow_http=source.allow_http)
    try:
        metadata = json_object(document)
    except ValueError as error:
        raise FetchError(f"the issuer's metadata is {error}") from None
    if metadata.get("issuer") != source.issuer:
        raise FetchError("the metadata is another issuer's")
    url = metadata.get("jwks_uri")
    if not isinstance(url, str):
        raise FetchError("the metadata has no jwks_uri")
    return url


async def _get(session: ClientSession, address: str, *, allow_http: bool) -> bytes:
    url = _checked(address, allow_http)
    try:
        async with session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise FetchError(f"{url.host} answered {response.status}")
            document = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                document += chunk
                if len(document) > MAX_SET_BYTES:
                    raise FetchError(f"{url.host} sent more than 512 KiB")
            return bytes(document)
    except TimeoutError:
        raise FetchError(f"{url.host} did not answer within {TIMEOUT:g} s") from None
    except ClientConnectorError as error:
        raise FetchError(str(error)) from None
    except (ClientError, OSError, ValueError) as error:
        raise FetchError(f"{url.host} could not be asked ({type(error).__name__})") from None


def _checked(address: str, allow_http: bool) -> URL:
    try:
        url = URL(address)
    except ValueError:
        raise FetchError("the address is not a URL") from None
    if url.scheme != "https" and not (allow_http and url.scheme == "http"):
        raise FetchError("the address is not https")
    if not url.host:
        raise FetchError("the address has no host")
    return url
