"""A connection's scanners, made from its route's limits."""

from typing import Final, NamedTuple

from sidecar.policy.limits import Exceed, Limits, Rate
from sidecar.wire.scanner import (
    ON_EXCEED_CLOSE,
    ON_EXCEED_DELAY,
    ON_EXCEED_DROP,
    Bucket,
    FrameScanner,
)

__all__ = ["Buckets", "Scanners", "client_scanner", "control_bucket", "upstream_scanner"]

_ON_EXCEED: Final = {
    Exceed.CLOSE: ON_EXCEED_CLOSE,
    Exceed.DROP: ON_EXCEED_DROP,
    Exceed.DELAY: ON_EXCEED_DELAY,
}


class Buckets(NamedTuple):
    """The rates of what a client sends, and how far each is used up."""

    messages: Bucket | None
    payload: Bucket | None
    controls: Bucket | None

    @classmethod
    def of(cls, limits: Limits) -> "Buckets":
        """Full ones."""
        return cls(_bucket(limits.messages), _bucket(limits.bytes), control_bucket(limits))


class Scanners:
    """Both scanners of one connection, and the limits that they hold it to."""

    __slots__ = ("_buckets", "client", "limits", "upstream")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._buckets = Buckets.of(limits)
        self.client = client_scanner(limits, self._buckets)
        self.upstream = upstream_scanner(limits)

    def adopt(self, limits: Limits) -> bool:
        """Hold it to these limits from the next frame on; whether a rate is another one now. The
        others go on from where they are.
        """
        before, used, full = self.limits, self._buckets, Buckets.of(limits)
        self.limits = limits
        self._buckets = Buckets(
            used.messages if limits.messages == before.messages else full.messages,
            used.payload if limits.bytes == before.bytes else full.payload,
            used.controls if limits.control_frames == before.control_frames else full.controls,
        )
        self.client.limit(
            max_message=limits.client_message or 0,
            max_frame=limits.frame or 0,
            messages=self._buckets.messages,
            payload=self._buckets.payload,
            controls=self._buckets.controls,
        )
        self.upstream.limit(
            max_message=limits.upstream_message or 0,
            max_frame=limits.frame or 0,
            messages=None,
            payload=None,
            controls=None,
        )
        return self._buckets != used


def client_scanner(limits: Limits, buckets: Buckets | None = None) -> FrameScanner:
    """For what a client sends: masked, with every limit."""
    rates = Buckets.of(limits) if buckets is None else buckets
    return FrameScanner(
        masked=True,
        max_message=limits.client_message or 0,
        max_frame=limits.frame or 0,
        messages=rates.messages,
        payload=rates.payload,
        controls=rates.controls,
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
