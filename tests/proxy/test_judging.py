"""Judging live connections again, one by one and in slices."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sidecar.config.source import load_policy
from sidecar.model import Handshake, Identity, Peer, Permit, Reason
from sidecar.policy import decide
from sidecar.policy.compiled import Policy
from sidecar.policy.decide import Preflight, preflight, standing
from sidecar.policy.limits import UNLIMITED
from sidecar.proxy import judging
from sidecar.proxy.judging import judge, judge_all
from sidecar.proxy.pipe import Pipe
from sidecar.proxy.relay import Link
from sidecar.proxy.scanners import Scanners
from sidecar.state.base import Kind, Revocation
from sidecar.state.memory import MemoryState
from tests.support.clocks import MovableClock
from tests.support.sidecars import ENVIRON, policy_of

NOW = 1_700_000_000.0
ALICE = Identity("alice", {"sub": "alice", "exp": NOW + 60}, "app", NOW + 60, None)


CLOCK = MovableClock(NOW)


def by(policy: Policy) -> Callable[[Link], None]:
    """Judges by this policy."""

    def judged(link: Link) -> None:
        judge(link, policy, NOW)

    return judged


class Silent(asyncio.Transport):
    """A transport that takes everything and does nothing."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    def abort(self) -> None:
        pass


def policy(folder: Path, **route: Any) -> Policy:
    path = folder / "policy.yaml"
    path.write_text(policy_of("ws://127.0.0.1:1", route=route))
    return load_policy([path], ENVIRON).policy


def live(admitting: Policy, identity: Identity | None = ALICE) -> Link:
    """A connection that this policy has admitted."""
    headers = (("Authorization", "Bearer x"),)
    handshake = Handshake("/ws", "", "example.com", headers, "", None, ())
    admitted = preflight(admitting, handshake, Peer("192.0.2.1", True))
    assert isinstance(admitted, Preflight)
    scanners = Scanners(UNLIMITED)
    now = asyncio.get_running_loop().time
    return Link(
        "id",
        Permit("main", "main", b"", "", (), None, identity),
        Pipe("client", Silent(), scanners.client, now),
        Pipe("upstream", Silent(), scanners.upstream, now),
        {},
        lambda _: None,
        scanners=scanners,
        standing=standing(admitting, admitted),
        session=admitted.route.session,
        opened_at=NOW,
    )


def end_of(link: Link) -> tuple[int, str | None] | None:
    link.abort()
    assert link.closing is not None
    return None if link.closing.reason is None else (link.closing.code, link.closing.reason)


async def test_one_that_may_go_on_takes_the_new_rules(tmp_path: Path) -> None:
    link = live(policy(tmp_path))
    after = policy(tmp_path, session={"max_lifetime": "1h"}, limits={"frame_size": "9B"})
    judge(link, after, NOW)
    assert link.closing is None
    assert link.session is after.routes[0].session
    assert link.scanners.limits is after.routes[0].limits


async def test_one_that_may_not_ends_in_the_new_routes_way(tmp_path: Path) -> None:
    link = live(policy(tmp_path))
    rule = {"claim": "role", "equals": "admin"}
    judge(link, policy(tmp_path, authorize=[rule], refuse={"codes": {"claims_denied": 4777}}), NOW)
    assert end_of(link) == (4777, "claims_denied")


async def test_one_whose_route_is_gone_ends_in_the_old_ones_way(tmp_path: Path) -> None:
    link = live(policy(tmp_path))
    link.adopt(policy(tmp_path, refuse={"codes": {"no_route": 4778}}).routes[0])
    judge(link, replace(policy(tmp_path), routes=()), NOW)
    assert end_of(link) == (4778, "no_route")


async def test_a_token_that_is_over_by_the_new_leeway_ends_it(tmp_path: Path) -> None:
    link = live(policy(tmp_path))
    judge(link, policy(tmp_path), NOW + 1000)
    assert end_of(link) == (4401, "token_expired")


async def test_one_that_is_ending_is_left_alone(tmp_path: Path) -> None:
    link = live(policy(tmp_path))
    link.end(Reason.KICKED)
    judge(link, replace(policy(tmp_path), routes=()), NOW)
    assert end_of(link) == (4403, "kicked")


async def test_one_that_cannot_be_judged_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    link = live(policy(tmp_path))
    monkeypatch.setattr(decide, "rejudge", fail)
    with capture_logs() as logs:
        judge(link, policy(tmp_path), NOW)
    assert [line["event"] for line in logs] == ["internal_error"]
    assert end_of(link) == (1011, "internal_error")


async def test_others_have_their_turn_between_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "SLICE", 2)
    before, after = policy(tmp_path), policy(tmp_path, session={"max_lifetime": "1h"})
    links = [live(before) for _ in range(5)]
    turns: list[int] = []

    async def others() -> None:
        while not turns or turns[-1] < len(links):
            turns.append(sum(link.session is after.routes[0].session for link in links))
            await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await asyncio.gather(judge_all(links, by(after), MemoryState(), CLOCK), others())
    assert {2, 4, 5} <= set(turns)
    for link in links:
        link.abort()


async def test_what_was_revoked_before_it_could_be_ends(tmp_path: Path) -> None:
    before, after = policy(tmp_path, session={"revocable": False}), policy(tmp_path)
    state = MemoryState()
    revocation = Revocation("r", Kind.USER, "alice", None, None, NOW, NOW + 3600)
    await state.revoke([revocation], NOW)
    bob = replace(ALICE, user="bob", claims={"sub": "bob", "exp": NOW + 60})
    lasting = [live(before), live(before, bob)]
    heeded = live(after)  # it was told when it was revoked
    gone = live(after)
    gone.end(Reason.KICKED)
    with capture_logs() as logs:
        await judge_all([*lasting, heeded, gone], by(after), state, CLOCK)
    assert logs == [{"event": "policy_settled", "judged": 3, "ended": 1, "log_level": "info"}]
    gone.abort()
    assert [end_of(link) for link in (*lasting, heeded)] == [(4401, "token_revoked"), None, None]


async def test_one_that_ends_by_the_rules_is_not_asked_for_revocations(tmp_path: Path) -> None:
    before = policy(tmp_path, session={"revocable": False}, authenticate={"anonymous": True})
    nobody = live(before, None)
    after = policy(tmp_path, authenticate={"anonymous": True})
    await judge_all([nobody], by(after), MemoryState(), CLOCK)
    assert nobody.closing is None
    assert nobody.session.revocable
    nobody.abort()
