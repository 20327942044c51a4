"""POST /backchannel-logout: an OpenID Connect issuer says that a session is over.

The issuer has no admin token: what it sends is proved by its signature. So this is the one path
that strangers may ask for more than a probe. They get no detail, a body of bounded size, one
verification, and fewer of them when they fail.
"""

import math
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from sidecar.admin.bodies import read_body
from sidecar.admin.failures import FailureLimit
from sidecar.admin.problems import Refused
from sidecar.admin.record import ActionRecorder
from sidecar.auth.logout import Logout, once_of, revocations_of
from sidecar.clock import Clock
from sidecar.errors import StateFull
from sidecar.model import Denial, Reason
from sidecar.policy.compiled import TokenRules
from sidecar.state.base import State

__all__ = ["PATH", "BackchannelLogout", "VerifyLogout"]

PATH: Final = "/backchannel-logout"

VerifyLogout = Callable[[str, float], Awaitable[Logout | Denial]]
"""Verifies a logout token at a time in seconds since the epoch: `Authenticator.logout`, or what
asks a process that has the keys.
"""

_FORM: Final = "application/x-www-form-urlencoded"
_ROOM: Final = 4 * 1024
"""Bytes of a form beside its token: fields that the issuer adds are ignored (section 2.5)."""
_MAX_FIELDS: Final = 16
_USED: Final = Denial(Reason.TOKEN_INVALID, "the logout token was used before")
_UNCONFIRMED: Final = Denial(
    Reason.STATE_UNAVAILABLE, "the logout is in force, but a worker does not answer"
)


@dataclass(frozen=True, slots=True)
class BackchannelLogout:
    """The endpoint (OpenID Connect Back-Channel Logout 1.0 sections 2.5 to 2.8)."""

    state: State
    verify: VerifyLogout
    rules: Callable[[], TokenRules]
    recorder: ActionRecorder
    clock: Clock
    failures: FailureLimit

    async def post(self, request: web.Request) -> web.Response:
        """200 where the session is over, 400 for whatever is wrong, 429 after many failures."""
        address = request.remote or "unix"
        wait = self.failures.wait(address, self.clock.monotonic())
        if wait:
            self.recorder.logout_put_off()
            return _refusal(
                "slow_down", HTTPStatus.TOO_MANY_REQUESTS, retry_after=str(math.ceil(wait))
            )
        denial = await self._take(request, address)
        if denial is None:
            self.recorder.logout_taken()
            return web.Response()
        self.recorder.logout_refused(denial, address)
        if denial.reason in (Reason.STATE_UNAVAILABLE, Reason.OVERLOADED):
            return _refusal("temporarily_unavailable", HTTPStatus.BAD_REQUEST)
        self.failures.failed(address, self.clock.monotonic())
        return _refusal("invalid_request", HTTPStatus.BAD_REQUEST)

    async def _take(self, request: web.Request, address: str) -> Denial | None:
        """Do what the request asks for; a denial where it cannot be done."""
        rules = self.rules()
        try:
            token = _token(await read_body(request, _FORM, rules.max_token_size + _ROOM))
        except (Refused, ValueError) as error:
            return Denial(Reason.TOKEN_INVALID, str(error))
        now = self.clock.time()
        logout = await self.verify(token, now)
        if isinstance(logout, Denial):
            return logout
        revocations = revocations_of(logout, rules, now, lambda: secrets.token_hex(8))
        try:
            outcome = await self.state.revoke(revocations, now, once=once_of(logout))
        except StateFull as error:
            return Denial(Reason.OVERLOADED, str(error))
        if outcome is None:
            return _USED
        self.recorder.revoked(outcome, address)
        if not outcome.confirmed:
            return _UNCONFIRMED
        return None


def _token(body: bytes) -> str:
    """The logout_token of a form. Raises ValueError where there is not exactly one."""
    fields = parse_qsl(body.decode("ascii"), max_num_fields=_MAX_FIELDS)
    tokens = [value for name, value in fields if name == "logout_token"]
    if len(tokens) != 1:
        raise ValueError("the form has not exactly one logout_token")
    return tokens[0]


def _refusal(error: str, status: HTTPStatus, *, retry_after: str | None = None) -> web.Response:
    """Section 2.8: a JSON object with the error as OAuth 2.0 gives it, and no more."""
    headers = {} if retry_after is None else {hdrs.RETRY_AFTER: retry_after}
    return web.json_response({"error": error}, status=status, headers=headers)
