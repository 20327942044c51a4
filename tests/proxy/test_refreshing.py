"""What can happen while a token that a connection brought is judged."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from sidecar.auth.authenticator import Authenticator
from sidecar.config.source import load_policy
from sidecar.model import Denial, Handshake, Identity, Peer, Reason
from sidecar.policy.compiled import Policy
from sidecar.policy.decide import Standing
from sidecar.proxy.record import Recorder
from sidecar.proxy.refreshing import MAX_BAD, Refresher
from sidecar.proxy.relay import Link
from sidecar.state.memory import MemoryState
from tests.support.clocks import MovableClock
from tests.support.revocations import revocation
from tests.support.sidecars import ENVIRON, policy_of
from tests.support.wires import Bench

FIRST = Identity("alice", {"sub": "alice", "exp": 1_700_000_100}, "app", 1_700_000_100.0, None)
SECOND = Identity("alice", {"sub": "alice", "exp": 1_700_009_000}, "app", 1_700_009_000.0, "new")
REFRESH = {"when": {"/type": "refresh"}, "token": "/token", "failure": {"why": "{reason}"}}


class Slow:
    """An authenticator that answers when it is told to."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[Identity | Denial] = asyncio.get_running_loop().create_future()

    async def authenticate(self, *_: Any) -> Identity | Denial:
        return await self.answer


class Told:
    """What a recorder is told."""

    def __init__(self) -> None:
        self.denials: list[Denial | None] = []

    def refreshed(self, _link: Link, denial: Denial | None) -> None:
        self.denials.append(denial)


class Setting:
    """A connection of alice and what judges its tokens."""

    def __init__(self, policy: Policy, before_renewed: Callable[[], None] = lambda: None) -> None:
        self.policy = policy
        self.slow, self.told, self.state = Slow(), Told(), MemoryState()
        self.renewed: list[Link] = []
        self.before_renewed = before_renewed
        session = policy.routes[0].session
        self.bench = Bench(session=session, standing=_standing(policy), on_tokens=self.take)
        self.link.identity = FIRST
        self.refresher = Refresher(
            lambda: self.policy,
            lambda: cast(Authenticator, self.slow),
            self.state,
            cast(Recorder, self.told),
            MovableClock(),
            self.note,
        )

    @property
    def link(self) -> Link:
        return self.bench.link

    @property
    def answers(self) -> bytes:
        return self.bench.wires[0].written

    def take(self, link: Link, tokens: Any) -> None:
        self.refresher.take(link, tokens)

    def note(self, link: Link) -> None:
        self.before_renewed()
        self.renewed.append(link)

    async def judged(self, outcome: Identity | Denial | None) -> None:
        """Have what is under way judged so, and wait for the end of it."""
        await asyncio.sleep(0)
        if outcome is not None:
            self.slow.answer.set_result(outcome)
        async with asyncio.timeout(5):
            while self.link.client in self.link.held:
                await asyncio.sleep(0)


def _standing(policy: Policy) -> Standing:
    handshake = Handshake("/", "", "localhost", (), "", None, ())
    return Standing(handshake, Peer("127.0.0.1", False), policy.upstreams["main"], "/")


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    path = tmp_path / "policy.yaml"
    path.write_text(policy_of("ws://127.0.0.1:1", route={"session": {"refresh": REFRESH}}))
    return load_policy([path], ENVIRON).policy


@pytest.fixture
async def setting(policy: Policy) -> Setting:
    return Setting(policy)


async def test_a_client_is_not_read_while_its_token_is_judged(setting: Setting) -> None:
    setting.take(setting.link, ["token"])
    assert setting.link.client in setting.link.held
    await setting.judged(SECOND)
    assert setting.renewed == [setting.link]
    assert setting.link.identity == SECOND
    assert setting.link.verified_at == 1_700_000_000.0


async def test_a_connection_that_ends_meanwhile_is_not_renewed(setting: Setting) -> None:
    setting.take(setting.link, ["token", "another"])
    await asyncio.sleep(0)
    setting.link.end(Reason.KICKED)
    await setting.judged(SECOND)
    assert setting.renewed == []
    assert setting.told.denials == []


async def test_a_revoked_token_is_not_taken(setting: Setting) -> None:
    await setting.state.revoke([revocation()], 1_700_000_000.0)
    setting.take(setting.link, ["token"])
    await setting.judged(SECOND)
    (denial,) = setting.told.denials
    assert denial is not None
    assert denial.reason is Reason.TOKEN_REVOKED
    assert json.loads(setting.answers[2:]) == {"why": "token_revoked"}


async def test_a_token_that_is_revoked_just_then_ends_the_connection(policy: Policy) -> None:
    setting: Setting

    def revoke() -> None:
        coroutine = setting.state.revoke([revocation()], 1_700_000_000.0)
        with pytest.raises(StopIteration):
            coroutine.send(None)

    setting = Setting(policy, revoke)
    setting.take(setting.link, ["token"])
    await setting.judged(SECOND)
    assert setting.link.closing is not None
    assert setting.link.closing.reason == "token_revoked"


async def test_keys_that_are_not_there_are_not_the_clients_fault(setting: Setting) -> None:
    denial = Denial(Reason.STATE_UNAVAILABLE, "no keys")
    setting.slow.answer.set_result(denial)
    setting.take(setting.link, ["token"] * (MAX_BAD + 1))
    await setting.judged(None)
    assert setting.told.denials == [denial] * (MAX_BAD + 1)
    assert setting.link.closing is None


async def test_what_is_being_judged_is_given_up_at_the_end(setting: Setting) -> None:
    setting.take(setting.link, ["token"])
    await asyncio.sleep(0)
    await setting.refresher.close()
    assert setting.told.denials == []
    assert setting.link.client not in setting.link.held


async def test_a_rule_that_went_meanwhile_answers_nothing(setting: Setting) -> None:
    setting.take(setting.link, [object()])
    setting.link.session = Bench().link.session
    await setting.judged(None)
    assert len(setting.told.denials) == 1
    assert setting.answers == b""


async def test_an_error_of_the_programs_own_ends_the_connection(setting: Setting) -> None:
    setting.slow.answer.set_exception(RuntimeError("a bug"))
    with capture_logs() as logs:
        setting.take(setting.link, ["token"])
        await setting.judged(None)
    assert [entry["event"] for entry in logs] == ["internal_error"]
    assert setting.link.closing is not None
    assert setting.link.closing.reason == "internal_error"


async def test_a_policy_that_changes_meanwhile_decides(setting: Setting, policy: Policy) -> None:
    setting.take(setting.link, ["token"])
    await asyncio.sleep(0)
    setting.policy = replace(policy, routes=())
    await setting.judged(SECOND)
    (denial,) = setting.told.denials
    assert denial is not None
    assert denial.reason is Reason.NO_ROUTE
    assert setting.link.identity == FIRST
