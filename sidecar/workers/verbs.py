"""What a worker does for the admin API, which is the parent's."""

from collections.abc import Callable, Mapping

from sidecar.admin.api import Api
from sidecar.errors import StateFull, WorkerError
from sidecar.workers.channel import Body, Verb
from sidecar.workers.plain import CLOSED, CONNECTIONS, FILTER, KICKED, REVOCATIONS, VERDICT

__all__ = ["api_verbs"]


def api_verbs(api: Callable[[], Api]) -> Mapping[str, Verb]:
    """The verbs, upon what `api` gives; it may raise WorkerError."""
    verbs = _Verbs(api)
    return {
        "revoke": verbs.revoke,
        "withdraw": verbs.withdraw,
        "connections": verbs.connections,
        "kick": verbs.kick,
        "verify_logout": verbs.verify_logout,
    }


class _Verbs:
    def __init__(self, api: Callable[[], Api]) -> None:
        self._api = api

    async def revoke(self, body: Body) -> Body:
        api = self._api()
        try:
            outcome = await api.state.revoke(REVOCATIONS.get(body), api.clock.time())
        except StateFull as error:
            raise WorkerError(str(error)) from error
        assert outcome is not None  # noqa: S101  # no name for one use was given
        return CLOSED.put(outcome.closed)

    async def withdraw(self, body: Body) -> Body:
        api = self._api()
        await api.state.withdraw(body["id"], api.clock.time())
        return CLOSED.put(0)

    async def connections(self, body: Body) -> Body:
        which, cursor, limit = FILTER.get(body), body["cursor"], body["limit"]
        page = await self._api().connections.list(which, cursor=cursor, limit=limit)
        return CONNECTIONS.put(page.connections)

    async def kick(self, body: Body) -> Body:
        return KICKED.put(await self._api().connections.kick(body["id"]))

    async def verify_logout(self, body: Body) -> Body:
        return VERDICT.put(await self._api().verify_logout(body["token"], body["now"]))
