"""Prices: differences within a round, as a table and as JSON."""

import json
from pathlib import Path

import pytest

from benchmarks.figures import PRICED
from benchmarks.price_list import markdown
from benchmarks.results import Results, Spread

KEY = "handshake.cpu_us"


@pytest.fixture
def results() -> Results:
    titles = {"least": "the least", "token": "a token", "rule": "a rule", "fast": "fast"}
    over = {"token": "least", "rule": "token", "fast": "least"}
    made = Results(titles, {"kernel": "Linux"}, 3, known=PRICED, over=over)
    for number, values in enumerate([(100, 150, 152, 90), (300, 320, 360, 280), (50, 90, 91, 55)]):
        for name, value in zip(titles, values, strict=True):
            made.add(KEY, name, number, value)
    return made


def test_a_price_is_the_difference_within_each_round(results: Results) -> None:
    assert results.price(KEY, "token") == Spread(40, 20, 50)
    assert results.price(KEY, "rule") == Spread(2, 1, 40)


def test_a_round_without_its_base_has_no_price(results: Results) -> None:
    del results.samples[KEY]["least"][1]
    assert results.price(KEY, "token") == Spread(45, 40, 50)


def test_what_builds_on_nothing_has_no_price(results: Results) -> None:
    assert results.price(KEY, "least") is None
    assert results.price("idle.bytes", "token") is None


def test_the_table_names_what_each_price_is_over(results: Results) -> None:
    table = markdown(results)
    assert "## A handshake and its close (µs)" in table
    assert "| the least |  |  | 100 |" in table
    assert "| a rule | a token | +2.00 (+1.00 to +40.0) | 152 |" in table
    assert "| fast | the least | -10.0 (-20.0 to +5.00) | 90.0 |" in table
    assert "| kernel | Linux |" in table


def test_the_list_names_what_failed(results: Results) -> None:
    results.failures.append("tls: does not start")
    assert markdown(results).endswith("- tls: does not start\n")


def test_the_document_has_samples_and_prices(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "prices.json")
    figure = json.loads((tmp_path / "prices.json").read_text())["figures"][KEY]
    assert figure["samples"]["token"] == {"0": 150, "1": 320, "2": 90}
    assert figure["prices"]["token"] == {"over": "least", "median": 40, "low": 20, "high": 50}
    assert "least" not in figure["prices"]
    assert "ratios" not in figure
