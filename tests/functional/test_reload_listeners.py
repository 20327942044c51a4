"""Another policy for the sockets: what it leaves as it was is neither opened nor closed."""

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.certificates import authority
from tests.support.reloads import reload
from tests.support.sidecars import ENVIRON, Running, policy_of, sidecar
from tests.support.tokens import token
from tests.support.upstreams import websocket_server

BEARER = {"Authorization": "Bearer " + token()}
ANY = "127.0.0.1:0"


def trusting(ca: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(ca))


async def echoes(client: ClientConnection, message: str = "still here") -> bool:
    await client.send(message)
    return await asyncio.wait_for(client.recv(), 5) == message


async def serves(it: Running, number: int = 0, **options: Any) -> bool:
    address = it.sidecar.public[number]
    scheme = "wss" if "ssl" in options else "ws"
    url = f"{scheme}://{address.host}:{address.port}"
    async with connect(url, additional_headers=BEARER, **options) as client:
        return await echoes(client)


async def test_an_address_that_comes_or_goes_leaves_the_others_alone(tmp_path: Path) -> None:
    unix = tmp_path / "s.sock"
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path) as it,
        connect(it.url, additional_headers=BEARER) as client,
    ):
        port = it.port
        both = policy_of(url, server={"listen": [f"unix:{unix}", ANY]})
        await reload(it, tmp_path, both)
        assert [str(address) for address in it.sidecar.public] == [
            f"unix:{unix}",
            f"127.0.0.1:{port}",
        ]
        assert await serves(it, 1)
        reader, writer = await asyncio.open_unix_connection(str(unix))
        await reload(it, tmp_path, policy_of(url))
        assert not unix.exists()
        assert it.port == port
        assert await serves(it)
        # What the address that is gone had accepted is served yet.
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await writer.wait_closed()
        assert await echoes(client)


async def test_connections_outlive_their_address(tmp_path: Path) -> None:
    async with (
        websocket_server() as url,
        sidecar(policy_of(url), tmp_path) as it,
        connect(it.url, additional_headers=BEARER) as client,
    ):
        port = it.port
        await reload(it, tmp_path, policy_of(url, server={"listen": ["[::1]:0"]}))
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert await echoes(client)


async def test_tls_comes_and_goes_on_the_same_address(tmp_path: Path) -> None:
    ours = authority(tmp_path)
    certificate, key = ours.issue("127.0.0.1")
    unix = tmp_path / "s.sock"
    listen = [ANY, f"unix:{unix}"]
    tls = {"certificate": str(certificate), "key": str(key)}
    async with (
        websocket_server() as url,
        sidecar(policy_of(url, server={"listen": listen}), tmp_path) as it,
        connect(it.url, additional_headers=BEARER) as client,
    ):
        bound = it.sidecar.public
        for _ in range(2):
            await reload(it, tmp_path, policy_of(url, server={"listen": listen, "tls": tls}))
            assert await serves(it, ssl=trusting(ours.ca))
            with pytest.raises(Exception):  # noqa: B017, PT011  # it is no TLS that is offered
                await serves(it, open_timeout=3)
            await reload(it, tmp_path, policy_of(url, server={"listen": listen}))
            assert await serves(it)
            _, writer = await asyncio.open_unix_connection(str(unix))
            writer.close()
            await writer.wait_closed()
        assert it.sidecar.public == bound
        assert await echoes(client)
    assert not unix.exists()


async def test_the_proxy_protocol_is_asked_for_from_then_on(tmp_path: Path) -> None:
    async with websocket_server() as url, sidecar(policy_of(url), tmp_path) as it:
        server = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]}
        await reload(it, tmp_path, policy_of(url, server=server))
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n")
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await writer.wait_closed()
        with pytest.raises(Exception):  # noqa: B017, PT011  # it has no header
            await serves(it, open_timeout=3)


async def test_another_certificate_is_shown_from_then_on(tmp_path: Path) -> None:
    old, new = authority(tmp_path, "old"), authority(tmp_path, "new")

    def policy(url: str, files: tuple[Path, Path]) -> str:
        tls = {"certificate": str(files[0]), "key": str(files[1])}
        return policy_of(url, server={"tls": tls})

    async with (
        websocket_server() as url,
        sidecar(policy(url, old.issue("127.0.0.1")), tmp_path) as it,
        connect(
            it.url.replace("ws:", "wss:"), additional_headers=BEARER, ssl=trusting(old.ca)
        ) as client,
    ):
        await reload(it, tmp_path, policy(url, new.issue("127.0.0.1")))
        assert await serves(it, ssl=trusting(new.ca))
        with pytest.raises(ssl.SSLError):
            await serves(it, ssl=trusting(old.ca))
        assert await echoes(client)


async def test_an_upstreams_authority_is_another_one_from_then_on(tmp_path: Path) -> None:
    ours, other = authority(tmp_path, "ours"), authority(tmp_path, "other")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*ours.issue("127.0.0.1"))

    def policy(url: str, ca: Path) -> str:
        main = {"url": url.replace("ws:", "wss:"), "tls": {"ca": str(ca)}}
        return policy_of("", upstreams={"main": main})

    async with (
        websocket_server(ssl=context) as url,
        sidecar(policy(url, other.ca), tmp_path) as it,
    ):
        with pytest.raises(Exception, match="502"):
            await serves(it)
        await reload(it, tmp_path, policy(url, ours.ca))
        assert await serves(it)


async def test_the_admin_listener_moves_and_its_token_changes(tmp_path: Path) -> None:
    environ = {**ENVIRON, "ONE": "the first token of the admin", "TWO": "the second one, another"}

    def policy(**admin: Any) -> str:
        return policy_of("ws://127.0.0.1:1", admin=admin or None)

    async def status(it: Running, name: str) -> int:
        headers = {"Authorization": f"Bearer {environ[name]}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(it.admin_url + "/metrics", headers=headers) as answer,
        ):
            return answer.status

    one, two = {"token": {"env": "ONE"}}, {"token": {"env": "TWO"}}
    async with sidecar(policy(listen=ANY, **one), tmp_path, environ) as it:
        before = it.admin_url
        assert [await status(it, "ONE"), await status(it, "TWO")] == [200, 401]
        await reload(it, tmp_path, policy(listen=ANY, **two), environ)
        assert it.admin_url == before
        assert [await status(it, "ONE"), await status(it, "TWO")] == [401, 200]
        await reload(it, tmp_path, policy(listen="localhost:0", **one), environ)
        assert it.admin_url != before
        assert [await status(it, "ONE"), await status(it, "TWO")] == [200, 401]
        await reload(it, tmp_path, policy(), environ)
        assert it.sidecar.admin is None
        await reload(it, tmp_path, policy(listen=ANY, **two), environ)
        assert [await status(it, "ONE"), await status(it, "TWO")] == [401, 200]
