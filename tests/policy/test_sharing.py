"""What a policy means for each of several workers."""

from dataclasses import replace

import pytest

from sidecar.policy.compiled import Address, Admin, Logging, Policy, Server, TokenRules
from sidecar.policy.credentials import Authenticate, MessageSource
from sidecar.policy.headers import IdentityRules
from sidecar.policy.limits import Limits
from sidecar.policy.matching import MessagePattern
from sidecar.policy.origins import OriginRule
from sidecar.policy.pointers import ClaimPath
from sidecar.policy.refuse import Refuse
from sidecar.policy.routes import PathPattern, Route
from sidecar.policy.sharing import Held, per_worker, share

HERE = Address("127.0.0.1", 0)


def policy(connections: int) -> Policy:
    server = Server((HERE,), max_connections=connections)
    return Policy(server, Admin(HERE), {}, TokenRules(30.0, 8192, ()), (), Logging())


@pytest.mark.parametrize(
    ("connections", "workers", "part"), [(10, 1, 10), (10, 2, 5), (10, 3, 4), (10, 4, 3), (2, 5, 1)]
)
def test_connections_are_shared_out_and_rounded_up(
    connections: int, workers: int, part: int
) -> None:
    assert share(policy(connections), workers).server.max_connections == part


def test_a_worker_has_no_admin_listener() -> None:
    assert share(policy(10), 2).admin is None


def test_the_rest_of_the_policy_is_every_workers() -> None:
    one = share(policy(10), 1)
    assert (one.server, one.routes, one.tokens) == (policy(10).server, (), policy(10).tokens)


def test_one_worker_keeps_every_limit_by_itself() -> None:
    assert per_worker(policy(10), 1) == ()


def test_what_several_workers_share_is_told() -> None:
    assert per_worker(policy(10), 4) == (
        Held("server.max_connections", "each of 4 workers takes 3 of 10"),
    )


def test_waiting_clients_are_counted_by_each_worker_for_itself() -> None:
    message = MessageSource(MessagePattern((), ClaimPath.parse("/token"), 64))
    route = Route(
        name="main",
        path=PathPattern.parse("/{rest...}"),
        host=None,
        upstream="main",
        upstream_path=None,
        origins=OriginRule(),
        authenticate=Authenticate(None, (), message=message),
        authorize=(),
        identity=IdentityRules(),
        forward_headers=frozenset(),
        limits=Limits(),
        refuse=Refuse(),
    )
    waiting = per_worker(replace(policy(10), routes=(route,)), 2)[1]
    assert waiting.key == "authenticate.sources.message.max_waiting"
    assert waiting.how == "each of 2 workers counts its own; in all, 2 times as many may wait"
