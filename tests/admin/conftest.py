"""The admin listener with its API, before connections that are only a list."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, BaseRunner, Request

from sidecar.admin.api import Api
from sidecar.admin.app import Wiring, build, guard_of
from sidecar.admin.live import Connection, ConnectionFilter, ConnectionPage, page_of
from sidecar.admin.record import ActionRecorder
from sidecar.auth.authenticator import Authenticator
from sidecar.auth.keys import KeyStore
from sidecar.observe.audit import AuditLog
from sidecar.observe.metrics import Metrics
from sidecar.policy.compiled import Address, Admin, Audit, Logging, Policy, Server, TokenRules
from sidecar.policy.providers import Provider, SecretRef, Secrets
from sidecar.state.base import Outcome, Revocation, Subject
from sidecar.state.memory import MemoryState
from tests.support.clocks import MovableClock
from tests.support.tokens import SECRET

ISSUER = "https://login.example.com"
TOKEN = b"a-token-of-the-admin-listener"
ALICE = Connection(
    id="00000000000000c1",
    route="chat",
    upstream="chat",
    address="192.0.2.1",
    user="alice",
    provider="app",
    token_id="t-1",
    opened_at=1_699_999_940.0,
    expires_at=1_700_003_600.0,
    client_messages=3,
    client_bytes=120,
    upstream_messages=40,
    upstream_bytes=9000,
)


class Listener(TestServer):
    """As the program runs it: a handler goes on when its client leaves."""

    async def _make_runner(self, **options: Any) -> BaseRunner:
        return await super()._make_runner(**{**options, "handler_cancellation": False})


class Connections:
    """Live connections of a list; `subjects` are the tokens of those that have one."""

    def __init__(self) -> None:
        self.live: dict[str, Connection] = {}
        self.subjects: dict[str, Subject] = {}

    def open(self, connection: Connection, **facts: Any) -> None:
        self.live[connection.id] = connection
        if connection.user is not None:
            defaults = {
                "provider": connection.provider,
                "user": connection.user,
                "sub": None,
                "sid": None,
                "jti": connection.token_id,
                "issued_at": connection.opened_at,
            }
            self.subjects[connection.id] = Subject(**{**defaults, **facts})

    async def list(
        self, which: ConnectionFilter, *, cursor: str | None, limit: int
    ) -> ConnectionPage:
        return page_of(self.live.values(), which, cursor=cursor, limit=limit)

    async def kick(self, identifier: str) -> bool:
        return self.live.pop(identifier, None) is not None

    async def end(self, revocation: Revocation) -> int:
        ended = [name for name, subject in self.subjects.items() if revocation.revokes(subject)]
        for name in ended:
            del self.subjects[name], self.live[name]
        return len(ended)


@dataclass
class Running:
    """A listener with all that it works with."""

    client: TestClient[Request, Application]
    state: MemoryState
    connections: Connections
    clock: MovableClock
    metrics: Metrics
    log: Path
    headers: dict[str, str] = field(
        default_factory=lambda: {"Authorization": f"Bearer {TOKEN.decode()}"}
    )

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """The status and the JSON of an answer; None where it has no body."""
        headers = {**self.headers, **options.pop("headers", {})}
        async with self.client.request(method, path, headers=headers, **options) as response:
            body = await response.read()
            return response.status, json.loads(body) if body else None

    async def revoke(self, **body: Any) -> dict[str, Any]:
        status, answer = await self.ask("POST", "/api/revocations", json=body)
        assert status == 201, answer
        revocation: dict[str, Any] = answer
        return revocation

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def leave_unconfirmed(self, patch: pytest.MonkeyPatch) -> None:
        """Let no revocation be confirmed, as where a process hangs."""
        revoke = self.state.revoke

        async def unconfirmed(*arguments: Any, **options: Any) -> Outcome | None:
            outcome = await revoke(*arguments, **options)
            return outcome and replace(outcome, confirmed=False)

        patch.setattr(self.state, "revoke", unconfirmed)

    def metric(self, name: str) -> float:
        body, _ = self.metrics.render()
        line = next(each for each in body.decode().splitlines() if each.startswith(name))
        return float(line.rpartition(" ")[2])


@pytest.fixture
def providers() -> tuple[Provider, ...]:
    """A shared secret without an issuer, and an issuer that signs with a shared secret too."""
    keys = Secrets((SecretRef("value", SECRET),))
    return (
        Provider("app", ("HS256",), keys, max_age=3600.0),
        Provider("corp", ("HS256",), keys, issuer=ISSUER, audience=("chat",)),
    )


@pytest.fixture
def capacity() -> int:
    return 1000


@pytest.fixture
async def running(
    tmp_path: Path, providers: tuple[Provider, ...], capacity: int
) -> AsyncIterator[Running]:
    clock, connections, state = MovableClock(), Connections(), MemoryState(capacity)
    state.subscribe(connections.end)
    rules = TokenRules(30.0, 8192, providers)
    listen = Address("127.0.0.1", 0)
    log = tmp_path / "audit.log"
    logging = Logging(hash_user_ids=False, audit=Audit(str(log)))
    policy = Policy(Server((listen,)), None, {}, rules, (), logging)
    metrics = Metrics(policy, version="1")
    audit = AuditLog(logging, clock=clock.time, hash_key=None)
    keys = KeyStore(rules, environ={})
    await keys.start()
    api = Api(
        state,
        connections,
        Authenticator(rules, keys).logout,
        lambda: rules,
        ActionRecorder(audit, metrics),
        clock,
    )

    async def exposition(accept: str) -> tuple[bytes, str]:
        return metrics.render(accept)

    async def ready() -> dict[str, str]:
        return {}

    wiring = Wiring(exposition, ready, lambda: None, api)
    app = build(guard_of(Admin(listen), token=lambda: TOKEN, wiring=wiring), wiring)
    async with TestClient(Listener(app)) as client:
        yield Running(client, state, connections, clock, metrics, log)
    audit.close()
    await keys.close()


@pytest.fixture
def crowd(running: Running) -> list[Connection]:
    """Alice and some others, opened in no order."""
    bob = replace(
        ALICE,
        id="00000000000000c2",
        user="bob",
        address="192.0.2.2",
        provider="corp",
        token_id=None,
    )
    nobody = replace(
        ALICE,
        id="00000000000000c0",
        route="open",
        user=None,
        provider=None,
        token_id=None,
        expires_at=None,
    )
    again = replace(ALICE, id="00000000000000c3", route="news", token_id="t-3")
    crowd = [bob, nobody, again, ALICE]
    for each in crowd:
        running.connections.open(each)
    return sorted(crowd, key=lambda each: each.id)
