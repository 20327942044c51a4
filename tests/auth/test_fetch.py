"""JWK sets over the network, from issuers that misbehave."""

import datetime
import gzip
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sidecar.auth import fetch
from sidecar.auth.fetch import FetchError, fetch_jwks, new_session
from sidecar.policy.providers import Discovery, JwksUrl

if TYPE_CHECKING:
    from tests.auth.conftest import Issuer


@pytest.fixture
async def session() -> AsyncIterator[ClientSession]:
    async with new_session() as session:
        yield session


def at(url: str, *, allow_http: bool = True) -> JwksUrl:
    return JwksUrl(url, refresh=600, allow_http=allow_http)


async def test_the_document_is_fetched_as_it_is(issuer: "Issuer", session: ClientSession) -> None:
    issuer.body = b"any bytes"
    assert await fetch_jwks(session, at(issuer.url)) == b"any bytes"


async def test_http_is_refused_unless_asked_for(issuer: "Issuer", session: ClientSession) -> None:
    with pytest.raises(FetchError, match="not https"):
        await fetch_jwks(session, at(issuer.url, allow_http=False))
    assert issuer.requests == []


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("file:///etc/passwd", "not https"),
        ("ftp://issuer.example/jwks", "not https"),
        ("//issuer.example/jwks", "not https"),
        ("issuer.example", "not https"),
        ("", "not https"),
        ("https://[::1", "not a URL"),
        ("https://issuer.example:99999/", "not a URL"),
        ("https:///jwks", "has no host"),
    ],
)
async def test_what_is_no_https_url_is_refused(
    session: ClientSession, url: str, wrong: str
) -> None:
    with pytest.raises(FetchError, match=wrong):
        await fetch_jwks(session, at(url))


@pytest.mark.parametrize("status", [204, 304, 400, 401, 404, 500, 503])
async def test_any_status_but_200_is_an_error(
    issuer: "Issuer", session: ClientSession, status: int
) -> None:
    issuer.status = status
    with pytest.raises(FetchError, match=f"answered {status}$"):
        await fetch_jwks(session, at(issuer.url))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(
    issuer: "Issuer", session: ClientSession, status: int
) -> None:
    issuer.status = status
    issuer.headers = {"Location": f"{issuer.root}/elsewhere"}
    with pytest.raises(FetchError, match=f"answered {status}$"):
        await fetch_jwks(session, at(issuer.url))
    assert [request.path for request in issuer.requests] == ["/jwks"]


async def test_an_issuer_that_hangs_is_given_up(
    issuer: "Issuer", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT", 0.05)
    issuer.hang = True
    async with new_session() as session:
        with pytest.raises(FetchError, match="did not answer within"):
            await fetch_jwks(session, at(issuer.url))


async def test_a_gigabyte_is_not_read(issuer: "Issuer", session: ClientSession) -> None:
    issuer.endless = True
    with pytest.raises(FetchError, match="more than 512 KiB"):
        await fetch_jwks(session, at(issuer.url))
    assert issuer.sent < 64 * 2**20


async def test_the_largest_document_is_512_kib(issuer: "Issuer", session: ClientSession) -> None:
    issuer.body = b" " * (512 * 1024)
    assert await fetch_jwks(session, at(issuer.url)) == issuer.body
    issuer.body += b" "
    with pytest.raises(FetchError, match="more than 512 KiB"):
        await fetch_jwks(session, at(issuer.url))


async def test_a_compressed_bomb_is_not_inflated(issuer: "Issuer", session: ClientSession) -> None:
    issuer.body = gzip.compress(b" " * 2**24)
    issuer.headers = {"Content-Encoding": "gzip"}
    assert await fetch_jwks(session, at(issuer.url)) == issuer.body
    assert issuer.requests[0].headers["Accept-Encoding"] == "identity"


async def test_cookies_are_not_kept(issuer: "Issuer", session: ClientSession) -> None:
    issuer.headers = {"Set-Cookie": "a=b"}
    address = issuer.url.replace("127.0.0.1", "localhost")
    for _ in range(2):
        await fetch_jwks(session, at(address))
    assert "Cookie" not in issuer.requests[1].headers


async def test_an_issuer_that_is_not_there_is_an_error(session: ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(FetchError, match="Cannot connect to host") as caught:
        await fetch_jwks(session, at(f"http://127.0.0.1:{port}/jwks?key=canary"))
    assert "canary" not in str(caught.value)


async def test_an_issuer_that_breaks_off_is_an_error(session: ClientSession) -> None:
    async def cut(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_get("/", cut)
    async with TestServer(app) as server:
        address = str(server.make_url("/?key=canary"))
        with pytest.raises(FetchError, match="could not be asked") as caught:
            await fetch_jwks(session, at(address))
    assert "canary" not in str(caught.value)


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), 1, start, start + datetime.timedelta(days=2)
    ).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    (folder / "server.pem").write_bytes(pem + chain)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "server.pem")
    return context


async def test_an_issuer_with_an_untrusted_certificate_is_an_error(
    session: ClientSession, tmp_path: Path
) -> None:
    async def jwks(request: web.Request) -> web.Response:
        return web.Response(body=b"{}")

    app = web.Application()
    app.router.add_get("/", jwks)
    server = TestServer(app)
    await server.start_server(ssl=self_signed(tmp_path))
    try:
        address = str(server.make_url("/").with_scheme("https"))
        with pytest.raises(FetchError, match=r"(?i)certificate"):
            await fetch_jwks(session, at(address))
    finally:
        await server.close()


# --- discovery


def found(publisher: "Issuer", /, **fields: object) -> Discovery:
    """Let the issuer publish its metadata with some members replaced, and look there."""
    metadata = {"issuer": publisher.root, "jwks_uri": publisher.url, **fields}
    publisher.metadata = json.dumps({k: v for k, v in metadata.items() if v is not ...}).encode()
    return Discovery(publisher.root, refresh=600, allow_http=True)


async def test_discovery_finds_the_jwk_set(issuer: "Issuer", session: ClientSession) -> None:
    assert await fetch_jwks(session, found(issuer)) == issuer.body
    assert [request.path for request in issuer.requests] == [
        "/.well-known/openid-configuration",
        "/jwks",
    ]


async def test_a_path_of_the_issuer_is_kept_without_its_last_slash(
    issuer: "Issuer", session: ClientSession
) -> None:
    tenant = f"{issuer.root}/tenant/"
    found(issuer, issuer=tenant)
    await fetch_jwks(session, Discovery(tenant, refresh=600, allow_http=True))
    assert issuer.requests[0].path == "/tenant/.well-known/openid-configuration"


@pytest.mark.parametrize("name", ["https://evil.example", "", None, ["x"], ...])
async def test_metadata_of_another_issuer_are_refused(
    issuer: "Issuer", session: ClientSession, name: object
) -> None:
    with pytest.raises(FetchError, match="another issuer's"):
        await fetch_jwks(session, found(issuer, issuer=name))


async def test_the_issuer_must_be_named_exactly(issuer: "Issuer", session: ClientSession) -> None:
    with pytest.raises(FetchError, match="another issuer's"):
        await fetch_jwks(session, found(issuer, issuer=issuer.root + "/"))


@pytest.mark.parametrize("uri", [None, 1, ["https://a.example"], ...])
async def test_metadata_without_a_jwks_uri_are_refused(
    issuer: "Issuer", session: ClientSession, uri: object
) -> None:
    with pytest.raises(FetchError, match="no jwks_uri"):
        await fetch_jwks(session, found(issuer, jwks_uri=uri))


async def test_the_jwks_uri_must_be_https_too(issuer: "Issuer", session: ClientSession) -> None:
    with pytest.raises(FetchError, match="not https"):
        await fetch_jwks(session, found(issuer, jwks_uri="file:///etc/passwd"))


async def test_a_discovery_over_http_must_be_asked_for(
    issuer: "Issuer", session: ClientSession
) -> None:
    found(issuer)
    with pytest.raises(FetchError, match="not https"):
        await fetch_jwks(session, Discovery(issuer.root, refresh=600))
    assert issuer.requests == []


@pytest.mark.parametrize("metadata", [b"", b"<html>", b"[]", b'{"issuer": 1, "issuer": 2}'])
async def test_metadata_that_are_no_json_object_are_refused(
    issuer: "Issuer", session: ClientSession, metadata: bytes
) -> None:
    source = found(issuer)
    issuer.metadata = metadata
    with pytest.raises(FetchError, match="metadata is not"):
        await fetch_jwks(session, source)
