"""Issuers that are down, slow, huge, or not themselves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import OctKey, RSAKey

from sidecar.errors import ConfigError
from tests.support.attacks import bearer, served
from tests.support.clients import head, raw
from tests.support.forgery import LATER, signed
from tests.support.sidecars import Running, policy_of, sidecar
from tests.support.upstreams import recording

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
CLAIMS = {"sub": "alice", "exp": LATER}


@pytest.fixture(scope="module")
def key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "good"})


def document(*keys: Any) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False) for key in keys]}


def token_of(key: RSAKey, **header: Any) -> str:
    return jwt.encode({"alg": "RS256", "kid": "good"} | header, CLAIMS, key, algorithms=["RS256"])


class Issuer:
    """Answers as it is told, and counts."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked = 0
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked += 1
        return await self.answer(request)


def always(value: Any) -> Answer:
    async def answer(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response(value)

    return answer


@contextlib.asynccontextmanager
async def issuer(answer: Answer) -> AsyncIterator[Issuer]:
    this = Issuer(answer)
    runner = web.ServerRunner(web.Server(this.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    this.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
    try:
        yield this
    finally:
        await runner.cleanup()


def policy(upstream: str, url: str) -> str:
    provider = {"algorithms": ["RS256"], "jwks_url": url, "allow_http": True, "jwks_refresh": "1h"}
    return policy_of(upstream, jwt={"providers": {"app": provider}})


async def until_ready(running: Running) -> None:
    async with asyncio.timeout(5):
        while running.sidecar.readiness():
            await asyncio.sleep(0.01)


async def test_random_key_ids_do_not_drive_traffic_to_the_issuer(
    tmp_path: Path, key: RSAKey
) -> None:
    async with (
        issuer(always(document(key))) as source,
        recording() as upstream,
        sidecar(policy(upstream.url, source.url), tmp_path) as running,
    ):
        await until_ready(running)
        for index in range(200):
            text = token_of(key, kid=f"random{index}")
            async with raw(running.port) as client:
                await client.send(head("/ws", bearer(text)))
                assert (await client.refusal())["reason"] == "token_invalid"
        assert source.asked <= 2
        assert upstream.heads == []
        await served(running, upstream, bearer(token_of(key)))


async def _status_500(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=500)


async def _redirect(request: web.BaseRequest) -> web.StreamResponse:
    if request.path == "/other":
        raise AssertionError("the redirect was followed")
    return web.Response(status=302, headers={"Location": "/other"})


async def _huge(request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        await response.write(b'{"keys":[')
        for _ in range(2**10):
            await response.write(b" " * 2**20)
    return response


async def _bomb(request: web.BaseRequest) -> web.StreamResponse:
    response = web.Response(body=b" " * 2**24)
    response.enable_compression(web.ContentCoding.gzip)
    return response


async def _not_json(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="<html>login</html>")


OCT = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA", "kid": "good"}


@pytest.mark.parametrize(
    "answer",
    [
        _status_500,
        _redirect,
        _huge,
        _bomb,
        _not_json,
        always({"keys": []}),
        always({}),
        always([]),
        always({"keys": [OCT]}),
        always({"keys": [{"kty": "RSA"}]}),
        always({"keys": [None, 1, "a", []]}),
        always({"keys": [OCT] * 101}),
    ],
)
async def test_an_issuer_without_good_keys_lets_nobody_in(
    tmp_path: Path, key: RSAKey, answer: Answer
) -> None:
    async with (
        issuer(answer) as source,
        recording() as upstream,
        sidecar(policy(upstream.url, source.url), tmp_path) as running,
    ):
        for text in (
            token_of(key),
            signed(
                CLAIMS, {"alg": "HS256", "kid": "good"}, key=b"secret-secret-secret-secret-secret"
            ),
        ):
            async with raw(running.port) as client:
                await client.send(head("/ws", bearer(text)))
                problem = await client.refusal()
                assert problem["reason"] in ("state_unavailable", "token_invalid")
        assert upstream.heads == []
        assert running.sidecar.readiness()


async def test_a_symmetric_key_of_a_set_is_never_used(tmp_path: Path, key: RSAKey) -> None:
    shared = OctKey.generate_key(256, {"kid": "shared"})
    keys = {"keys": [key.as_dict(private=False), shared.as_dict()]}
    async with (
        issuer(always(keys)) as source,
        recording() as upstream,
        sidecar(policy(upstream.url, source.url), tmp_path) as running,
    ):
        await until_ready(running)
        secret = shared.get_op_key("sign")
        for alg in ("HS256", "RS256"):
            text = signed(CLAIMS, {"alg": alg, "kid": "shared"}, key=bytes(secret))
            await _assert_invalid(running, text)
        assert upstream.heads == []


async def _assert_invalid(running: Running, text: str) -> None:
    async with raw(running.port) as client:
        await client.send(head("/ws", bearer(text)))
        assert (await client.refusal())["reason"] == "token_invalid"


async def test_two_keys_with_the_same_id_are_both_useless(tmp_path: Path, key: RSAKey) -> None:
    other = RSAKey.generate_key(2048, {"kid": "good"})
    spare = RSAKey.generate_key(2048, {"kid": "spare"})
    async with (
        issuer(always(document(key, other, spare))) as source,
        recording() as upstream,
        sidecar(policy(upstream.url, source.url), tmp_path) as running,
    ):
        await until_ready(running)
        await _assert_invalid(running, token_of(key))
        await _assert_invalid(running, token_of(other))


async def test_an_issuer_that_hangs_delays_nobody_for_long(tmp_path: Path, key: RSAKey) -> None:
    release = asyncio.Event()

    async def hang(_: web.BaseRequest) -> web.StreamResponse:
        await release.wait()
        return web.Response(status=500)

    async with (
        issuer(hang) as source,
        recording() as upstream,
        sidecar(policy(upstream.url, source.url), tmp_path) as running,
    ):
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(raw(running.port)) for _ in range(20)]
            for client in clients:
                await client.send(head("/ws", bearer(token_of(key))))
            for client in clients:
                assert (await client.refusal())["reason"] == "state_unavailable"
        assert source.asked == 1
        assert upstream.heads == []
        release.set()
        await running.until_idle()


async def test_keys_that_were_good_serve_while_the_issuer_is_down(
    tmp_path: Path, key: RSAKey
) -> None:
    async with (
        issuer(always(document(key))) as source,
        recording() as upstream,
        sidecar(policy(upstream.url, source.url), tmp_path) as running,
    ):
        await until_ready(running)
        source.answer = _status_500
        request = head("/ws", bearer(token_of(key, kid="unknown")))
        async with raw(running.port) as client:
            await client.send(request)
            assert (await client.refusal())["reason"] == "token_invalid"
        await served(running, upstream, bearer(token_of(key)))


async def test_http_is_not_asked_unless_the_policy_says_so(tmp_path: Path) -> None:
    provider = {"algorithms": ["RS256"], "jwks_url": "http://127.0.0.1:1/jwks.json"}
    text = policy_of("ws://127.0.0.1:9", jwt={"providers": {"app": provider}})
    with pytest.raises(ConfigError, match="jwks_url"):
        async with sidecar(text, tmp_path):
            pass
