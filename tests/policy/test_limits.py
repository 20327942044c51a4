from sidecar.policy.limits import UNLIMITED, Exceed, Limits, Rate


def test_a_route_without_limits_still_bounds_messages_and_control_frames() -> None:
    limits = Limits()
    assert limits.client_message == 1024 * 1024
    assert limits.control_frames == Rate(10, 1, 10, Exceed.CLOSE)


def test_a_route_without_limits_bounds_nothing_else() -> None:
    limits = Limits()
    assert (limits.upstream_message, limits.frame) == (None, None)
    assert (limits.messages, limits.bytes) == (None, None)


def test_unlimited_bounds_nothing() -> None:
    assert [getattr(UNLIMITED, name) for name in Limits.__slots__] == [None] * 6


def test_a_rate_closes_the_connection_unless_told_otherwise() -> None:
    assert Rate(100, 60, 20).on_exceed is Exceed.CLOSE
