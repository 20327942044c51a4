"""An independent issuer of tokens, issuers on the network, and time moved by hand."""

import asyncio
import base64
import hashlib
import hmac
import json
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from sidecar.policy.compiled import TokenRules
from sidecar.policy.keys import VerificationKey, hmac_key, jwk_set
from sidecar.policy.providers import JwksUrl, Provider, SecretRef, Secrets

NOW = 1_700_000_000.0
SECRET = "%kW9u$eT2!vQ7p@Lz4&nR8*xC6^bM3#f-and-more-than-sixty-four-bytes-of-it"


class Mint:
    """Issues tokens with joserfc, and crooked ones by hand."""

    def __init__(self) -> None:
        self.secret = OctKey.import_key(SECRET)
        self.rsa = RSAKey.generate_key(2048, {"kid": "rsa"})
        self.p256 = ECKey.generate_key("P-256", {"kid": "p256"})
        self.p384 = ECKey.generate_key("P-384", {"kid": "p384"})
        self.p521 = ECKey.generate_key("P-521", {"kid": "p521"})
        self.ed25519 = OKPKey.generate_key("Ed25519", {"kid": "ed25519"})
        self.ed448 = OKPKey.generate_key("Ed448", {"kid": "ed448"})

    def token(
        self,
        claims: dict[str, Any] | None = None,
        *,
        alg: str = "HS256",
        key: Key | None = None,
        **header: Any,
    ) -> str:
        """A token for alice that is good at NOW, with some claims and header members replaced."""
        claims = {"sub": "alice", "exp": int(NOW) + 600, **(claims or {})}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joserfc warns of EdDSA, which RFC 9864 renames
            return jwt.encode({"alg": alg, **header}, claims, key or self.secret, algorithms=[alg])

    def crooked(
        self, header: bytes | dict[str, Any], payload: bytes | dict[str, Any], key: bytes = b""
    ) -> str:
        """A token of any header and payload with a right HS256 signature."""
        parts = (
            part if isinstance(part, bytes) else json.dumps(part).encode()
            for part in (header, payload)
        )
        head, body = (self.encode(part) for part in parts)
        return self.sign(f"{head}.{body}", key)

    def sign(self, signing_input: str, key: bytes = b"") -> str:
        """Add the HS256 signature to the first two parts."""
        mac = hmac.new(key or SECRET.encode(), signing_input.encode(), hashlib.sha256)
        return f"{signing_input}.{self.encode(mac.digest())}"

    @staticmethod
    def encode(data: bytes) -> str:
        """base64url without padding."""
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    @property
    def hmac_keys(self) -> tuple[VerificationKey, ...]:
        return (hmac_key(SECRET.encode(), ["HS256", "HS384", "HS512"], allow_weak=False),)

    def keys_for(self, key: Key, *algorithms: str) -> tuple[VerificationKey, ...]:
        """What the sidecar makes of the public half."""
        return jwk_set(self.jwks(key), algorithms, strict=True)

    @staticmethod
    def jwks(*keys: Key) -> bytes:
        """A published set of the public halves."""
        return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


class Issuer:
    """An HTTP server that publishes `body` at /jwks, and `metadata` for discovery."""

    def __init__(self) -> None:
        self.body: bytes = b""
        self.status = 200
        self.headers: dict[str, str] = {}
        self.metadata: bytes = b""
        self.hang = False
        self.endless = False
        self.release = asyncio.Event()
        self.requests: list[web.Request] = []
        self.sent = 0
        app = web.Application()
        app.router.add_get("/jwks", self._jwks)
        app.router.add_get("/{tail:.*}", self._metadata)
        self.server = TestServer(app)

    @property
    def url(self) -> str:
        return str(self.server.make_url("/jwks"))

    @property
    def root(self) -> str:
        return str(self.server.make_url("/")).rstrip("/")

    async def _jwks(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.hang:
            await self.release.wait()
        if self.endless:
            return await self._flood(request)
        return web.Response(body=self.body, status=self.status, headers=self.headers)

    async def _flood(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        chunk = b" " * 65536
        while self.sent < 2**30:
            await response.write(chunk)
            self.sent += len(chunk)
        return response

    async def _metadata(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return web.Response(body=self.metadata)


class Sleeper:
    """Stands in for asyncio.sleep: records each pause, and ends it when told to."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._asleep = asyncio.Condition()
        self._waiting = 0
        self._wake = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)
        async with self._asleep:
            self._waiting += 1
            self._asleep.notify_all()
        await self._wake.acquire()

    async def asleep(self) -> None:
        """Wait until a background task sleeps."""
        async with self._asleep:
            await asyncio.wait_for(self._asleep.wait_for(lambda: self._waiting > 0), 10)

    async def wake(self) -> None:
        """End one pause, and wait until the task sleeps again."""
        await self.asleep()
        self._waiting -= 1
        self._wake.release()
        await self.asleep()


class Clock:
    """Monotonic time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


MakeProvider = Callable[..., Provider]


@pytest.fixture(scope="session")
def mint() -> Mint:
    return Mint()


@pytest.fixture
def provider() -> MakeProvider:
    """Make a shared-secret provider with some fields replaced."""

    def make(**fields: Any) -> Provider:
        defaults: dict[str, Any] = {
            "name": "app",
            "algorithms": ("HS256",),
            "keys": Secrets((SecretRef("value", SECRET),)),
        }
        return Provider(**{**defaults, **fields})

    return make


@pytest.fixture
def remote(issuer: Issuer, provider: MakeProvider) -> MakeProvider:
    """Make a provider whose keys the issuer publishes."""

    def make(**fields: Any) -> Provider:
        keys = JwksUrl(issuer.url, refresh=600, allow_http=True)
        return provider(**{"name": "corp", "algorithms": ("RS256",), "keys": keys, **fields})

    return make


@pytest.fixture
def rules() -> Callable[..., TokenRules]:
    """Make the rules of some providers."""
    return lambda *providers: TokenRules(leeway=30, max_token_size=8192, providers=providers)


@pytest.fixture
async def issuer(mint: Mint) -> AsyncIterator[Issuer]:
    issuer = Issuer()
    issuer.body = mint.jwks(mint.rsa)
    await issuer.server.start_server()
    yield issuer
    issuer.release.set()
    await issuer.server.close()


@pytest.fixture
async def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait until something holds, at most five seconds."""

    async def wait(condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.005)

    return wait
