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
        self._retired: list[RemoteKeys] = []
        self._session: ClientSession | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load what is local, and begin to fetch what is not.

        Returns without waiting for any fetch. Raises KeyMaterialError for a local key that cannot
        be read or must not be used.
        """
        self.adopt(self._rules, await self.read(self._rules))

    async def read(self, rules: TokenRules) -> Mapping[str, LocalKeys]:
        """The local keys of these rules, which may be others than those in force. Raises
        KeyMaterialError as `start` does.
        """
        return {one.name: await asyncio.to_thread(self._load, one) for one in rules.providers}

    def adopt(self, rules: TokenRules, local: Mapping[str, LocalKeys]) -> None:
        """Go by these rules from now on, with the local keys that were `read` for them. Fetched
        keys stay where their source is the same; `settle` ends the fetching of others.
        """
        before, fetched = _sources(self._rules), self._remote
        self._rules, self._local, self._remote = rules, dict(local), {}
        for provider in rules.providers:
            known = fetched.get(provider.name)
            if known is not None and before[provider.name] == _source(provider):
                self._remote[provider.name] = fetched.pop(provider.name)
            elif isinstance(provider.keys, JwksUrl | Discovery):
                self._follow(provider, provider.keys)
        self._retired += fetched.values()
        if self._watcher is None and any(one.watched for one in self._local.values()):
            self._watcher = asyncio.create_task(self._watch())

    async def settle(self) -> None:
        """End the fetching of keys that are not asked for any more."""
        retired, self._retired = self._retired, []
        for remote in retired:
            await remote.close()

    def _load(self, provider: Provider) -> LocalKeys:
        try:
            return LocalKeys(provider, self._environ)
        except KeyMaterialError as error:
            raise KeyMaterialError(f"{provider.name}: {error.wrong}", error.remedy) from None

    def _follow(self, provider: Provider, source: JwksUrl | Discovery) -> None:
        if self._session is None:
            self._session = new_session()
        remote = RemoteKeys(
            provider,
            source.refresh,
            partial(fetch_jwks, self._session, source),
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
        await self.settle()
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


def _source(provider: Provider) -> object:
    """What fetched keys depend on."""
    return provider.keys, provider.algorithms


def _sources(rules: TokenRules) -> Mapping[str, object]:
    return {provider.name: _source(provider) for provider in rules.providers}
