import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from sidecar.observe import logs
from sidecar.policy.claims import ClaimRule
from sidecar.policy.compiled import Address, Logging, Policy, Server, TokenRules, Upstream
from sidecar.policy.credentials import Authenticate
from sidecar.policy.headers import IdentityRules
from sidecar.policy.limits import UNLIMITED
from sidecar.policy.origins import OriginRule
from sidecar.policy.pointers import ClaimPath
from sidecar.policy.providers import Provider
from sidecar.policy.refuse import Refuse
from sidecar.policy.routes import PathPattern, Route


class Stream(io.StringIO):
    """What was logged, as it stands and as JSON."""

    @property
    def lines(self) -> list[str]:
        return self.getvalue().splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture(autouse=True)
def _configuration() -> Iterator[None]:
    """The logging configuration is put back after each test."""
    before = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = before
    structlog.reset_defaults()


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Stream]:
    """Configures logging in the test's own phase, after pytest has put its stderr in place."""
    stream = Stream()

    def configure(**rules: Any) -> Stream:
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure(Logging(**rules))
        return stream

    return configure


@pytest.fixture
def policy() -> Policy:
    rule = ClaimRule("verified", ClaimPath("email_verified", ("email_verified",)), exists=True)
    own = ClaimRule("member", ClaimPath("roles", ("roles",)), exists=True, reason="not_a_member")
    route = Route(
        name="chat",
        path=PathPattern("/ws", (("ws", None),)),
        host=None,
        upstream="backend",
        upstream_path=None,
        origins=OriginRule(),
        authenticate=Authenticate(None, ()),
        authorize=(rule, own),
        identity=IdentityRules(),
        forward_headers=frozenset(),
        limits=UNLIMITED,
        refuse=Refuse(codes={"token_missing": 4001, "not_a_member": 3003}),
    )
    return Policy(
        server=Server(listen=(Address("127.0.0.1", 0),), max_connections=7),
        admin=None,
        upstreams={"backend": Upstream("backend", Address("127.0.0.1", 9000))},
        tokens=TokenRules(30.0, 8192, (Provider("app", ("HS256",), None),)),
        routes=(route,),
        logging=Logging(),
    )
