"""Handshakes whose token comes in the first message, or would have come in a cookie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.source import load_policy
from sidecar.model import Denial, Handshake, Peer, Reason
from sidecar.policy.awaiting import preflight_again, with_token, without_cookie
from sidecar.policy.compiled import Policy
from sidecar.policy.credentials import SourceKind
from sidecar.policy.decide import Preflight, Refusal, preflight
from tests.support.first_messages import MESSAGE
from tests.support.sidecars import ENVIRON, policy_of

PEER = Peer("192.0.2.1", True)
BOTH = ({"cookie": "session"}, {"message": dict(MESSAGE)})
STALE = Denial(Reason.TOKEN_EXPIRED)


def policy(folder: Path, *sources: Any, **route: Any) -> Policy:
    path = folder / "policy.yaml"
    authenticate: Mapping[str, Any] = {"sources": list(sources)}
    path.write_text(policy_of("ws://127.0.0.1:1", route={"authenticate": authenticate, **route}))
    return load_policy([path], ENVIRON).policy


def began(by: Policy, *headers: tuple[str, str]) -> Preflight:
    """A handshake that this policy lets go on."""
    fields = (*headers, ("Origin", "https://example.com"))
    shake = Handshake("/ws", "", "example.com", fields, "", "https://example.com", ())
    admitted = preflight(by, shake, PEER)
    assert isinstance(admitted, Preflight)
    return admitted


def test_a_bad_cookie_gives_way_to_the_message(tmp_path: Path) -> None:
    admitted = began(policy(tmp_path, *BOTH), ("Cookie", "session=t.o.k; other=1"))
    assert admitted.credential.token == "t.o.k"
    assert admitted.awaits_message is None
    waiting = without_cookie(admitted, STALE)
    assert waiting is not None
    assert (waiting.credential.token, waiting.credential.source) == (None, None)
    assert waiting.awaits_message == admitted.route.authenticate.message
    ready = with_token(waiting, "another")
    assert (ready.credential.token, ready.credential.source) == ("another", SourceKind.MESSAGE)


@pytest.mark.parametrize("reason", [Reason.CLAIMS_DENIED, Reason.STATE_UNAVAILABLE])
def test_a_denial_that_is_not_the_cookies_fault_stays(tmp_path: Path, reason: Reason) -> None:
    admitted = began(policy(tmp_path, *BOTH), ("Cookie", "session=t.o.k"))
    assert without_cookie(admitted, Denial(reason)) is None


def test_a_token_that_was_sent_on_purpose_is_judged(tmp_path: Path) -> None:
    both = policy(tmp_path, "header", {"message": dict(MESSAGE)})
    admitted = began(both, ("Authorization", "Bearer t.o.k"))
    assert without_cookie(admitted, STALE) is None


def test_a_route_without_a_message_has_nothing_to_wait_for(tmp_path: Path) -> None:
    admitted = began(policy(tmp_path, {"cookie": "session"}), ("Cookie", "session=t.o.k"))
    assert without_cookie(admitted, STALE) is None


def test_another_policy_decides_a_handshake_that_waits(tmp_path: Path) -> None:
    before = policy(tmp_path, *BOTH)
    waiting = without_cookie(began(before, ("Cookie", "session=t.o.k")), STALE)
    assert waiting is not None
    again = preflight_again(before, waiting)
    assert again == waiting
    elsewhere = preflight_again(policy(tmp_path, *BOTH, match={"path": "/else"}), waiting)
    assert isinstance(elsewhere, Refusal)
    assert elsewhere.denial.reason is Reason.NO_ROUTE
    other = preflight_again(policy(tmp_path, {"cookie": "session"}), waiting)
    assert isinstance(other, Refusal)
    assert (other.denial.reason, other.route is None) == (Reason.NO_ROUTE, False)


def test_one_that_brought_no_cookie_goes_on_waiting(tmp_path: Path) -> None:
    both = policy(tmp_path, *BOTH)
    waiting = began(both)
    assert waiting.awaits_message is not None
    assert preflight_again(both, waiting) == waiting
