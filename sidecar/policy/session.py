"""What holds for a connection as long as it lives. Durations are in seconds."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sidecar.policy.matching import MessagePattern
from sidecar.policy.replies import Reply

__all__ = ["DEFAULT_SESSION", "Expiry", "Heartbeat", "Refresh", "Session", "Warn"]


class Expiry(StrEnum):
    """What a token's exp means for the connection that it opened."""

    CLOSE = "close"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Warn:
    """The message that a client gets `before` seconds ahead of its token's exp."""

    before: float
    message: Reply


@dataclass(frozen=True, slots=True)
class Refresh:
    """The messages that bring a new token, and what a good one and any other is answered (None:
    nothing).
    """

    pattern: MessagePattern
    reply: Reply | None = None
    failure: Reply | None = None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Pings of the sidecar's own each `interval`; a pong has `timeout` (at most `interval`)."""

    interval: float
    timeout: float


@dataclass(frozen=True, slots=True)
class Session:
    """A route's rule for live connections; None is off.

    `idle_timeout` counts from the client's last frame that is no pong, `max_lifetime` from the
    connection's beginning. A live connection that is `revocable` ends when its user, token or
    session is revoked; new ones are refused whatever it says.
    """

    expiry: Expiry = Expiry.CLOSE
    warn: Warn | None = None
    refresh: Refresh | None = None
    idle_timeout: float | None = None
    heartbeat: Heartbeat | None = None
    max_lifetime: float | None = None
    revocable: bool = True


DEFAULT_SESSION: Final = Session()
"""What holds where the policy says nothing."""
