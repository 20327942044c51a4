"""Limits of a connection: sizes and rates. The scanner enforces them."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["UNLIMITED", "Exceed", "Limits", "Rate"]


class Exceed(StrEnum):
    """What happens to a message over its rate."""

    CLOSE = "close"
    DROP = "drop"
    DELAY = "delay"


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` (messages or bytes) each `seconds`, `burst` at most at once, and what more does."""

    amount: float
    seconds: float
    burst: float
    on_exceed: Exceed = Exceed.CLOSE


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may send. Sizes are in bytes, None is no limit.

    `client_message` and `upstream_message` limit a reassembled message of that side, `frame` one
    frame of either side. The rates concern what the client sends.
    """

    client_message: int | None = 1024 * 1024
    upstream_message: int | None = None
    frame: int | None = None
    messages: Rate | None = None
    bytes: Rate | None = None
    control_frames: Rate | None = Rate(10, 1, 10)


UNLIMITED = Limits(client_message=None, control_frames=None)
