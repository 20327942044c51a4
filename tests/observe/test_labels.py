from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import Reason
from sidecar.observe.labels import Labels
from sidecar.policy.compiled import Policy
from sidecar.state.base import Kind


@pytest.fixture
def labels(policy: Policy) -> Labels:
    return Labels.of(policy)


@pytest.mark.parametrize(
    "name", ["route", "upstream", "provider", "reason", "rule", "side", "kind"]
)
def test_what_the_policy_does_not_name_is_other(labels: Labels, name: str) -> None:
    assert getattr(labels, name)("/random/path") == "other"


def test_what_the_policy_names_is_itself(labels: Labels) -> None:
    assert labels.route("chat") == "chat"
    assert labels.upstream("backend") == "backend"
    assert labels.provider("app") == "app"
    assert labels.rule("verified") == "verified"
    assert labels.reason("not_a_member") == "not_a_member"


def test_what_is_not_there_is_none(labels: Labels) -> None:
    assert labels.route(None) == "none"
    assert labels.reason(None) == "none"


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_is_a_label_and_an_outcome(labels: Labels, reason: Reason) -> None:
    assert labels.reason(reason) == labels.outcome(reason) == reason.value


@pytest.mark.parametrize("outcome", ["allowed", "refused", "ok", "error"])
def test_an_outcome_is_itself(labels: Labels, outcome: str) -> None:
    assert labels.outcome(outcome) == outcome


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_revocation_is_itself(labels: Labels, kind: Kind) -> None:
    assert labels.kind(kind) == kind.value


@pytest.mark.parametrize("side", ["client", "upstream", "sidecar"])
def test_a_side_is_itself(labels: Labels, side: str) -> None:
    assert labels.side(side) == side


@pytest.mark.parametrize(
    ("code", "label"),
    [
        (999, "other"),
        (1000, "1000"),
        (1014, "1014"),
        (1015, "other"),
        (2999, "other"),
        (3000, "3xxx"),
        (3003, "3003"),  # the policy's
        (3999, "3xxx"),
        (4000, "4xxx"),
        (4001, "4001"),  # the policy's
        (4403, "4403"),  # the sidecar's own
        (4999, "4xxx"),
        (5000, "other"),
        (-1, "other"),
    ],
)
def test_a_close_code_is_itself_or_its_range(labels: Labels, code: int, label: str) -> None:
    assert labels.code(code) == label


@given(st.integers())
def test_close_codes_are_a_closed_set(code: int) -> None:
    none: frozenset[str] = frozenset()
    labels = Labels(none, none, none, none, none, frozenset({4401}))
    known = {str(number) for number in range(1000, 1015)} | {"4401", "3xxx", "4xxx", "other"}
    assert labels.code(code) in known


def test_names_of_two_policies_are_all_known(policy: Policy, labels: Labels) -> None:
    other = replace(policy, routes=(replace(policy.routes[0], name="new"),), upstreams={})
    both = Labels.of(other).joined(labels)
    assert [both.route("chat"), both.route("new"), both.upstream("backend")] == [
        "chat",
        "new",
        "backend",
    ]
    assert both == labels.joined(Labels.of(other))
    assert both.route("/random/path") == "other"
