"""The keys of every provider: loaded, fetched and kept fresh in the background."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from aiohttp import ClientSession

from sidecar.auth.fetch import fetch_jwks, new_session
from sidecar.auth.local import LocalKeys
from sidecar.auth.remote import RemoteKeys
from sidecar.errors import KeyMaterialError, KeysUnavailable
from sidecar.policy.compiled import TokenRules
from sidecar.policy.keys import SigningKey, VerificationKey
from sidecar.policy.providers import Discovery, JwksFile, JwksUrl, Provider

__all__ = ["KeyStore"]

POLL: Final = 1.0
"""Seconds between two looks at the files."""


def _ignore(provider: str, outcome: str) -> None:
    """Nobody counts fetches."""


class KeyStore:
    """Where keys come from, seen by those who need one.

    `clock` is monotonic, in seconds, and `sleep` waits in the background tasks. `on_fetch` is told
    the provider and "ok" or "error" after each fetch.
    """

    def __init__(
        self,
        rules: TokenRules,
        *,
        environ: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_fetch: Callable[[str, str], None] = _ignore,
    ) -> None:
        self._rules = rules
        self._environ = environ
        self._clock = clock
        self._sleep = sleep
        self._on_fetch = on_fetch
        self._local: dict[str, LocalKeys] = {}
        self._remote: dict[str, RemoteKeys] = {}
        self._session: ClientSession | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load what is local, and begin to fetch what is not.

        Returns without waiting for any fetch. Raises KeyMaterialError for a local key that cannot
        be read or must not be used.
        """
        for provider in self._rules.providers:
            self._local[provider.name] = await asyncio.to_thread(self._load, provider)
        self._session = new_session()
        for provider in self._rules.providers:
            if isinstance(provider.keys, JwksUrl | Discovery):
                self._follow(provider, provider.keys, self._session)
        if any(local.watched for local in self._local.values()):
            self._watcher = asyncio.create_task(self._watch())

    def _load(self, provider: Provider) -> LocalKeys:
        try:
            return LocalKeys(provider, self._environ)
        except KeyMaterialError as error:
            raise KeyMaterialError(f"{provider.name}: {error.wrong}", error.remedy) from None

    def _follow(
        self, provider: Provider, source: JwksUrl | Discovery, session: ClientSession
    ) -> None:
        remote = RemoteKeys(
            provider,
            source.refresh,
            partial(fetch_jwks, session, source),
            clock=self._clock,
            sleep=self._sleep,
            on_fetch=self._on_fetch,
        )
        self._remote[provider.name] = remote
        remote.start()

    async def close(self) -> None:
        """End the background tasks. Keys that were loaded stay usable."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
        for remote in self._remote.values():
            await remote.close()
        if self._session is not None:
            await self._session.close()

    async def keys_for(self, provider: Provider, kid: str | None) -> Sequence[VerificationKey]:
        """The keys that may verify a token with this kid, () where the kid is not known.

        Secrets and single public keys have no kid and take any. Waits at most 3 s for a fetch
        under way. Raises KeysUnavailable where the provider has no keys yet.
        """
        remote = self._remote.get(provider.name)
        if remote is not None:
            return await remote.find(kid)
        local = self._local.get(provider.name)
        if local is None or not local.material.keys:
            raise KeysUnavailable(provider.name, "no keys")
        keys = local.material.keys
        if kid is None or not isinstance(provider.keys, JwksFile):
            return keys
        return tuple(key for key in keys if key.kid == kid)

    def signing_key(self, provider_name: str) -> SigningKey:
        """What the provider signs with: its first secret, or its private key.

        Raises KeysUnavailable where it has neither.
        """
        local = self._local.get(provider_name)
        if local is None or local.material.signer is None:
            raise KeysUnavailable(provider_name, "no secret or private key to sign with")
        return local.material.signer

    def unready(self) -> Mapping[str, str]:
        """The providers that have no keys to verify with, and why."""
        return {
            provider.name: problem
            for provider in self._rules.providers
            if (problem := self._problem(provider.name)) is not None
        }

    def _problem(self, name: str) -> str | None:
        remote = self._remote.get(name)
        if remote is not None:
            return remote.problem
        local = self._local.get(name)
        return None if local is not None and local.material.keys else "no keys"

    async def _watch(self) -> None:
        while True:
            await self._sleep(POLL)
            for local in self._local.values():
                material = await asyncio.to_thread(local.refresh) if local.watched else None
                local.material = material or local.material
