"""Judging live connections again, when another policy has come into force."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from sidecar.auth.verify import recheck
from sidecar.clock import Clock
from sidecar.model import Denial, Identity, Reason
from sidecar.policy import decide
from sidecar.policy.compiled import Policy
from sidecar.policy.providers import Provider
from sidecar.proxy.refusals import close_code
from sidecar.proxy.relay import Link
from sidecar.state.base import State, is_revoked

__all__ = ["SLICE", "judge", "judge_all"]

SLICE: Final = 200
"""Connections that are judged in one turn of the loop, some milliseconds: the others' frames must
not wait for all of them.
"""

_log = structlog.get_logger()


def judge(link: Link, policy: Policy, now: float) -> bool:
    """Let a live connection go on by the rules that this policy has for it, or end it. `now` is in
    seconds since the epoch. It ends too where it cannot be judged. Whether it goes on with another
    session or another end of its token, so that other things are due for it.
    """
    if link.closing is not None:
        return False
    before = link.session, link.expires_at

    def again(identity: Identity, provider: Provider) -> Denial | None:
        link.expires_at = provider.end_of(identity.claims)
        return recheck(identity, provider, leeway=policy.tokens.leeway, now=now)

    try:
        outcome = decide.rejudge(policy, link.standing, link.identity, recheck=again)
    except Exception as error:
        link.fail(error)
        return False
    if isinstance(outcome, decide.Refusal):
        _end(link, outcome)
        return False
    link.adopt(outcome)
    return (link.session, link.expires_at) != before


async def judge_all(
    links: Iterable[Link], judged: Callable[[Link], None], state: State, clock: Clock
) -> None:
    """Have these connections `judged` by the policy that is in force when the turn is theirs. What
    was revoked while a route's connections could not be ends now where they can. The log says how
    many were judged, and how many of them have ended by it.
    """
    waiting = list(links)
    ends: list[bool] = []
    for start in range(0, len(waiting), SLICE):
        await asyncio.sleep(0)
        for link in waiting[start : start + SLICE]:
            if link.closing is None:
                lasting = not link.session.revocable
                judged(link)
                if lasting and link.session.revocable:
                    await _end_revoked(link, state, clock.time())
                ends.append(link.closing is not None)
    _log.info("policy_settled", judged=len(ends), ended=sum(ends))


def _end(link: Link, refusal: decide.Refusal) -> None:
    denial, route = refusal.denial, refusal.route
    code = close_code(denial.reason, denial.rule, route.refuse.codes) if route else None
    link.end(denial.reason, code, denial.detail, denial.rule)


async def _end_revoked(link: Link, state: State, now: float) -> None:
    if await is_revoked(state, link.identity, link.verified_at, now) and link.closing is None:
        link.end(Reason.TOKEN_REVOKED)
