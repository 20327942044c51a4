import time
from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client import Counter
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sidecar.observe.metrics import Metrics
from sidecar.policy.compiled import Policy

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def metrics(policy: Policy) -> Metrics:
    return Metrics(policy, version="1.2.3")


def scrape(metrics: Metrics) -> Samples:
    body, _ = metrics.render()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return scrape(metrics)[f"ws_sidecar_{name}", frozenset(labels.items())]


def use_everything(metrics: Metrics, junk: str, code: int) -> None:
    metrics.handshake(junk, junk, junk, 0.1)
    metrics.shadow_denial(junk, junk)
    metrics.token_expiry(junk, 10)
    metrics.upstream_connect(junk, 0.1, junk)
    metrics.opened(junk)
    metrics.closed(junk, code, junk, junk, 1)
    metrics.violation(junk, junk)
    metrics.key_fetch(junk, junk)
    metrics.provider_ready(junk, True)
    metrics.revocation(junk)
    metrics.logout_token(junk)
    metrics.policy_reload(True)
    metrics.set_traffic_source(lambda: {(junk, junk): (1, 1), (junk + "2", junk): (1, 1)})


def test_a_handshake_is_counted_by_route_outcome_and_reason(metrics: Metrics) -> None:
    metrics.handshake("chat", "allowed", None, 0.002)
    metrics.handshake("chat", "refused", "not_a_member", 0.002)
    metrics.handshake(None, "refused", "no_route", 0.002)
    name = "handshakes_total"
    assert value(metrics, name, route="chat", outcome="allowed", reason="none") == 1
    assert value(metrics, name, route="chat", outcome="refused", reason="not_a_member") == 1
    assert value(metrics, name, route="none", outcome="refused", reason="no_route") == 1
    assert value(metrics, "handshake_seconds_count", outcome="refused") == 2
    assert value(metrics, "handshake_seconds_sum", outcome="allowed") == 0.002


def test_a_shadow_denial_is_counted_by_rule(metrics: Metrics) -> None:
    metrics.shadow_denial("chat", "verified")
    assert value(metrics, "shadow_denials_total", route="chat", rule="verified") == 1


def test_a_token_within_the_leeway_expires_now(metrics: Metrics) -> None:
    metrics.token_expiry("chat", 90)
    metrics.token_expiry("chat", -20)
    assert value(metrics, "token_expiry_seconds_sum", route="chat") == 90
    assert value(metrics, "token_expiry_seconds_bucket", route="chat", le="60.0") == 1
    assert value(metrics, "token_expiry_seconds_bucket", route="chat", le="300.0") == 2


def test_a_dial_is_counted_by_outcome(metrics: Metrics) -> None:
    metrics.upstream_connect("backend", 0.01, "ok")
    metrics.upstream_connect("backend", 5, "upstream_timeout")
    name = "upstream_connects_total"
    assert value(metrics, name, upstream="backend", outcome="ok") == 1
    assert value(metrics, name, upstream="backend", outcome="upstream_timeout") == 1
    assert value(metrics, "upstream_connect_seconds_count", upstream="backend") == 2


def test_open_connections_go_up_and_down(metrics: Metrics) -> None:
    assert value(metrics, "connections_open", route="chat") == 0
    metrics.opened("chat")
    metrics.opened("chat")
    metrics.closed("chat", 1000, "client", None, 30)
    assert value(metrics, "connections_open", route="chat") == 1


def test_a_close_is_counted_by_code_side_and_reason(metrics: Metrics) -> None:
    metrics.closed("chat", 1009, "sidecar", "message_too_big", 30)
    metrics.closed("chat", 4321, "upstream", None, 30)
    name = "closes_total"
    closed = value(metrics, name, route="chat", code="1009", by="sidecar", reason="message_too_big")
    assert closed == 1
    assert value(metrics, name, route="chat", code="4xxx", by="upstream", reason="none") == 1
    assert value(metrics, "connection_seconds_sum", route="chat") == 60


def test_a_violation_is_counted_by_reason(metrics: Metrics) -> None:
    metrics.violation("chat", "message_rate")
    assert value(metrics, "violations_total", route="chat", reason="message_rate") == 1


def test_providers_keys_are_counted_and_shown(metrics: Metrics) -> None:
    metrics.key_fetch("app", "error")
    metrics.provider_ready("app", False)
    assert value(metrics, "key_fetches_total", provider="app", outcome="error") == 1
    assert value(metrics, "provider_ready", provider="app") == 0
    metrics.provider_ready("app", True)
    assert value(metrics, "provider_ready", provider="app") == 1


def test_revocations_are_counted_and_shown(metrics: Metrics) -> None:
    metrics.revocation("sid")
    metrics.revocation("sid")
    metrics.revocations_active(7)
    assert value(metrics, "revocations_total", kind="sid") == 2
    assert value(metrics, "revocations_active") == 7


def test_clients_that_wait_for_a_decision_are_shown(metrics: Metrics) -> None:
    assert value(metrics, "waiting_clients") == 0
    metrics.waiting_clients(3)
    assert value(metrics, "waiting_clients") == 3


def test_logout_tokens_are_counted_by_outcome(metrics: Metrics) -> None:
    for outcome in ("ok", "token_invalid", "refused"):
        metrics.logout_token(outcome)
        assert value(metrics, "logout_tokens_total", outcome=outcome) == 1


def test_traffic_is_asked_for_at_each_scrape(metrics: Metrics) -> None:
    traffic = {("chat", "client"): (1, 10), ("chat", "upstream"): (2, 20)}
    metrics.set_traffic_source(lambda: traffic)
    assert value(metrics, "messages_total", route="chat", direction="client") == 1
    traffic["chat", "client"] = (3, 30)
    assert value(metrics, "messages_total", route="chat", direction="client") == 3
    assert value(metrics, "payload_bytes_total", route="chat", direction="client") == 30
    assert value(metrics, "payload_bytes_total", route="chat", direction="upstream") == 20


def test_unknown_routes_share_one_sum_of_traffic(metrics: Metrics) -> None:
    metrics.set_traffic_source(lambda: {("a", "client"): (1, 10), ("b", "client"): (2, 20)})
    assert value(metrics, "messages_total", route="other", direction="client") == 3
    assert value(metrics, "payload_bytes_total", route="other", direction="client") == 30


def test_the_program_and_its_limit_are_shown(metrics: Metrics) -> None:
    assert value(metrics, "build_info", version="1.2.3", scanner="python") == 1
    assert value(metrics, "max_connections") == 7


def test_standard_process_metrics_are_there(metrics: Metrics) -> None:
    names = {name for name, _ in scrape(metrics)}
    assert {"process_open_fds", "python_info", "python_gc_collections_total"} <= names


def test_two_programs_in_a_process_do_not_share_metrics(policy: Policy) -> None:
    first, second = Metrics(policy, version="1"), Metrics(policy, version="2")
    first.opened("chat")
    assert value(second, "connections_open", route="chat") == 0


def test_the_text_format_is_the_default(metrics: Metrics) -> None:
    _, content_type = metrics.render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2",
        "text/html, Application/OpenMetrics-Text ; version=x",
    ],
)
def test_openmetrics_comes_when_asked_for(metrics: Metrics, accept: str) -> None:
    use_everything(metrics, "chat", 1000)
    body, content_type = metrics.render(accept)
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert {"ws_sidecar_handshakes", "ws_sidecar_messages", "ws_sidecar_build"} <= names


def test_nothing_of_the_accept_field_comes_back(metrics: Metrics) -> None:
    _, content_type = metrics.render("application/openmetrics-text;version=9;escaping=evil")
    assert "9" not in content_type
    assert "evil" not in content_type


def test_random_values_make_no_new_time_series(metrics: Metrics) -> None:
    use_everything(metrics, "warm-up", 4000)
    before = scrape(metrics).keys()
    for number in range(500):
        use_everything(metrics, f'/path-{number}"\n', 4000 if number % 2 else 4999)
    assert scrape(metrics).keys() == before
    assert not any("path" in text for _, labels in before for _, text in labels)


def test_every_label_name_is_known(metrics: Metrics) -> None:
    use_everything(metrics, "chat", 1000)
    names = {
        label
        for name, labels in scrape(metrics)
        for label, _ in labels
        if name.startswith("ws_sidecar_")
    }
    assert names == {
        "route", "reason", "direction", "code", "provider", "upstream", "by", "outcome", "rule",
        "kind", "version", "scanner", "le",
    }  # fmt: skip


def test_every_time_series_is_asked_for_once(
    metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    labels = Counter.labels

    def counted(self: Counter, *values: str) -> Counter:
        asked.append(values)
        return labels(self, *values)

    monkeypatch.setattr(Counter, "labels", counted)
    for outcome, reason in (("allowed", None), ("refused", "not_a_member")) * 3:
        metrics.handshake("chat", outcome, reason, 0.1)
    assert asked == [("chat", "allowed", "none"), ("chat", "refused", "not_a_member")]
    name = "handshakes_total"
    assert value(metrics, name, route="chat", outcome="allowed", reason="none") == 3


def test_names_of_another_policy_come_beside_those_of_before(
    policy: Policy, metrics: Metrics
) -> None:
    metrics.set_traffic_source(lambda: {("chat", "client"): (2, 3), ("new", "client"): (4, 5)})
    metrics.opened("chat")
    metrics.provider_ready(policy.tokens.providers[0].name, True)
    route = replace(policy.routes[0], name="new")
    provider = replace(policy.tokens.providers[0], name="other")
    server = replace(policy.server, max_connections=7)
    tokens = replace(policy.tokens, providers=(provider,))
    metrics.follow(replace(policy, routes=(route,), tokens=tokens, server=server))
    metrics.opened("new")
    metrics.closed("chat", 4404, "sidecar", "no_route", 1.0)
    ended = {"route": "chat", "code": "4404", "by": "sidecar", "reason": "no_route"}
    assert value(metrics, "connections_open", route="chat") == 0
    assert value(metrics, "connections_open", route="new") == 1
    assert value(metrics, "closes_total", **ended) == 1
    assert value(metrics, "messages_total", route="chat", direction="client") == 2
    assert value(metrics, "messages_total", route="new", direction="client") == 4
    assert value(metrics, "max_connections") == 7


def test_a_provider_that_is_gone_is_not_ready_nor_unready(policy: Policy, metrics: Metrics) -> None:
    names = [provider.name for provider in policy.tokens.providers]
    for name in names:
        metrics.provider_ready(name, False)
    metrics.key_fetch(names[0], "ok")
    tokens = replace(policy.tokens, providers=())
    for _ in range(2):
        metrics.follow(replace(policy, tokens=tokens))
    body = metrics.render()[0].decode()
    assert "provider_ready{" not in body
    assert value(metrics, "key_fetches_total", provider=names[0], outcome="ok") == 1


def test_a_provider_that_goes_before_it_was_looked_at_leaves_nothing(
    policy: Policy, metrics: Metrics
) -> None:
    metrics.follow(replace(policy, tokens=replace(policy.tokens, providers=())))
    assert "provider_ready{" not in metrics.render()[0].decode()


def test_reloads_are_counted_and_the_last_one_is_shown(metrics: Metrics) -> None:
    since = value(metrics, "policy_last_reload_success_timestamp_seconds")
    assert time.time() - 60 < since <= time.time()
    assert value(metrics, "policy_last_reload_successful") == 1
    metrics.policy_reload(False)
    assert value(metrics, "policy_last_reload_successful") == 0
    assert value(metrics, "policy_last_reload_success_timestamp_seconds") == since
    metrics.policy_reload(True)
    assert value(metrics, "policy_last_reload_successful") == 1
    assert value(metrics, "policy_last_reload_success_timestamp_seconds") > since
    for outcome in ("ok", "error"):
        assert value(metrics, "policy_reloads_total", outcome=outcome) == 1
