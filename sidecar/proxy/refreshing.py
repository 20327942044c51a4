"""Tokens that a live connection brings in band: judged like the first one."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sidecar.auth.authenticator import Authenticator
from sidecar.auth.verify import recheck
from sidecar.clock import Clock
from sidecar.model import Denial, Identity, Reason
from sidecar.policy import decide
from sidecar.policy.compiled import Policy
from sidecar.policy.matching import BadToken
from sidecar.policy.replies import Reply
from sidecar.proxy.answers import answer_frame
from sidecar.proxy.pipe import JUDGED
from sidecar.proxy.record import Recorder
from sidecar.proxy.refusals import public_name
from sidecar.proxy.relay import Link
from sidecar.proxy.tasks import give_up, spawn
from sidecar.state.base import State, is_revoked
from sidecar.wire.buckets import Bucket

__all__ = ["MAX_BAD", "Refresher"]

MAX_BAD: Final = 3
"""Tokens that are no good, one after the other, with which a connection ends."""

_RATE: Final = (1.0, 1.0, 10.0)
"""Tokens of one connection: one each second, and ten at once. Whoever brings more wants to make
work.
"""

_NOT_ITS_FAULT: Final = frozenset({Reason.STATE_UNAVAILABLE})


class Refresher:
    """Judges each token that a connection brings, one at a time, and answers it.

    `policy` gives the policy in force. `on_renewed` is told of a connection that has another token.
    """

    def __init__(
        self,
        policy: Callable[[], Policy],
        authenticator: Callable[[], Authenticator],
        state: State,
        recorder: Recorder,
        clock: Clock,
        on_renewed: Callable[[Link], None],
    ) -> None:
        self._policy = policy
        self._authenticator = authenticator
        self._state = state
        self._recorder = recorder
        self._clock = clock
        self._on_renewed = on_renewed
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, link: Link, tokens: Sequence[object]) -> None:
        """Begin to judge what came. The client is not read until that is done, so that nobody can
        make more work than is done.
        """
        link.client.hold(JUDGED)
        spawn(self._take_all(link, tokens), self._tasks)

    async def close(self) -> None:
        """Give up what is being judged."""
        await give_up(self._tasks)

    async def _take_all(self, link: Link, tokens: Sequence[object]) -> None:
        try:
            for token in tokens:
                await asyncio.sleep(0)  # the others' turn: what one read holds may be a thousand
                if link.closing is not None:
                    return
                if self._is_flood(link):
                    link.end(Reason.MESSAGE_RATE, detail="tokens")
                    return
                await self._take(link, token)
        except Exception as error:
            link.fail(error)
        finally:
            link.client.release(JUDGED)

    def _is_flood(self, link: Link) -> bool:
        if link.refreshes is None:
            link.refreshes = Bucket(*_RATE)
        return link.refreshes.take(1.0, self._clock.monotonic()) > 0.0

    async def _take(self, link: Link, token: object) -> None:
        outcome = await self._judge(link, token)
        if link.closing is not None:
            return
        if isinstance(outcome, Denial):
            self._refuse(link, outcome)
            return
        link.renew(outcome, self._clock.time())
        self._on_renewed(link)
        self._recorder.refreshed(link, None)
        refresh = link.session.refresh
        self._answer(link, refresh.reply if refresh else None, None)
        # Once more: what was revoked meanwhile has looked at the old token.
        if link.session.revocable and await self._is_revoked(outcome):
            link.end(Reason.TOKEN_REVOKED)

    async def _judge(self, link: Link, token: object) -> Identity | Denial:
        """Whom the token names, if that is who is connected; or why it is not taken."""
        before, standing = link.identity, link.standing
        if not isinstance(token, str):
            detail = token.detail if isinstance(token, BadToken) else ""
            return Denial(Reason.TOKEN_INVALID, detail)
        if before is None:
            return Denial(Reason.TOKEN_INVALID, "the connection is anonymous")
        now = self._clock.time()
        identity = await self._authenticator().authenticate(token, (before.provider,), now)
        if isinstance(identity, Denial):
            return identity
        if identity.user != before.user:
            return Denial(Reason.TOKEN_INVALID, "the token is another user's")
        if await self._is_revoked(identity):
            return Denial(Reason.TOKEN_REVOKED, "a revocation means this token")
        policy = self._policy()  # not before the awaits: it may be another one by now
        check = partial(recheck, leeway=policy.tokens.leeway, now=self._clock.time())
        route = decide.rejudge(policy, standing, identity, recheck=check)
        return route.denial if isinstance(route, decide.Refusal) else identity

    async def _is_revoked(self, identity: Identity) -> bool:
        now = self._clock.time()
        return await is_revoked(self._state, identity, now, now)

    def _refuse(self, link: Link, denial: Denial) -> None:
        self._recorder.refreshed(link, denial)
        refresh = link.session.refresh
        self._answer(link, refresh.failure if refresh else None, denial)
        if denial.reason in _NOT_ITS_FAULT:
            return
        link.bad_tokens += 1
        if link.bad_tokens >= MAX_BAD:
            link.end(denial.reason, detail=f"{MAX_BAD} tokens in a row were no good")

    def _answer(self, link: Link, reply: Reply | None, denial: Denial | None) -> None:
        if reply is None:
            return
        reason = public_name(denial) if denial else None
        now = self._clock.time()
        link.client.inject(answer_frame(reply, link.identity, now, reason))
