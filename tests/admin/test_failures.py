from sidecar.admin.failures import ADDRESSES, BURST, FailureLimit


def failing(limit: FailureLimit, address: str, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        limit.failed(address, now)


def test_a_few_failures_cost_nothing() -> None:
    limit = FailureLimit()
    assert limit.wait("a", 0) == 0
    failing(limit, "a", BURST - 1)
    assert limit.wait("a", 0) == 0


def test_more_of_them_make_the_address_wait() -> None:
    limit = FailureLimit()
    failing(limit, "a", BURST)
    assert limit.wait("a", 0) == 1
    assert limit.wait("a", 0.25) == 0.75
    assert limit.wait("a", 1) == 0
    assert limit.wait("b", 0) == 0


def test_to_ask_costs_nothing() -> None:
    limit = FailureLimit()
    failing(limit, "a", 1)
    assert [limit.wait("a", 0) for _ in range(100)] == [0.0] * 100


def test_the_memory_for_addresses_is_bounded() -> None:
    limit = FailureLimit()
    failing(limit, "first", BURST)
    failing(limit, "second", BURST)
    failing(limit, "first", 1)
    for number in range(ADDRESSES - 1):
        failing(limit, f"{number}", 1)
    assert len(limit._buckets) == ADDRESSES
    assert (limit.wait("first", 0) > 0, limit.wait("second", 0)) == (True, 0)
