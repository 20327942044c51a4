"""A connection's scanners, made from its route's limits."""

from typing import Final

from sidecar.policy.limits import Exceed, Limits, Rate
from sidecar.wire.scanner import (
    ON_EXCEED_CLOSE,
    ON_EXCEED_DELAY,
    ON_EXCEED_DROP,
    Bucket,
    FrameScanner,
)

__all__ = ["client_scanner", "control_bucket", "upstream_scanner"]

_ON_EXCEED: Final = {
    Exceed.CLOSE: ON_EXCEED_CLOSE,
    Exceed.DROP: ON_EXCEED_DROP,
    Exceed.DELAY: ON_EXCEED_DELAY,
}


def client_scanner(limits: Limits) -> FrameScanner:
    """For what a client sends: masked, with every limit."""
    return FrameScanner(
        masked=True,
        max_message=limits.client_message or 0,
        max_frame=limits.frame or 0,
        messages=_bucket(limits.messages),
        payload=_bucket(limits.bytes),
        controls=control_bucket(limits),
    )


def upstream_scanner(limits: Limits) -> FrameScanner:
    """For what an upstream sends: not masked, with limits of size only."""
    return FrameScanner(
        masked=False,
        max_message=limits.upstream_message or 0,
        max_frame=limits.frame or 0,
    )


def control_bucket(limits: Limits) -> Bucket | None:
    """For a client's control frames; None without a limit."""
    return _bucket(limits.control_frames)


def _bucket(rate: Rate | None) -> Bucket | None:
    if rate is None:
        return None
    return Bucket(rate.amount, rate.seconds, rate.burst, _ON_EXCEED[rate.on_exceed])
