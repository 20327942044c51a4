"""One clock for all live connections: what is due for each, in slots of time.

No connection has a timer or a task. A tick touches only the links of the slots that are over, does
what `lifetimes.next_step` says, and puts each into the slot of its next step. What a client does in
between moves nothing: a link that was active is found so when it is due, and put back.
"""

from itertools import islice
from math import ceil, floor, inf
from typing import Final

from sidecar.clock import Clock
from sidecar.model import Reason
from sidecar.proxy.answers import answer_frame
from sidecar.proxy.heartbeat import Ping
from sidecar.proxy.lifetimes import Signs, Step, next_step
from sidecar.proxy.relay import Link

__all__ = ["SLICE", "TICK", "Deadlines"]

TICK: Final = 0.25
"""Seconds from one tick to the next: with a slot's and a step's it stays below one second from a
moment that is due to what is done.
"""

SLICE: Final = 250
"""Links that one turn of the loop looks at, so that thousands at once do not hold up the rest."""

_SLOTS: Final = 8
"""Slots of one second."""

_STEP: Final = 0.25
"""Seconds by which the time of day may wander from the steady time unnoticed."""


class Deadlines:
    """The links that something will be due for.

    Tokens speak of the time of day, everything else is counted in steady time; when one has stepped
    against the other, every link is looked at anew. `leeway` is what the tokens' exp is extended
    by, in seconds.
    """

    def __init__(self, clock: Clock, leeway: float) -> None:
        self._leeway = leeway
        self._clock = clock
        self._now = clock.monotonic()
        self._offset = clock.time() - self._now
        self._slot = floor(self._now * _SLOTS)  # the first that is not over
        self._slots: dict[int, set[Link]] = {}
        self._places: dict[Link, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def add(self, link: Link) -> None:
        """Look at a new link at the next tick, and from then on."""
        self._put(link, self._slot)

    def reschedule(self, link: Link) -> None:
        """Look at it anew at the next tick: its token or its session is another one."""
        self.remove(link)
        self._put(link, self._slot)

    def remove(self, link: Link) -> None:
        """Forget it, where it is known."""
        slot = self._places.pop(link, None)
        if slot is not None:
            links = self._slots[slot]
            links.remove(link)
            if not links:
                del self._slots[slot]

    def follow(self, leeway: float) -> None:
        """Go by another leeway from now on."""
        if leeway != self._leeway:
            self._leeway = leeway
            self._look_at_all(self._slot)

    def advance(self) -> bool:
        """Do what is due by now, for `SLICE` links at most; whether there may be more."""
        self._now = self._clock.monotonic()
        last = floor(self._now * _SLOTS)
        self._notice_a_step(last)
        room = SLICE
        while room:
            due = list(islice(self._slots.get(self._slot, ()), room))
            room -= len(due)
            for link in due:
                self.remove(link)
                self._visit(link)
            if not due:
                if self._slot >= last:
                    return False
                self._slot += 1
        return True

    def _notice_a_step(self, last: int) -> None:
        offset = self._clock.time() - self._now
        if abs(offset - self._offset) > _STEP:
            self._offset = offset
            self._look_at_all(last)

    def _look_at_all(self, slot: int) -> None:
        self._slot = slot
        self._slots = {slot: set(self._places)} if self._places else {}
        self._places = dict.fromkeys(self._places, slot)

    def _put(self, link: Link, slot: int) -> None:
        self._places[link] = slot
        self._slots.setdefault(slot, set()).add(link)

    def _visit(self, link: Link) -> None:
        """Do what is due for a link. Where that fails it ends, as nobody would look at it again."""
        if link.closing is not None:
            return
        try:
            due = self._act(link)
        except Exception as error:
            link.fail(error)
            return
        if due < inf:
            self._put(link, max(ceil(due * _SLOTS), floor(self._now * _SLOTS) + 1))

    def _act(self, link: Link) -> float:
        now, client = self._now, link.client
        step = self._step(link)
        ping = link.ping
        if step.reason is Reason.HEARTBEAT_TIMEOUT and ping and ping.is_under_way(client, now):
            step = self._step(link)
        if step.reason is not None:
            link.end(step.reason)
            if step.reason is Reason.HEARTBEAT_TIMEOUT:
                # It is not waited for. Not before the next turn: uvloop writes at the end of one.
                link.loop.call_soon(client.transport.abort)
            return inf
        if step.warn:
            self._warn(link)
        if step.ping:
            link.ping = Ping(client, link.ping_id, now)
        return step.due

    def _step(self, link: Link) -> Step:
        client, session = link.client, link.session
        read = max(link.opened, client.read_at)
        if link.ping is not None and read >= link.ping.at:
            link.ping = None
        left = None
        if link.expires_at is not None:
            left = link.expires_at - self._clock.time()
        signs = Signs(
            opened=link.opened,
            left=left,
            leeway=self._leeway,
            warned=link.warned_of == link.expires_at,
            active=max(link.opened, client.meter.active_at, client.released_at),
            read=read,
            pinged=link.ping.at if link.ping else None,
            stalled=client.stalled,
        )
        return next_step(session, signs, self._now)

    def _warn(self, link: Link) -> None:
        link.warned_of = link.expires_at
        if link.session.warn is not None:
            message = link.session.warn.message
            link.client.inject(answer_frame(message, link.identity, self._clock.time()))
