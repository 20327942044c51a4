import pytest

from sidecar.policy.refuse import Refuse, RefuseWith


@pytest.mark.parametrize(
    ("way", "browser", "closes"),
    [
        (RefuseWith.HTTP, True, False),
        (RefuseWith.HTTP, False, False),
        (RefuseWith.CLOSE, True, True),
        (RefuseWith.CLOSE, False, True),
        (RefuseWith.AUTO, True, True),
        (RefuseWith.AUTO, False, False),
    ],
)
def test_who_gets_a_close_frame(way: RefuseWith, browser: bool, closes: bool) -> None:
    assert Refuse(way).closes(browser=browser) is closes


def test_a_route_refuses_by_http_at_once_unless_told_otherwise() -> None:
    assert Refuse() == Refuse(RefuseWith.HTTP, hold=0.0, codes={})
