"""Keys of an issuer on the network, kept fresh.

The rules: one fetch at a time; a regular one every `refresh` seconds, sooner after a failure; an
extra one for an unknown kid, at most every 30 seconds, so that random kids cannot drive traffic to
the issuer. Keys that were good stay in force until a good set replaces them.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from sidecar.auth.fetch import FetchError
from sidecar.errors import KeyMaterialError, KeysUnavailable
from sidecar.policy.keys import VerificationKey, jwk_set
from sidecar.policy.providers import Provider

__all__ = ["COOL_DOWN", "PATIENCE", "RemoteKeys", "pause"]

COOL_DOWN: Final = 30.0
"""Seconds between extra fetches for unknown kids."""
PATIENCE: Final = 3.0
"""Seconds that a handshake waits for a fetch under way."""
FIRST_RETRY: Final = 1.0
LAST_RETRY: Final = 60.0
JITTER: Final = 0.1
"""Share of a pause that chance takes off, so that many sidecars don't ask at once."""

_log = structlog.get_logger()
_random: Final = secrets.SystemRandom()


def pause(failures: int, refresh: float) -> float:
    """Seconds until the next fetch: `refresh`, or after failures 1, 2, 4 … 60, if that is sooner;
    each shortened by up to a tenth.
    """
    seconds = refresh
    if failures:
        seconds = min(refresh, LAST_RETRY, FIRST_RETRY * 2 ** min(failures - 1, 10))
    return seconds * (1 - JITTER * _random.random())


class RemoteKeys:
    """The keys of one provider."""

    def __init__(
        self,
        provider: Provider,
        refresh: float,
        fetch: Callable[[], Awaitable[bytes]],
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        on_fetch: Callable[[str, str], None],
    ) -> None:
        self._provider = provider
        self._refresh = refresh
        self._fetch = fetch
        self._clock = clock
        self._sleep = sleep
        self._on_fetch = on_fetch
        self._keys: tuple[VerificationKey, ...] = ()
        self._failing: bool | None = None
        self._next_extra = float("-inf")
        self._flight: asyncio.Task[bool] | None = None
        self._task: asyncio.Task[None] | None = None
        self._why = "not fetched yet"

    @property
    def problem(self) -> str | None:
        """Why there are no keys; None where there are."""
        return None if self._keys else self._why

    def start(self) -> None:
        """Begin the first fetch, so that there is one to wait for, and keep fetching."""
        self._task = asyncio.create_task(self._run(self._start_flight()))

    async def _run(self, flight: asyncio.Task[bool]) -> None:
        failures = 0
        while True:
            failures = 0 if await flight else failures + 1
            await self._sleep(pause(failures, self._refresh))
            flight = self._start_flight()

    async def close(self) -> None:
        """End the fetching, and a fetch that is under way."""
        tasks = [task for task in (self._task, self._flight) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def find(self, kid: str | None) -> tuple[VerificationKey, ...]:
        """The keys with this kid, () for an unknown one, all keys for None.

        Raises KeysUnavailable where no set was ever fetched.
        """
        if not self._keys:
            await self._wait()
        if not self._keys:
            raise KeysUnavailable(self._provider.name, self._why)
        found = self._with(kid)
        if not found:
            await self._ask_again()
            found = self._with(kid)
        return found

    def _with(self, kid: str | None) -> tuple[VerificationKey, ...]:
        return tuple(key for key in self._keys if kid is None or key.kid == kid)

    async def _ask_again(self) -> None:
        now = self._clock()
        if self._under_way() is None and now >= self._next_extra:
            self._next_extra = now + COOL_DOWN
            self._start_flight()
        await self._wait()

    def _under_way(self) -> asyncio.Task[bool] | None:
        flight = self._flight
        return None if flight is None or flight.done() else flight

    def _start_flight(self) -> asyncio.Task[bool]:
        flight = self._under_way()
        if flight is None:
            flight = self._flight = asyncio.create_task(self._update())
        return flight

    async def _wait(self) -> None:
        """Wait for a fetch under way, if there is one. A waiter that leaves doesn't end it."""
        flight = self._under_way()
        if flight is not None:
            await asyncio.wait({flight}, timeout=PATIENCE)

    async def _update(self) -> bool:
        """Fetch once; whether it gave a good set. Logs changes of state, not every failure."""
        name = self._provider.name
        try:
            keys = jwk_set(await self._fetch(), self._provider.algorithms, strict=False)
        except (FetchError, KeyMaterialError) as error:
            return self._failed(str(error))
        except Exception as error:  # whatever it is, the next fetch must still come
            return self._failed(type(error).__name__)
        if self._failing is not False:
            _log.info("keys_fetched", provider=name, keys=len(keys))
        self._failing = False
        self._keys = keys
        self._on_fetch(name, "ok")
        return True

    def _failed(self, why: str) -> bool:
        if not self._failing:
            _log.error(
                "keys_fetch_failed",
                provider=self._provider.name,
                error=why,
                stale_keys=len(self._keys),
            )
        self._failing = True
        self._why = why
        self._on_fetch(self._provider.name, "error")
        return False
