"""Time that a test moves."""


class MovableClock:
    """A clock that stands still until it is told otherwise; both its times start apart, so that
    whoever takes one for the other is found out.
    """

    def __init__(self, time: float = 1_700_000_000.0) -> None:
        self._time = time
        self._monotonic = 1000.0

    def time(self) -> float:
        return self._time

    def monotonic(self) -> float:
        return self._monotonic

    def move(self, seconds: float) -> None:
        """Let time go by."""
        self._time += seconds
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Set the time of day, forwards or (below 0) backwards; steady time goes on unmoved."""
        self._time += seconds
