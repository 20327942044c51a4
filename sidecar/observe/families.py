"""Samples of one process that another one may show: read, sent, added up, exposed.

Where several processes are one program, counters and histograms are summed exactly, and gauges
are joined by what they mean. There is no label for the process.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import METRIC_TYPES
from prometheus_client.registry import Collector

__all__ = ["GAUGES", "Families", "Family", "exposition", "lasting", "merge", "read"]

_OPENMETRICS: Final = "application/openmetrics-text"

_Key = tuple[str, tuple[tuple[str, str], ...]]
_Join = Callable[[float, float], float]


def _add(first: float, second: float) -> float:
    return first + second


def _keep(first: float, _second: float) -> float:
    return first


GAUGES: Final[Mapping[str, _Join]] = {
    "ws_sidecar_connections_open": _add,
    "ws_sidecar_max_connections": _keep,  # the first one's: the others have a share of it
    "ws_sidecar_policy_last_reload_success_timestamp_seconds": _keep,  # the parent's: it reads it
    "ws_sidecar_policy_last_reload_successful": _keep,
    "ws_sidecar_provider_ready": min,
    "ws_sidecar_revocations_active": _keep,  # the parent's: each worker has a copy
    "ws_sidecar_waiting_clients": _add,
    "ws_sidecar_workers": _keep,
    "process_max_fds": _add,
    "process_open_fds": _add,
    "process_resident_memory_bytes": _add,
    "process_start_time_seconds": min,
    "process_virtual_memory_bytes": _add,
    "python_info": _keep,
}
"""How two processes' values of a gauge become one."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with its samples by name and labels, in their order. `kind` is Prometheus' type."""

    name: str
    documentation: str
    kind: str
    samples: dict[_Key, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Families(Collector):
    """Metrics by name, in their order."""

    by_name: dict[str, Family] = field(default_factory=dict)

    def collect(self) -> Iterable[Metric]:
        """The metrics as the library has them."""
        for family in self.by_name.values():
            metric = Metric(family.name, family.documentation, family.kind)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric

    def to_json(self) -> list[Any]:
        """What `from_json` takes."""
        return [
            [
                family.name,
                family.documentation,
                family.kind,
                [[name, labels, value] for (name, labels), value in family.samples.items()],
            ]
            for family in self.by_name.values()
        ]

    @classmethod
    def from_json(cls, document: Any) -> "Families":
        """Raises ValueError for what `to_json` cannot have made."""
        try:
            families = [
                Family(str(name), str(text), _kind(kind), dict(map(_sample, samples)))
                for name, text, kind, samples in document
            ]
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError("these are no metrics") from error
        return cls({family.name: family for family in families})


def _kind(kind: Any) -> str:
    if kind not in METRIC_TYPES:
        raise ValueError("not a kind of metric")
    return str(kind)


def _sample(sample: Any) -> tuple[_Key, float]:
    name, labels, value = sample
    return (str(name), tuple((str(label), str(text)) for label, text in labels)), float(value)


def read(collector: Collector) -> Families:
    """All samples of a registry as they are now."""
    families = Families()
    for metric in collector.collect():
        samples = {
            (sample.name, tuple(sample.labels.items())): float(sample.value)
            for sample in metric.samples
        }
        families.by_name[metric.name] = Family(
            metric.name, metric.documentation, metric.type, samples
        )
    return families


def merge(parts: Sequence[Families]) -> Families:
    """One program's families, of its processes': counters and histograms summed, gauges joined as
    `GAUGES` says, information and what has no rule as the first has it.
    """
    merged = Families()
    for part in parts:
        for family in part.by_name.values():
            empty = Family(family.name, family.documentation, family.kind)
            _join(merged.by_name.setdefault(family.name, empty), family)
    return merged


def _join(into: Family, family: Family) -> None:
    for key, value in family.samples.items():
        before = into.samples.get(key)
        into.samples[key] = value if before is None else _rule(family, key[0])(before, value)


def _rule(family: Family, sample: str) -> _Join:
    if sample.endswith("_created"):
        return min
    if family.kind in ("counter", "histogram"):
        return _add
    return GAUGES.get(family.name, _keep)


def lasting(families: Families) -> Families:
    """What stays of a process that has ended: its counters and histograms."""
    return Families(
        {
            family.name: family
            for family in families.by_name.values()
            if family.kind in ("counter", "histogram")
        }
    )


def exposition(collector: Collector, accept: str) -> tuple[bytes, str]:
    """The exposition and its content type: OpenMetrics 1.0 where `accept` (the request's Accept
    field) names it, else the text format 0.0.4.
    """
    kinds = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    # Never the client's own text: its version parameter would be echoed in the content type.
    encode, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in kinds else "")
    return encode(collector), content_type
