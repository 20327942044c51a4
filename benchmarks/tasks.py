"""The measurements, each of one peer in one round: figures' keys and values come out."""

import resource
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from benchmarks import load
from benchmarks.figures import HANDSHAKES, SHAPES, Handshake, Shape
from benchmarks.measure import memory
from benchmarks.peers import ORIGIN, Peer, Running, Site

__all__ = ["DIRECT", "Extent", "Measure", "Task", "handshake", "idle_levels", "roundtrip", "tasks"]

DIRECT: Final = "direct"
"""The name under which the load without a proxy stands in the results."""

_RATE: Final = "10000"
_WORKERS: Final = "32"
_SETTLE: Final = 0.3
_SPARE_FILES: Final = 500


@dataclass(frozen=True)
class Extent:
    """How long a load is measured and warmed up, in seconds, and how many connections idle.

    `tokens` is how many different ones there are of an algorithm: more than any cache of verified
    tokens holds, for after the last comes the first again.
    """

    seconds: float
    warmup: float
    idle: tuple[int, int, int]
    tokens: int

    @property
    def flags(self) -> list[str]:
        """For the load generator."""
        return ["--seconds", str(self.seconds), "--warmup", str(self.warmup)]


class Measure(Protocol):
    """A load on one peer, or on none."""

    def __call__(self, site: Site, extent: Extent, running: Running | None) -> Mapping[str, float]:
        """The figures by key. Raises LoadError."""
        ...


@dataclass(frozen=True)
class Task:
    """A measurement. `variant` is what a peer must be able to check; None suits all.

    With `fresh` the peer is started for it alone; with `direct` it is also run without a proxy.
    """

    name: str
    measure: Measure
    variant: str | None = None
    fresh: bool = False
    direct: bool = False

    def suits(self, peer: Peer) -> bool:
        """Whether the peer can do it."""
        return self.variant is None or self.variant in peer.variants


def tasks() -> Iterator[Task]:
    """All of them, in order."""
    for shape in SHAPES:
        yield Task(shape.name, partial(roundtrip, shape))
    yield Task("rate", _rate, direct=True)
    for kind in HANDSHAKES:
        yield Task(kind.name, partial(handshake, kind), kind.variant)
    yield Task("memory", _memory, fresh=True)


def idle_levels(wanted: tuple[int, int, int]) -> tuple[int, int, int]:
    """So many idle connections as the limit of open files lets a proxy have, both legs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = (hard - _SPARE_FILES) // 2
    if most >= wanted[2]:
        return wanted
    raise SystemExit(
        f"{wanted[2]} idle connections need {2 * wanted[2] + _SPARE_FILES} open files, "
        f"the limit is {hard}: raise it (ulimit -n), or use --quick"
    )


def _target(site: Site, running: Running | None) -> list[str]:
    if running is None:
        return ["--port", str(site.upstream), "--header", f"Origin: {ORIGIN}"]
    return running.target(running.peer.strictest)


def roundtrip(
    shape: Shape, site: Site, extent: Extent, running: Running | None
) -> Mapping[str, float]:
    """Messages in a closed loop."""
    flags = [
        *("--connections", str(shape.connections)),
        *("--payload", shape.payload),
        *("--in-flight", str(shape.in_flight)),
        *(["--json"] if shape.chat else []),
    ]
    pids = running.pids if running else ()
    result = load.run(
        site.build, "roundtrip", [*flags, *extent.flags, *_target(site, running)], pids
    )
    return {
        f"{shape.name}.cpu_us": result.cpu_us,
        f"{shape.name}.per_second": result.per_second,
        f"{shape.name}.p50_us": result.p50,
        f"{shape.name}.p99_us": result.p99,
        f"{shape.name}.busy": 100 * result.cpu / result.seconds,
    }


def _rate(site: Site, extent: Extent, running: Running | None) -> Mapping[str, float]:
    pids = running.pids if running else ()
    flags = ["--rate", _RATE, *extent.flags, *_target(site, running)]
    result = load.run(site.build, "rate", flags, pids)
    found = {"rate.p50_us": result.p50, "rate.p99_us": result.p99}
    return found | ({"rate.cpu_us": result.cpu_us} if running else {})


def handshake(
    kind: Handshake, site: Site, extent: Extent, running: Running | None
) -> Mapping[str, float]:
    """Handshakes, again and again; `per_cpu` is missing where the proxy took no measurable time."""
    if running is None:
        return {}
    target = running.target(kind.variant, extent.tokens if kind.different else 0)
    flags = ["--connections", _WORKERS, *extent.flags, *target]
    result = load.run(site.build, "handshake", flags, running.pids)
    if kind.different:
        running.presented[kind.variant] += result.begun
    key = kind.name
    cost = {f"{key}.per_cpu": result.count / result.cpu} if result.cpu else {}
    return cost | {
        f"{key}.per_second": result.per_second,
        f"{key}.p50_us": result.p50,
        f"{key}.p99_us": result.p99,
    }


def _memory(site: Site, extent: Extent, running: Running | None) -> Mapping[str, float]:
    if running is None:
        return {}
    few, half, most = extent.idle
    held = 0
    sizes: dict[int, int] = {0: memory(running.pids).pss}
    with ExitStack() as stack:
        for level in (few, half, most):
            stack.enter_context(load.holding(site.build, level - held, _target(site, running)))
            held = level
            time.sleep(_SETTLE)
            sizes[level] = memory(running.pids).pss

    def slope(low: int, high: int) -> float:
        return (sizes[high] - sizes[low]) / (high - low)

    lower, upper = slope(few, half), slope(half, most)
    growth = {"memory.growth": upper / lower} if lower > 0 else {}
    return growth | {
        "memory.start_ms": running.ready_seconds * 1000,
        "memory.rest_bytes": sizes[0],
        "memory.each_first": slope(0, few),
        "memory.each_all": slope(0, most),
        "memory.slope": slope(few, most),
    }
