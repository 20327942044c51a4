from dataclasses import replace
from typing import Any

import pytest

from sidecar.policy.limits import UNLIMITED, Exceed, Limits, Rate
from sidecar.proxy.scanners import Scanners, client_scanner, upstream_scanner
from sidecar.wire import scanner as scan
from tests.support.frames import BINARY, PING, TEXT, frame

pytestmark = pytest.mark.usefixtures("implementation")

ONE = frame(TEXT, b"1")


def test_without_limits_everything_may_pass() -> None:
    data = frame(BINARY, bytes(2**20)) + frame(PING) * 100 + ONE * 1000
    assert client_scanner(UNLIMITED).feed(data, 0.0) == data


def test_each_side_has_its_own_message_size() -> None:
    limits = Limits(client_message=3, upstream_message=5)
    for size, client, upstream in ((3, scan.PASS, scan.PASS), (5, scan.TOO_BIG, scan.PASS)):
        one, other = client_scanner(limits), upstream_scanner(limits)
        one.feed(frame(TEXT, b"x" * size), 0.0)
        other.feed(frame(TEXT, b"x" * size, masked=False), 0.0)
        assert (one.verdict, other.verdict) == (client, upstream)


def test_the_frame_size_holds_for_both() -> None:
    limits = Limits(frame=3)
    one, other = client_scanner(limits), upstream_scanner(limits)
    one.feed(frame(TEXT, b"four"), 0.0)
    other.feed(frame(TEXT, b"four", masked=False), 0.0)
    assert (one.verdict, other.verdict) == (scan.TOO_BIG, scan.TOO_BIG)


@pytest.mark.parametrize(
    ("exceed", "verdict", "passed"),
    [
        (Exceed.CLOSE, scan.RATE, ONE),
        (Exceed.DROP, scan.PASS, ONE),
        (Exceed.DELAY, scan.WAIT, ONE),
    ],
)
@pytest.mark.parametrize("field", ["messages", "bytes"])
def test_a_rate_does_what_the_policy_says(
    exceed: Exceed, verdict: int, passed: bytes, field: str
) -> None:
    rate = Rate(1, 60, 1, exceed)
    limits = Limits(messages=rate) if field == "messages" else Limits(bytes=rate)
    made = client_scanner(limits)
    assert made.feed(ONE + ONE, 0.0) == passed
    assert made.verdict == verdict


def test_a_rate_refills_with_time() -> None:
    made = client_scanner(Limits(messages=Rate(2, 60, 1)))
    assert made.feed(ONE, 0.0) == ONE
    assert made.feed(ONE, 30.0) == ONE
    assert made.feed(ONE, 31.0) == b""


def test_pings_have_a_rate_unless_told_otherwise() -> None:
    made = client_scanner(Limits())
    assert made.feed(frame(PING) * 11, 0.0) == frame(PING) * 10
    assert made.verdict == scan.RATE


def test_an_upstream_has_no_rates() -> None:
    rate = Rate(1, 60, 1)
    made = upstream_scanner(Limits(messages=rate, bytes=rate, control_frames=rate))
    data = (frame(PING, masked=False) + frame(TEXT, b"x", masked=False)) * 20
    assert made.feed(data, 0.0) == data


@pytest.mark.parametrize("upstream", [False, True])
def test_live_scanners_go_by_other_sizes(upstream: bool) -> None:
    made = Scanners(Limits(client_message=9, upstream_message=9))
    scanner = made.upstream if upstream else made.client
    message = frame(TEXT, b"12345", masked=not upstream)
    assert scanner.feed(message, 0.0) == message
    assert not made.adopt(Limits(client_message=5, upstream_message=5))
    assert scanner.feed(message, 0.0) == message
    assert not made.adopt(Limits(client_message=4, upstream_message=4))
    assert scanner.feed(message, 0.0) == b""
    assert scanner.verdict == scan.TOO_BIG


@pytest.mark.parametrize("field", ["messages", "bytes", "control_frames"])
def test_a_rate_that_stays_is_as_used_up_as_before_and_another_one_is_not(field: str) -> None:
    one = frame(PING) if field == "control_frames" else ONE

    def limits(rate: Rate, size: int) -> Limits:
        fields: dict[str, Any] = {"frame": size, field: rate}
        return replace(UNLIMITED, **fields)

    made = Scanners(limits(Rate(2, 60, 2), 100))
    assert made.client.feed(one, 0.0) == one
    assert not made.adopt(limits(Rate(2, 60, 2), 101))
    assert made.client.feed(one, 0.0) == one
    assert made.adopt(limits(Rate(2, 60, 3), 101))
    assert made.client.feed(one * 3, 0.0) == one * 3
    assert made.client.feed(one, 0.0) == b""
    assert made.client.verdict == scan.RATE
