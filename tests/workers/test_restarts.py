"""The pauses before a worker that has died is started again."""

from sidecar.workers.restarts import Restarts


def test_the_first_restart_is_at_once() -> None:
    assert Restarts().pause(0.1) == 0


def test_the_pauses_grow_while_it_dies_young() -> None:
    restarts = Restarts()
    assert [restarts.pause(1) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_long_life_is_followed_by_no_pause() -> None:
    restarts = Restarts()
    assert [restarts.pause(1) for _ in range(4)] == [0, 1, 2, 4]
    assert [restarts.pause(lived) for lived in (61, 1, 1)] == [0, 1, 2]


def test_pauses_have_an_end_however_many_there_were() -> None:
    restarts = Restarts()
    assert [restarts.pause(0) for _ in range(5000)][-1] == 30
