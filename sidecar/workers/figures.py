"""The metrics of all processes as one program's."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from sidecar import __version__
from sidecar.observe.families import Families, exposition, lasting, merge, read
from sidecar.observe.metrics import Metrics
from sidecar.policy.compiled import Policy

__all__ = ["Figures"]

_PREFIX: Final = "ws_sidecar_worker"


class Figures:
    """What the parent knows: its own figures, the last ones of each worker, and what those that
    have ended have counted. A worker that does not answer is shown with its last figures, so that
    no counter falls. `own` are the parent's, of what it does itself.
    """

    def __init__(self, policy: Policy, workers: int) -> None:
        self.own = Metrics(policy, version=__version__)
        self._registry = CollectorRegistry()
        state = Gauge(
            f"{_PREFIX}s", "Worker processes, wanted and up", ["state"], registry=self._registry
        )
        state.labels("wanted").set(workers)
        self._up = state.labels("up")
        self._restarts = Counter(
            f"{_PREFIX}_restarts", "Workers started after another's end", registry=self._registry
        )
        self._silent = Counter(
            f"{_PREFIX}_silences",
            "Scrapes that show a worker's figures of before, as it did not answer",
            registry=self._registry,
        )
        self._past = Families()
        self._last: dict[object, Families] = {}

    def up(self, number: int) -> None:
        """So many workers are up."""
        self._up.set(number)

    def restarted(self) -> None:
        """Count a worker that took another's place."""
        self._restarts.inc()

    def silent(self) -> None:
        """Count a worker that a scrape has not got an answer from."""
        self._silent.inc()

    def note(self, worker: object, families: Families) -> None:
        """Keep a worker's figures."""
        self._last[worker] = families

    def retire(self, worker: object) -> None:
        """A worker has ended: what it has counted stays."""
        last = self._last.pop(worker, None)
        if last is not None:
            self._past = merge([self._past, lasting(last)])

    @property
    def connections(self) -> int:
        """How many live connections the workers had when they last told."""
        open_ones = merge(list(self._last.values())).by_name.get("ws_sidecar_connections_open")
        return int(sum(open_ones.samples.values())) if open_ones else 0

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, for a request's Accept field."""
        own = [self.own.families(), read(self._registry)]
        return exposition(merge([*own, self._past, *self._last.values()]), accept)
