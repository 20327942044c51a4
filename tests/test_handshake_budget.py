"""What a handshake costs in calls, so that it cannot get slower unnoticed."""

from benchmarks.micro_handshake import BUDGETS, calls


def test_a_handshake_stays_within_its_budget() -> None:
    found = calls()
    assert set(found) == set(BUDGETS)
    for name, budget in BUDGETS.items():
        assert found[name] <= budget, f"{name}: lower the cost, or say what the calls buy"


def test_a_token_that_was_seen_costs_less() -> None:
    found = calls()
    assert found["again"] < found["first"]
