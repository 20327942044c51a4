"""Slows down whoever sends what is no good, without a word to anybody else."""

from collections import OrderedDict
from typing import Final

from sidecar.wire.buckets import Bucket

__all__ = ["FailureLimit"]

RATE: Final = 1.0
"""Failures per second that an address may go on with."""
BURST: Final = 10
"""Failures at once: an issuer whose key the sidecar does not know yet sends a few."""
ADDRESSES: Final = 1024
"""Addresses that are remembered; beyond, the one that failed longest ago is let go."""


class FailureLimit:
    """The failures of each address. `now` is monotonic, in seconds."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """Seconds until the address may try again; 0.0 where it may at once."""
        bucket = self._buckets.get(address)
        if bucket is None:
            return 0.0
        seconds = bucket.take(1, now)
        if not seconds:
            bucket.give_back(1)
        return seconds

    def failed(self, address: str, now: float) -> None:
        """Count a failure."""
        bucket = self._buckets.pop(address, None) or Bucket(RATE, 1.0, BURST)
        bucket.take(1, now)
        self._buckets[address] = bucket
        if len(self._buckets) > ADDRESSES:
            self._buckets.popitem(last=False)
