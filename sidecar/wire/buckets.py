"""Rate limits of one connection: the generic cell rate algorithm, without a clock of its own."""

__all__ = ["ON_EXCEED_CLOSE", "ON_EXCEED_DELAY", "ON_EXCEED_DROP", "Bucket", "take_both"]

ON_EXCEED_CLOSE = 0
ON_EXCEED_DROP = 1
ON_EXCEED_DELAY = 2

# Seconds. A caller that comes back after exactly the wait it was told must not be refused for
# the rounding of its clock; this is above the resolution of a float that counts from 1970.
_ROUNDING = 1e-6


class Bucket:
    """`amount` units each `seconds`, at most `burst` units at once; full at first.

    This is GCRA in its form of a leaky bucket (ITU-T I.371, annex A): a level that drains at
    the permitted rate and may not rise above the burst.
    """

    __slots__ = ("_at", "_burst", "_level", "_rate", "_slack", "on_exceed")

    on_exceed: int
    _rate: float
    _burst: float
    _slack: float
    _level: float
    _at: float

    def __init__(
        self, amount: float, seconds: float, burst: float, on_exceed: int = ON_EXCEED_CLOSE
    ) -> None:
        if amount <= 0 or seconds <= 0 or burst <= 0:
            raise ValueError("amount, seconds and burst of a rate are above 0")
        self.on_exceed = on_exceed
        self._rate = amount / seconds
        self._burst = float(burst)
        self._slack = self._rate * _ROUNDING
        self._level = 0.0
        self._at = 0.0

    def take(self, cost: float, now: float) -> float:
        """Charge `cost` units at `now` (seconds of any steady clock).

        Returns 0.0 when it conforms and was charged, else the seconds to wait, with nothing
        charged. A cost over the burst passes when the bucket is full and is charged wholly, so
        that its debt is paid off before the next.
        """
        level = self._level
        if now > self._at:
            level -= (now - self._at) * self._rate
            if level < 0.0:
                level = 0.0
        else:
            now = self._at
        room = self._burst - cost
        if room < 0.0:
            room = 0.0
        if level - room > self._slack:
            return (level - room) / self._rate
        self._level = level + cost
        self._at = now
        return 0.0

    def take_all(self, cost: float, now: float) -> bool:
        """Charge at once what many calls of `take` would charge, each of which conforms; else
        nothing. `cost` is theirs together.
        """
        return cost <= self._burst and self.take(cost, now) == 0.0

    def give_back(self, cost: float) -> None:
        """Undo the `take` or `take_all` just before, which was charged `cost`."""
        self._level -= cost


def take_both(
    first: Bucket | None, cost: float, second: Bucket | None, other_cost: float, now: float
) -> bool:
    """Charge two buckets, of which there may be none, by `take_all`; both or neither."""
    if first is not None and not first.take_all(cost, now):
        return False
    if second is None or second.take_all(other_cost, now):
        return True
    if first is not None:
        first.give_back(cost)
    return False
