import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.wire.buckets import ON_EXCEED_CLOSE, ON_EXCEED_DELAY, Bucket

pytestmark = pytest.mark.usefixtures("implementation")

# A monotonic clock after half a year and the wall clock: floats are coarser there.
CLOCKS = [0.0, 15_000_000.3, 1_760_000_000.7]


@pytest.mark.parametrize("now", CLOCKS)
def test_a_full_bucket_gives_its_burst_at_once_and_no_more(now: float) -> None:
    bucket = Bucket(10, 1, 20)
    assert [bucket.take(1, now) for _ in range(20)] == [0.0] * 20
    assert bucket.take(1, now) == pytest.approx(0.1)


@pytest.mark.parametrize("now", CLOCKS)
def test_what_was_refused_conforms_after_the_wait_it_was_told(now: float) -> None:
    bucket = Bucket(100, 60, 5)
    for _ in range(200):
        wait = bucket.take(1, now)
        if wait > 0.0:
            assert wait > 1e-6
            now += wait
            assert bucket.take(1, now) == 0.0


def test_a_refusal_charges_nothing() -> None:
    bucket = Bucket(1, 1, 1)
    assert bucket.take(1, 5.0) == 0.0
    assert [bucket.take(1, 5.0) for _ in range(3)] == [pytest.approx(1.0)] * 3
    assert bucket.take(1, 6.0) == 0.0


def test_a_cost_over_the_burst_passes_when_full_and_leaves_a_debt() -> None:
    bucket = Bucket(100, 1, 50)
    assert bucket.take(500, 0.0) == 0.0
    assert bucket.take(50, 0.0) == pytest.approx(5.0)
    assert bucket.take(1, 0.0) == pytest.approx(4.51)
    assert bucket.take(50, 5.0) == 0.0


def test_a_cost_over_the_burst_waits_until_the_bucket_is_full() -> None:
    bucket = Bucket(100, 1, 50)
    assert bucket.take(10, 0.0) == 0.0
    assert bucket.take(500, 0.0) == pytest.approx(0.1)


def test_a_clock_that_goes_back_gains_nothing() -> None:
    bucket = Bucket(1, 1, 1)
    assert bucket.take(1, 10.0) == 0.0
    assert bucket.take(1, 3.0) > 0.0
    assert bucket.take(1, 10.5) > 0.0
    assert bucket.take(1, 11.0) == 0.0


def test_what_is_given_back_can_be_taken_again() -> None:
    bucket = Bucket(1, 1, 2)
    assert bucket.take(2, 0.0) == 0.0
    bucket.give_back(2)
    assert bucket.take(2, 0.0) == 0.0
    assert bucket.take(1, 0.0) == pytest.approx(1.0)


def test_a_bucket_knows_what_to_do_when_exceeded() -> None:
    assert Bucket(1, 1, 1).on_exceed == ON_EXCEED_CLOSE
    assert Bucket(1, 1, 1, ON_EXCEED_DELAY).on_exceed == ON_EXCEED_DELAY


@pytest.mark.parametrize("rate", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-1, 1, 1)])
def test_a_rate_that_is_none_is_refused(rate: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Bucket(*rate)


@given(
    steps=st.lists(st.tuples(st.integers(0, 40), st.floats(0, 3)), max_size=60),
    burst=st.integers(1, 40),
)
def test_over_any_time_no_more_passes_than_burst_and_rate(
    steps: list[tuple[int, float]], burst: int
) -> None:
    rate = 7.0
    bucket = Bucket(rate * 2, 2, burst)
    now = 100.0
    taken: list[tuple[float, int]] = []
    for cost, pause in steps:
        now += pause
        cost = min(cost, burst)
        if bucket.take(cost, now) == 0.0:
            taken.append((now, cost))
    for index, (since, _) in enumerate(taken):
        passed = 0
        for at, cost in taken[index:]:
            passed += cost
            assert passed <= burst + rate * (at - since) + 1e-3


@given(
    costs=st.lists(st.integers(0, 30), max_size=12),
    spent=st.integers(0, 60),
    burst=st.integers(1, 60),
)
def test_all_at_once_is_charged_what_each_would_be(
    costs: list[int], spent: int, burst: int
) -> None:
    one, other = Bucket(1, 1, burst), Bucket(1, 1, burst)
    for bucket in (one, other):
        bucket.take(spent, 0.0)
    each = [other.take(cost, 0.0) for cost in costs]
    if one.take_all(sum(costs), 0.0):
        assert each == [0.0] * len(costs)
        assert one.take(1, 0.0) == other.take(1, 0.0)
    else:
        assert sum(costs) + spent > burst
        untouched = Bucket(1, 1, burst)
        untouched.take(spent, 0.0)
        assert one.take(1, 0.0) == untouched.take(1, 0.0)  # nothing was charged


def test_all_at_once_may_not_leave_a_debt() -> None:
    bucket = Bucket(1, 1, 10)
    assert not bucket.take_all(11, 0.0)
    assert bucket.take_all(10, 0.0)
