"""Health checks of upstreams that name a path for it: a plain GET, any 2xx is healthy."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final

import aiohttp
import structlog

from sidecar.policy.compiled import Health, Upstream

__all__ = ["HealthChecks"]

_log = structlog.get_logger()

_NOT_CHECKED: Final = "not checked yet"


class HealthChecks:
    """Asks every upstream that has a health check, each in its own interval."""

    def __init__(
        self, upstreams: Mapping[str, Upstream], tls: Mapping[str, ssl.SSLContext]
    ) -> None:
        self._upstreams = upstreams
        self._tls = tls
        self._problems: dict[str, str] = {}
        self._sessions: list[aiohttp.ClientSession] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to check; the first answers come later."""
        for upstream in self._upstreams.values():
            if upstream.health is not None:
                self._problems[upstream.name] = _NOT_CHECKED
                work = self._follow(upstream, upstream.health, self._session(upstream))
                self._tasks.append(asyncio.create_task(work))

    async def close(self) -> None:
        """End all checks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for session in self._sessions:
            await session.close()

    def problems(self) -> Mapping[str, str]:
        """The upstreams that are not healthy, and why."""
        return dict(self._problems)

    def _session(self, upstream: Upstream) -> aiohttp.ClientSession:
        if upstream.address.unix is not None:
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(upstream.address.unix)
        else:
            connector = aiohttp.TCPConnector(limit=1)
        session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=upstream.connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._sessions.append(session)
        return session

    async def _follow(
        self, upstream: Upstream, health: Health, session: aiohttp.ClientSession
    ) -> None:
        while True:
            self._note(upstream.name, await self._check(upstream, health, session))
            await asyncio.sleep(health.interval)

    async def _check(
        self, upstream: Upstream, health: Health, session: aiohttp.ClientSession
    ) -> str | None:
        """What is wrong with it, or None."""
        address = upstream.address
        scheme = "https" if upstream.secure else "http"
        authority = "localhost" if address.unix is not None else str(address)
        try:
            async with session.get(
                f"{scheme}://{authority}{upstream.prefix}{health.path}",
                allow_redirects=False,
                ssl=self._tls.get(upstream.name, True),
                server_hostname=upstream.tls.server_name,
            ) as response:
                if 200 <= response.status < 300:
                    return None
                return f"the health check answers {response.status}"
        except TimeoutError:
            return "the health check does not answer"
        except aiohttp.ClientError as error:
            return f"the health check fails ({type(error).__name__})"

    def _note(self, name: str, problem: str | None) -> None:
        """Keep the answer, and log a change of state."""
        before = self._problems.get(name)
        if problem is None:
            self._problems.pop(name, None)
            if before is not None:
                _log.info("upstream_healthy", upstream=name)
            return
        self._problems[name] = problem
        if before in (None, _NOT_CHECKED):
            _log.warning("upstream_unhealthy", upstream=name, problem=problem)
