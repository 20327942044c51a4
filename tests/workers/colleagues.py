"""Stand-ins for workers: their verbs are the real ones, their messages go through JSON."""

import asyncio
import json
from typing import Any, cast

from sidecar.admin.api import Api
from sidecar.auth.logout import Logout
from sidecar.errors import WorkerError
from sidecar.model import Denial, Reason
from sidecar.policy.compiled import TokenRules
from sidecar.state.memory import MemoryState
from sidecar.workers.channel import Body
from sidecar.workers.verbs import api_verbs
from tests.admin.conftest import Connections
from tests.support.clocks import MovableClock


class Worker:
    """A worker without a process. While `goes_on` is not set it answers nothing; with `fails`, it
    says that it cannot; once it is `dead`, or its channel is `broken`, it cannot be reached.
    """

    def __init__(self, number: int = 1, capacity: int = 1000) -> None:
        self.number = number
        self.silent_for = 0.0
        self.asked: list[str] = []
        self.fails = False
        self.broken = False
        self.dead = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self._turn = asyncio.Lock()  # what is asked first is done first
        self.memory = MemoryState(capacity)
        self.connections = Connections()
        self.memory.subscribe(self.connections.end)
        self.clock = MovableClock()
        self.verdict: Logout | Denial = Denial(Reason.TOKEN_INVALID, "not mine", "rule")
        self._verbs = api_verbs(lambda: self._api())

    @property
    def reachable(self) -> bool:
        return not self.broken and not self.dead.is_set()

    @property
    def serving(self) -> bool:
        return self.reachable

    async def ask(self, verb: str, body: Body, within: float) -> Body:
        self.asked.append(verb)
        try:
            async with asyncio.timeout(within), self._turn:
                await self.goes_on.wait()
        except TimeoutError:
            raise WorkerError(f"no answer to {verb}") from None
        if self.fails or not self.reachable:
            raise WorkerError("not today")
        return cast(Body, json.loads(json.dumps(await self._verbs[verb](_sent(body)))))

    def kill(self) -> None:
        self.dead.set()

    async def over(self) -> None:
        await self.dead.wait()

    def _api(self) -> Api:
        none: Any = None
        rules = TokenRules(30.0, 8192, ())
        return Api(self.memory, self.connections, self._verify, lambda: rules, none, self.clock)

    async def _verify(self, token: str, now: float) -> Logout | Denial:
        assert (token, now) == ("a.b.c", 17.5)
        return self.verdict


def _sent(body: Body) -> Body:
    return cast(Body, json.loads(json.dumps(body)))
