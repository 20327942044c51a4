"""Health checks of upstreams that name a path for it: a plain GET, any 2xx is healthy."""

import asyncio
import ssl
from collections.abc import Mapping
from typing import Final, NamedTuple

import aiohttp
import structlog

from sidecar.policy.compiled import Health, Upstream

__all__ = ["HealthChecks"]

_log = structlog.get_logger()

_NOT_CHECKED: Final = "not checked yet"


class _Check(NamedTuple):
    """What follows one upstream."""

    upstream: Upstream
    session: aiohttp.ClientSession
    task: asyncio.Task[None]


class HealthChecks:
    """Asks every upstream that has a health check, each in its own interval."""

    def __init__(
        self, upstreams: Mapping[str, Upstream], tls: Mapping[str, ssl.SSLContext]
    ) -> None:
        self._upstreams = upstreams
        self._tls = tls
        self._problems: dict[str, str] = {}
        self._checks: dict[str, _Check] = {}
        self._ended: list[_Check] = []

    async def start(self) -> None:
        """Begin to check; the first answers come later."""
        for upstream in self._upstreams.values():
            if upstream.health is not None:
                self._problems[upstream.name] = _NOT_CHECKED
                self._begin(upstream, upstream.health)

    def adopt(self, upstreams: Mapping[str, Upstream], tls: Mapping[str, ssl.SSLContext]) -> None:
        """Check these from now on. Those that stay as they were are followed on, of a changed one
        the last answer holds until the next, and a new one is no problem before its first. `settle`
        lets go of those that are gone.
        """
        self._upstreams, self._tls = upstreams, tls
        for name, check in list(self._checks.items()):
            if upstreams.get(name) != check.upstream:
                self._end(name)
        for gone in self._problems.keys() - _checked(upstreams):
            del self._problems[gone]
        for upstream in upstreams.values():
            if upstream.health is not None and upstream.name not in self._checks:
                self._begin(upstream, upstream.health)

    async def settle(self) -> None:
        """Let go of what ended checks have used."""
        ended, self._ended = self._ended, []
        await asyncio.gather(*(check.task for check in ended), return_exceptions=True)
        for check in ended:
            await check.session.close()

    async def close(self) -> None:
        """End all checks."""
        for name in list(self._checks):
            self._end(name)
        await self.settle()

    def _begin(self, upstream: Upstream, health: Health) -> None:
        session = _session(upstream)
        task = asyncio.create_task(self._follow(upstream, health, session))
        self._checks[upstream.name] = _Check(upstream, session, task)

    def _end(self, name: str) -> None:
        check = self._checks.pop(name)
        check.task.cancel()
        self._ended.append(check)

    def problems(self) -> Mapping[str, str]:
        """The upstreams that are not healthy, and why."""
        return dict(self._problems)

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


def _checked(upstreams: Mapping[str, Upstream]) -> set[str]:
    return {upstream.name for upstream in upstreams.values() if upstream.health is not None}


def _session(upstream: Upstream) -> aiohttp.ClientSession:
    if upstream.address.unix is not None:
        connector: aiohttp.BaseConnector = aiohttp.UnixConnector(upstream.address.unix)
    else:
        connector = aiohttp.TCPConnector(limit=1)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=upstream.connect_timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
