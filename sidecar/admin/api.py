"""The admin API: revocations and live connections, behind the admin token."""

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import hdrs, web

from sidecar.admin.backchannel import PATH as LOGOUT_PATH
from sidecar.admin.backchannel import BackchannelLogout, VerifyLogout
from sidecar.admin.bodies import read_body
from sidecar.admin.failures import FailureLimit
from sidecar.admin.live import LiveConnections
from sidecar.admin.problems import Refused
from sidecar.admin.record import ActionRecorder
from sidecar.admin.requests import list_query, revocation_of
from sidecar.clock import Clock
from sidecar.errors import StateFull, WorkerError
from sidecar.policy.compiled import TokenRules
from sidecar.state.base import State

__all__ = ["LOGOUT_PATH", "Api"]

_MAX_BODY: Final = 16 * 1024
_CONNECTION_ID: Final = re.compile("[0-9a-f]{16}")
_NO_CURSOR: Final = "cursor: give the next of the page before, or none"
_NO_REVOCATION: Final = "there is no revocation with this id"
_NO_CONNECTION: Final = "there is no connection with this id"
_RETRY_AFTER: Final = 1
"""Seconds until a worker that hangs may have gone on."""


@dataclass(frozen=True, slots=True)
class Api:
    """What the API works with. `rules` gives the token rules of the policy in force."""

    state: State
    connections: LiveConnections
    verify_logout: VerifyLogout
    rules: Callable[[], TokenRules]
    recorder: ActionRecorder
    clock: Clock

    def routes(self) -> Sequence[web.RouteDef]:
        """The paths and what answers them. All but the logout's take the admin token."""
        logout = BackchannelLogout(
            self.state, self.verify_logout, self.rules, self.recorder, self.clock, FailureLimit()
        )
        return [
            web.get("/api/revocations", self._list_revocations),
            web.post("/api/revocations", self._revoke),
            web.delete("/api/revocations/{id}", self._withdraw),
            web.get("/api/connections", self._list_connections),
            web.delete("/api/connections/{id}", self._kick),
            web.post(LOGOUT_PATH, logout.post),
        ]

    async def _revoke(self, request: web.Request) -> web.Response:
        body = await read_body(request, "application/json", _MAX_BODY)
        now = self.clock.time()
        revocation = revocation_of(body, self.rules(), now, lambda: secrets.token_hex(8))
        try:
            outcome = await self.state.revoke([revocation], now)
        except StateFull as error:
            detail = f"{error}; withdraw some, or wait until some are over"
            raise Refused(HTTPStatus.INSUFFICIENT_STORAGE, detail) from None
        assert outcome is not None  # noqa: S101  # no name for one use was given
        self.recorder.revoked(outcome, _address(request))
        (kept,) = outcome.revocations
        if not outcome.confirmed:
            detail = f"{kept.id} is kept, but a worker has not confirmed it yet; ask again"
            raise _unavailable(detail)
        headers = {hdrs.LOCATION: f"/api/revocations/{kept.id}"}
        answer = {**asdict(kept), "closed": outcome.closed}
        return web.json_response(answer, status=HTTPStatus.CREATED, headers=headers)

    async def _list_revocations(self, request: web.Request) -> web.Response:
        asked = list_query(request.query, filters=False)
        try:
            page = await self.state.revocations(
                self.clock.time(), cursor=asked.cursor, limit=asked.limit
            )
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, _NO_CURSOR) from None
        return _listing("revocations", page.revocations, page.next)

    async def _withdraw(self, request: web.Request) -> web.Response:
        withdrawn = await self.state.withdraw(request.match_info["id"], self.clock.time())
        if withdrawn is None:
            raise Refused(HTTPStatus.NOT_FOUND, _NO_REVOCATION)
        self.recorder.withdrawn(withdrawn, _address(request))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _list_connections(self, request: web.Request) -> web.Response:
        asked = list_query(request.query, filters=True)
        if asked.cursor is not None and _CONNECTION_ID.fullmatch(asked.cursor) is None:
            raise Refused(HTTPStatus.BAD_REQUEST, _NO_CURSOR)
        try:
            page = await self.connections.list(asked.which, cursor=asked.cursor, limit=asked.limit)
        except WorkerError as error:
            raise _unavailable(f"{error}; ask again") from None
        return _listing("connections", page.connections, page.next)

    async def _kick(self, request: web.Request) -> web.Response:
        identifier = request.match_info["id"]
        try:
            found = await self.connections.kick(identifier)
        except WorkerError as error:
            raise _unavailable(f"{error}, and no other has the connection; ask again") from None
        if not found:
            raise Refused(HTTPStatus.NOT_FOUND, _NO_CONNECTION)
        self.recorder.kicked(identifier, _address(request))
        return web.Response(status=HTTPStatus.NO_CONTENT)


def _address(request: web.Request) -> str:
    return request.remote or "unix"


def _unavailable(detail: str) -> Refused:
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, detail, retry_after=_RETRY_AFTER)


def _listing(name: str, entries: Sequence[Any], cursor: str | None) -> web.Response:
    return web.json_response({name: [asdict(each) for each in entries], "next": cursor})
