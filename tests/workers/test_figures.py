"""The metrics of all processes as one program's."""

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.config.source import Loaded
from sidecar.observe.families import Families
from sidecar.observe.metrics import Metrics
from sidecar.policy.compiled import Policy
from sidecar.workers.figures import Figures


@pytest.fixture
def policy(load: Callable[..., Loaded]) -> Policy:
    return load().policy


@pytest.fixture
def figures(policy: Policy) -> Figures:
    return Figures(policy, 2)


def shown(figures: Figures, name: str) -> float:
    """The sum of a metric's samples, whatever their labels."""
    body, _ = figures.render("")
    return sum(
        sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == name
    )


def worked(policy: Policy, handshakes: int, connections: int) -> Families:
    """What a worker has counted."""
    metrics = Metrics(policy, version="1")
    for _ in range(handshakes):
        metrics.handshake("main", "allowed", None, 0.5)
    for _ in range(connections):
        metrics.opened("main")
    return metrics.families()


def test_the_workers_figures_are_summed(figures: Figures, policy: Policy) -> None:
    figures.note("one", worked(policy, 3, 2))
    figures.note("two", worked(policy, 4, 1))
    assert shown(figures, "ws_sidecar_handshakes_total") == 7
    assert shown(figures, "ws_sidecar_handshake_seconds_sum") == 3.5
    assert shown(figures, "ws_sidecar_connections_open") == 3


def test_the_live_connections_of_all_workers_are_known(figures: Figures, policy: Policy) -> None:
    assert figures.connections == 0
    figures.note("one", worked(policy, 3, 2))
    figures.note("two", worked(policy, 4, 1))
    assert figures.connections == 3


def test_newer_figures_take_the_place_of_older_ones(figures: Figures, policy: Policy) -> None:
    figures.note("one", worked(policy, 3, 2))
    figures.note("one", worked(policy, 5, 1))
    assert shown(figures, "ws_sidecar_handshakes_total") == 5
    assert shown(figures, "ws_sidecar_connections_open") == 1


def test_what_ended_workers_have_counted_stays(figures: Figures, policy: Policy) -> None:
    for number in range(3):
        figures.note(number, worked(policy, 3, 2))
        figures.retire(number)
    figures.note("alive", worked(policy, 1, 1))
    assert shown(figures, "ws_sidecar_handshakes_total") == 10
    assert shown(figures, "ws_sidecar_connections_open") == 1


def test_a_worker_that_never_told_anything_leaves_nothing(figures: Figures) -> None:
    before = shown(figures, "ws_sidecar_handshakes_total")
    figures.retire("never")
    assert shown(figures, "ws_sidecar_handshakes_total") == before == 0


def test_workers_restarts_and_silences_are_counted(figures: Figures) -> None:
    figures.up(1)
    assert shown(figures, "ws_sidecar_workers") == 2 + 1
    figures.restarted()
    figures.silent()
    figures.silent()
    assert shown(figures, "ws_sidecar_worker_restarts_total") == 1
    assert shown(figures, "ws_sidecar_worker_silences_total") == 2


def test_the_limit_is_the_whole_policys(figures: Figures, policy: Policy) -> None:
    figures.note("one", worked(policy, 0, 0))
    assert shown(figures, "ws_sidecar_max_connections") == policy.server.max_connections
