"""What the parent goes by itself of a policy."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from sidecar.admin.app import Wiring
from sidecar.config.source import Loaded
from sidecar.errors import KeyMaterialError
from sidecar.observe import logs
from sidecar.observe.audit import Action, AuditLog, Event
from sidecar.observe.metrics import Metrics
from sidecar.policy.compiled import Policy
from sidecar.workers.own import Own

Make = Callable[..., Policy]
ADDRESS = {"listen": "127.0.0.1:0"}


class Parent:
    """The parent's part of a policy, and what it goes by."""

    def __init__(self, policy: Policy) -> None:
        self.audit = AuditLog(policy.logging, clock=lambda: 0.0, hash_key=None)
        self.metrics = Metrics(policy, version="1")
        self.own = Own(policy, os.environ, self.audit, self.metrics, self._wiring)

    def _wiring(self) -> Wiring:
        async def exposition(accept: str) -> tuple[bytes, str]:
            return self.metrics.render(accept)

        async def ready() -> Mapping[str, str]:
            return {}

        return Wiring(exposition, ready, lambda: None)

    async def change(self, policy: Policy) -> None:
        (await self.own.prepare(policy)).commit()
        await self.own.settle()

    async def status(self, path: str = "/metrics") -> int:
        url = f"http://{self.own.admin}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status


@contextlib.asynccontextmanager
async def parent(policy: Policy) -> AsyncIterator[Parent]:
    it = Parent(policy)
    await it.own.open()
    try:
        yield it
    finally:
        await it.own.close()


@pytest.fixture
def make(load: Callable[..., Loaded]) -> Make:
    """Makes policies with these sections."""
    return lambda **sections: load(**sections).policy


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """A file with an admin token."""
    path = tmp_path / "token"
    path.write_text("a-token-of-the-admin-listener-0123")
    return path


async def test_the_address_stays_where_the_token_changes(make: Make, token: Path) -> None:
    async with parent(make()) as it:
        before = it.own.admin
        assert await it.status() == 200
        await it.change(make(admin={**ADDRESS, "token": {"file": str(token)}}))
        assert it.own.admin == before
        assert await it.status() == 401
        assert it.own.policy.admin is not None
        assert it.own.policy.admin.token is not None


async def test_another_address_takes_the_first_ones_place(make: Make, tmp_path: Path) -> None:
    async with parent(make()) as it:
        before = it.own.admin
        await it.change(make(admin={"listen": f"unix:{tmp_path / 'admin.sock'}"}))
        assert it.own.admin != before
        with pytest.raises(aiohttp.ClientConnectorError):
            async with aiohttp.ClientSession() as session:
                await session.get(f"http://{before}/livez")
        connector = aiohttp.UnixConnector(str(tmp_path / "admin.sock"))
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get("http://localhost/livez") as answer,
        ):
            assert answer.status == 200


async def test_the_admin_listener_comes_and_goes(make: Make) -> None:
    sections: dict[str, Any] = {"admin": None}
    async with parent(make(**sections)) as it:
        assert it.own.admin is None
        await it.change(make())
        assert await it.status() == 200
        await it.change(make(**sections))
        assert it.own.admin is None


async def test_what_is_discarded_leaves_nothing(make: Make, tmp_path: Path) -> None:
    path, log = tmp_path / "admin.sock", tmp_path / "audit.jsonl"
    async with parent(make()) as it:
        sections = {"admin": {"listen": f"unix:{path}"}, "logging": {"audit": {"file": str(log)}}}
        prepared = await it.own.prepare(make(**sections))
        assert path.exists()
        await prepared.discard()
        it.audit.action(Action(Event.KICKED, "192.0.2.1"))
        assert log.read_text() == ""
        assert await it.status() == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
                await session.get("http://localhost/livez")


async def test_where_it_cannot_change_it_leaves_nothing(make: Make, token: Path) -> None:
    async with parent(make()) as it:
        after = make(admin={**ADDRESS, "token": {"file": str(token)}})
        token.unlink()
        with pytest.raises(KeyMaterialError):
            await it.own.prepare(after)
        assert await it.status() == 200


async def test_logs_and_figures_follow(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured: list[Any] = []
    monkeypatch.setattr(logs, "configure", lambda rules, worker: configured.append(rules))
    log = tmp_path / "audit.jsonl"
    async with parent(make()) as it:
        sections = {"logging": {"level": "debug", "audit": {"file": str(log)}}}
        for _ in range(2):
            await it.change(make(server={"max_connections": 7}, **sections))
        assert [one.level for one in configured] == ["debug"]
        it.audit.action(Action(Event.KICKED, "192.0.2.1"))
        assert '"kicked"' in log.read_text()
        assert "ws_sidecar_max_connections 7.0" in it.metrics.render()[0].decode()


async def test_the_public_addresses_stay_and_the_log_says_so(make: Make) -> None:
    async with parent(make()) as it:
        with structlog.testing.capture_logs() as log:
            await it.change(make(server={"listen": ["127.0.0.1:1"]}))
        (line,) = log
        assert (line["event"], line["key"]) == ("restart_needed", "server.listen")
