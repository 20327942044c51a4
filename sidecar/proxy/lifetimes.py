"""What a live connection's time asks for: a rule from its session and the signs of its life to what
has to be done now, and when to ask again. Nothing is done here.
"""

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from sidecar.model import Reason
from sidecar.policy.session import Expiry, Session

__all__ = ["Signs", "Step", "next_step"]


class Signs(NamedTuple):
    """What is known of a connection at a moment. All moments are of the steady time, in seconds.

    It was `opened` then. Its token's exp is `left` seconds away, below 0 for one that is over, None
    for one without an end, and `leeway` more are granted; `warned` says that its client was told of
    that exp. The client was `active` last when a frame came that is no pong, `read` when any byte
    did, both counted from when its pipe was last read again after a stall. It was `pinged` then,
    where no byte has come since, else None. `stalled` is a client that is not read at the moment
    for a cause that is not its own.
    """

    opened: float
    left: float | None
    leeway: float
    warned: bool
    active: float
    read: float
    pinged: float | None
    stalled: bool


class Step(NamedTuple):
    """What to do: end it for a `reason`, else `warn` or `ping` its client or both, else nothing;
    and ask again at `due` of the steady time (inf: never), unless it ends.
    """

    due: float
    reason: Reason | None = None
    warn: bool = False
    ping: bool = False


def next_step(session: Session, signs: Signs, now: float) -> Step:
    """What to do for a connection at `now` of the steady time. `due` is never before it."""
    due = inf
    for moment, reason in _ends(session, signs, now):
        if moment <= now:
            return Step(inf, reason)
        due = min(due, moment)
    warn = ping = False
    if session.warn is not None and signs.left is not None and not signs.warned:
        ahead = signs.left - session.warn.before
        warn = ahead <= 0
        if not warn:
            due = min(due, now + ahead)
    if session.heartbeat is not None and signs.pinged is None:
        # A pipe that is not read proves nothing: the interval begins when it is read again.
        since = now if signs.stalled else signs.read
        ping = since + session.heartbeat.interval <= now
        answered_by = now + session.heartbeat.timeout
        due = min(due, answered_by if ping else since + session.heartbeat.interval)
    return Step(due, None, warn, ping)


def _ends(session: Session, signs: Signs, now: float) -> Iterator[tuple[float, Reason]]:
    """The moments at which the connection ends if nothing happens until then, and why."""
    if session.max_lifetime is not None:
        yield signs.opened + session.max_lifetime, Reason.SESSION_LIFETIME
    if session.expiry is Expiry.CLOSE and signs.left is not None:
        yield now + signs.left + signs.leeway, Reason.TOKEN_EXPIRED
    if session.idle_timeout is not None:
        since = now if signs.stalled else signs.active
        yield since + session.idle_timeout, Reason.IDLE_TIMEOUT
    if session.heartbeat is not None and signs.pinged is not None:
        since = now if signs.stalled else signs.pinged
        yield since + session.heartbeat.timeout, Reason.HEARTBEAT_TIMEOUT
