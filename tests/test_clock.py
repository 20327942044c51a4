import time

from sidecar.clock import Clock, SystemClock
from tests.support.clocks import MovableClock


def test_the_systems_clock_gives_the_systems_times() -> None:
    clock: Clock = SystemClock()
    before = time.time(), time.monotonic()
    read = clock.time(), clock.monotonic()
    after = time.time(), time.monotonic()
    assert before <= read <= after
    assert before[1] <= read[1] <= after[1]


def test_a_tests_clock_moves_both_times_and_steps_one() -> None:
    clock = MovableClock()
    wall, steady = clock.time(), clock.monotonic()
    clock.move(5)
    clock.step(-3600)
    assert (clock.time() - wall, clock.monotonic() - steady) == (5 - 3600, 5)
