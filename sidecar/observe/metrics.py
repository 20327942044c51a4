"""Metrics for Prometheus: every name and every label the program exposes."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar.observe.families import Families, exposition, read
from sidecar.observe.labels import Labels
from sidecar.policy.compiled import Policy
from sidecar.wire import implementation

__all__ = ["Metrics", "Traffic", "TrafficSource"]

Traffic = Mapping[tuple[str, str], tuple[int, int]]
"""(route, direction) to (messages, payload bytes) since the start; the direction is named by the
side that sends: "client" or "upstream"."""

TrafficSource = Callable[[], Traffic]

_M = TypeVar("_M", Counter, Gauge, Histogram)

_HANDSHAKE_SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_LONG_SECONDS: Final = (1, 10, 60, 300, 900, 1800, 3600, 14_400, 43_200, 86_400, 604_800)


class _Family(Generic[_M]):
    """A metric with labels. Its own look-up of a child takes a lock, checks and converts; here it
    is one of a dict. There are as few children as the labels' closed sets have values.
    """

    __slots__ = ("_children", "_metric")

    def __init__(self, metric: _M) -> None:
        self._metric: _M = metric
        self._children: dict[tuple[str, ...], _M] = {}

    def labels(self, *values: str) -> _M:
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child

    def remove(self, *values: str) -> None:
        """Show this child no more."""
        if self._children.pop(values, None) is not None:
            self._metric.remove(*values)


class Metrics:
    """The program's metrics on a registry of their own.

    Label values come from closed sets that are read from the policy; everything else is "other",
    and "none" stands for what is not there. Seconds are floats.
    """

    def __init__(self, policy: Policy, *, version: str) -> None:
        self._labels = Labels.of(policy)
        self._registry = CollectorRegistry()
        self._traffic = _TrafficCollector(self._labels)
        self._registry.register(self._traffic)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._create_handshake_metrics()
        self._create_connection_metrics()
        self._create_key_metrics()
        self._create_revocation_metrics()
        self._create_policy_metrics()
        build = Info("ws_sidecar_build", "The running program", registry=self._registry)
        build.info({"version": version, "scanner": implementation()})
        self._providers: frozenset[str] = frozenset()
        self.follow(policy)

    def follow(self, policy: Policy) -> None:
        """Know this policy's names too from now on. Those of policies before stay known, as what
        was counted under them does; only a provider that is gone has no readiness any more.
        """
        labels = Labels.of(policy)
        self._labels = self._traffic.labels = self._labels.joined(labels)
        self._max_connections.set(policy.server.max_connections)
        for route in labels.routes:
            self._open.labels(route)
        for provider in self._providers - labels.providers:
            self._providers_ready.remove(provider)
        self._providers = labels.providers

    def policy_reload(self, ok: bool) -> None:
        """Count an attempt to take a changed policy. Where it went well, the policy is in force
        since now.
        """
        self._reloads.labels("ok" if ok else "error").inc()
        self._reload_successful.set(ok)
        if ok:
            self._policy_since.set_to_current_time()

    def handshake(
        self, route: str | None, outcome: str, reason: str | None, seconds: float
    ) -> None:
        """Count a handshake that was decided: `outcome` is "allowed" or "refused", `reason` the
        refusal's (the rule's own where it has one).
        """
        outcome = self._labels.outcome(outcome)
        self._handshakes.labels(
            self._labels.route(route), outcome, self._labels.reason(reason)
        ).inc()
        self._handshake_seconds.labels(outcome).observe(seconds)

    def shadow_denial(self, route: str, rule_label: str) -> None:
        """Count a rule that did not hold and is not enforced."""
        self._shadow_denials.labels(self._labels.route(route), self._labels.rule(rule_label)).inc()

    def token_expiry(self, route: str, seconds_left: float) -> None:
        """Record how long an admitted token is still good; less than nothing (within the
        policy's leeway) counts as nothing.
        """
        self._token_expiry.labels(self._labels.route(route)).observe(max(seconds_left, 0.0))

    def upstream_connect(self, upstream: str, seconds: float, outcome: str) -> None:
        """Record an attempt to open the upstream: `outcome` is "ok" or the failure's reason."""
        name = self._labels.upstream(upstream)
        self._connects.labels(name, self._labels.outcome(outcome)).inc()
        self._connect_seconds.labels(name).observe(seconds)

    def opened(self, route: str) -> None:
        """A connection began to relay."""
        self._open.labels(self._labels.route(route)).inc()

    def closed(self, route: str, code: int, by: str, reason: str | None, seconds: float) -> None:
        """A connection that was `opened` ended after `seconds`: with which close code, by whom
        ("client", "upstream" or "sidecar"), and why where the sidecar ended it.
        """
        name = self._labels.route(route)
        self._open.labels(name).dec()
        self._closes.labels(
            name, self._labels.code(code), self._labels.side(by), self._labels.reason(reason)
        ).inc()
        self._connection_seconds.labels(name).observe(seconds)

    def violation(self, route: str, reason: str) -> None:
        """Count a frame or message against the protocol or a limit."""
        self._violations.labels(self._labels.route(route), self._labels.reason(reason)).inc()

    def refresh(self, route: str, outcome: str) -> None:
        """Count a token that was brought in band: `outcome` is "ok" or why it was not taken."""
        self._refreshes.labels(self._labels.route(route), self._labels.outcome(outcome)).inc()

    def key_fetch(self, provider: str, outcome: str) -> None:
        """Count a fetch of a provider's keys: `outcome` is "ok" or "error"."""
        self._key_fetches.labels(
            self._labels.provider(provider), self._labels.outcome(outcome)
        ).inc()

    def provider_ready(self, provider: str, ready: bool) -> None:
        """Set whether a provider has keys."""
        self._providers_ready.labels(self._labels.provider(provider)).set(ready)

    def waiting_clients(self, count: int) -> None:
        """Set how many clients were accepted without a token, and have no decision yet."""
        self._waiting_clients.set(count)

    def revocations_active(self, count: int) -> None:
        """Set how many revocations are in force."""
        self._revocations_active.set(count)

    def revocation(self, kind: str) -> None:
        """Count a revocation that was added, by what it names its tokens by."""
        self._revocations.labels(self._labels.kind(kind)).inc()

    def logout_token(self, outcome: str) -> None:
        """Count a logout token: `outcome` is "ok", the reason of its refusal, or "refused" where it
        was not looked at.
        """
        self._logout_tokens.labels(self._labels.outcome(outcome)).inc()

    def set_traffic_source(self, source: TrafficSource) -> None:
        """Name the function that tells the traffic so far; it is called at each scrape."""
        self._traffic.source = source

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type, as `exposition` has them."""
        return exposition(self._registry, accept)

    def families(self) -> Families:
        """All samples as they are now."""
        return read(self._registry)

    def _create_handshake_metrics(self) -> None:
        self._handshakes = self._counter(
            "handshakes", "Handshakes decided", "route", "outcome", "reason"
        )
        self._handshake_seconds = self._histogram(
            "handshake_seconds", "Time to decide a handshake", _HANDSHAKE_SECONDS, "outcome"
        )
        self._shadow_denials = self._counter(
            "shadow_denials", "Rules that failed without being enforced", "route", "rule"
        )
        self._waiting_clients = Gauge(
            "ws_sidecar_waiting_clients",
            "Clients accepted without a token whose first message is not judged yet",
            registry=self._registry,
        )
        self._token_expiry = self._histogram(
            "token_expiry_seconds", "Time left to a token's expiry when admitted", _LONG_SECONDS,
            "route",
        )  # fmt: skip

    def _create_connection_metrics(self) -> None:
        self._connects = self._counter(
            "upstream_connects", "Attempts to open the upstream", "upstream", "outcome"
        )
        self._connect_seconds = self._histogram(
            "upstream_connect_seconds", "Time to open the upstream", _HANDSHAKE_SECONDS, "upstream"
        )
        self._open = self._gauge("connections_open", "Connections being relayed", "route")
        self._closes = self._counter("closes", "Connections ended", "route", "code", "by", "reason")
        self._connection_seconds = self._histogram(
            "connection_seconds", "How long connections lasted", _LONG_SECONDS, "route"
        )
        self._violations = self._counter(
            "violations", "Frames and messages against the protocol or a limit", "route", "reason"
        )

        self._refreshes = self._counter(
            "token_refreshes", "Tokens that live connections brought", "route", "outcome"
        )

    def _create_key_metrics(self) -> None:
        self._key_fetches = self._counter(
            "key_fetches", "Fetches of providers' keys", "provider", "outcome"
        )
        self._providers_ready = self._gauge(
            "provider_ready", "Whether a provider has keys", "provider"
        )

    def _create_revocation_metrics(self) -> None:
        self._revocations_active = Gauge(
            "ws_sidecar_revocations_active", "Revocations in force", registry=self._registry
        )
        self._revocations = self._counter("revocations", "Revocations added", "kind")
        self._logout_tokens = self._counter(
            "logout_tokens", "Logout tokens of OpenID Connect issuers", "outcome"
        )

    def _create_policy_metrics(self) -> None:
        self._max_connections = Gauge(
            "ws_sidecar_max_connections", "Connections the policy allows", registry=self._registry
        )
        self._reloads = self._counter(
            "policy_reloads", "Attempts to take a changed policy", "outcome"
        )
        self._reloads.labels("ok")
        self._reloads.labels("error")
        self._reload_successful = Gauge(
            "ws_sidecar_policy_last_reload_successful",
            "Whether the last attempt to take a changed policy went well",
            registry=self._registry,
        )
        self._reload_successful.set(True)
        self._policy_since = Gauge(
            "ws_sidecar_policy_last_reload_success_timestamp_seconds",
            "Since when the policy in force is so",
            registry=self._registry,
        )
        self._policy_since.set_to_current_time()

    def _counter(self, name: str, text: str, *labels: str) -> _Family[Counter]:
        return _Family(Counter(f"ws_sidecar_{name}", text, labels, registry=self._registry))

    def _gauge(self, name: str, text: str, *labels: str) -> _Family[Gauge]:
        return _Family(Gauge(f"ws_sidecar_{name}", text, labels, registry=self._registry))

    def _histogram(
        self, name: str, text: str, buckets: Iterable[float], *labels: str
    ) -> _Family[Histogram]:
        return _Family(
            Histogram(
                f"ws_sidecar_{name}", text, labels, buckets=tuple(buckets), registry=self._registry
            )
        )


class _TrafficCollector(Collector):
    """Messages and bytes, asked for at the scrape: the relay counts for itself and calls nobody."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.source: TrafficSource = dict

    def describe(self) -> Iterable[Metric]:
        """The families without samples, so that registering does not call the source."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """The families with the traffic so far; what shares its labels is summed up."""
        totals: dict[tuple[str, str], tuple[int, int]] = {}
        for (route, direction), (messages, size) in self.source().items():
            key = (self.labels.route(route), self.labels.side(direction))
            before = totals.get(key, (0, 0))
            totals[key] = (before[0] + messages, before[1] + size)
        families = self._families()
        for key, counts in totals.items():
            for family, count in zip(families, counts, strict=True):
                family.add_metric(key, count)
        return families

    def _families(self) -> tuple[CounterMetricFamily, CounterMetricFamily]:
        labels = ("route", "direction")
        return (
            CounterMetricFamily("ws_sidecar_messages", "Messages relayed", labels=labels),
            CounterMetricFamily("ws_sidecar_payload_bytes", "Payload bytes relayed", labels=labels),
        )
