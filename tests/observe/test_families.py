"""Several processes' samples as one program's."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from sidecar.observe.families import GAUGES, Families, exposition, lasting, merge, read
from sidecar.observe.metrics import Metrics
from sidecar.policy.compiled import Policy

Events = Sequence[tuple[str, float]]

EVENTS = st.lists(
    st.tuples(st.sampled_from(["chat", "feed", "none"]), st.integers(0, 100).map(float)),
    max_size=20,
)


def counted(*processes: Events) -> Families:
    """What a process has that has seen all these events."""
    registry = CollectorRegistry()
    counter = Counter("events", "Events", ["route"], registry=registry)
    histogram = Histogram("seconds", "Seconds", ["route"], buckets=(1, 10, 50), registry=registry)
    gauge = Gauge("ws_sidecar_connections_open", "Open", ["route"], registry=registry)
    for events in processes:
        for route, seconds in events:
            counter.labels(route).inc()
            histogram.labels(route).observe(seconds)
            gauge.labels(route).inc(seconds)
    return read(registry)


def values(families: Families) -> dict[Any, float]:
    """All samples but the times of creation."""
    return {
        key: value
        for family in families.by_name.values()
        for key, value in family.samples.items()
        if not key[0].endswith("_created")
    }


def gauge(name: str, *numbers: float) -> float:
    """What becomes of this gauge of several processes."""
    parts = []
    for number in numbers:
        registry = CollectorRegistry()
        Gauge(name, "A gauge", registry=registry).set(number)
        parts.append(read(registry))
    (value,) = values(merge(parts)).values()
    return value


@given(st.lists(EVENTS, min_size=1, max_size=4))
def test_the_sum_of_processes_is_one_process_that_did_it_all(processes: list[Events]) -> None:
    apart = merge([counted(events) for events in processes])
    assert values(apart) == values(counted(*processes))


@given(st.lists(EVENTS, min_size=2, max_size=4))
def test_sums_of_sums_are_sums(processes: list[Events]) -> None:
    parts = [counted(events) for events in processes]
    assert merge([merge(parts[:-1]), parts[-1]]) == merge(parts)


@given(EVENTS)
def test_families_come_through_json_as_they_were(events: Events) -> None:
    families = counted(events)
    assert Families.from_json(json.loads(json.dumps(families.to_json()))) == families


@pytest.mark.parametrize("number", [float("inf"), 0.1 + 0.2, 1e300])
def test_a_number_comes_through_json_exactly(number: float) -> None:
    registry = CollectorRegistry()
    Gauge("number", "A number", registry=registry).set(number)
    (value,) = values(Families.from_json(json.loads(json.dumps(read(registry).to_json())))).values()
    assert value == number


@pytest.mark.parametrize(
    "document",
    [
        *(None, 5, "text", [1], [[]], {"a": 1}),
        [["a", "b", "counter", [["a", [], None]]]],
        [["a", "b", "counter", [["a", [], 10**400]]]],
        [["a", "b", "nonsense", [["a", [], 1]]]],
        [["a", "b", ["counter"], [["a", [], 1]]]],
    ],
)
def test_what_is_not_metrics_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match="these are no metrics"):
        Families.from_json(document)


def test_merging_leaves_the_parts_alone() -> None:
    parts = [counted([("chat", 1.0)]), counted([("chat", 2.0)])]
    before = [values(part) for part in parts]
    merge(parts)
    assert [values(part) for part in parts] == before


def test_the_first_creation_counts() -> None:
    parts = [counted([("chat", 1.0)]) for _ in range(2)]
    key = ("events_created", (("route", "chat"),))
    for part, created in zip(parts, (7.0, 5.0), strict=True):
        part.by_name["events"].samples[key] = created
    assert merge(parts).by_name["events"].samples[key] == 5.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ws_sidecar_connections_open", 9),
        ("ws_sidecar_provider_ready", 2),
        ("ws_sidecar_max_connections", 4),
        ("ws_sidecar_revocations_active", 4),
        ("ws_sidecar_waiting_clients", 9),
        ("process_open_fds", 9),
        ("process_start_time_seconds", 2),
        ("unknown", 4),
    ],
)
def test_a_gauge_is_joined_by_what_it_means(name: str, expected: float) -> None:
    assert gauge(name, 4, 2, 3) == expected


def test_every_gauge_of_the_program_has_its_rule(policy: Policy) -> None:
    families = Metrics(policy, version="1").families().by_name.values()
    assert {one.name for one in families if one.kind == "gauge"} <= GAUGES.keys()
    assert {one.kind for one in families} <= {"gauge", "counter", "histogram", "info"}


def test_only_what_was_counted_outlasts_a_process() -> None:
    names = lasting(counted([("chat", 1.0)])).by_name
    assert set(names) == {"events", "seconds"}


def test_the_exposition_of_one_process_is_the_librarys(policy: Policy) -> None:
    metrics = Metrics(policy, version="1")
    use(metrics)
    for accept in ("", "application/openmetrics-text"):
        shown = exposition(metrics.families(), accept)[0].decode()
        assert stable(shown) == stable(metrics.render(accept)[0].decode())


def test_merged_families_are_good_openmetrics(policy: Policy) -> None:
    parts = [Metrics(policy, version="1") for _ in range(2)]
    for metrics in parts:
        use(metrics)
    merged = merge([metrics.families() for metrics in parts])
    body, _ = exposition(merged, "application/openmetrics-text")
    families = {one.name: one for one in parse(body.decode())}
    (handshakes,) = (
        sample.value
        for sample in families["ws_sidecar_handshakes"].samples
        if sample.name.endswith("_total")
    )
    assert handshakes == 2


parse: Callable[[str], Any] = text_string_to_metric_families


def use(metrics: Metrics) -> None:
    metrics.handshake("chat", "allowed", None, 0.1)
    metrics.opened("chat")
    metrics.provider_ready("app", True)
    metrics.set_traffic_source(lambda: {("chat", "client"): (1, 10)})


def stable(text: str) -> list[str]:
    """The lines but for what changes from one moment to the next."""
    return [line for line in text.splitlines() if "process_" not in line and "_gc_" not in line]
