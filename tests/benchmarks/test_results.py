"""Medians, ratios and their pictures."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.plot import svg
from benchmarks.report import markdown, number
from benchmarks.results import Results, Spread

CPU = "64x128x1.cpu_us"


@pytest.fixture
def results() -> Results:
    made = Results({"direct": "no proxy", "relay": "bare <relay>", "sidecar": "sidecar"}, {}, 3)
    for number_, (relay, sidecar) in enumerate([(10, 11), (20, 24), (10, 13)]):
        made.add(CPU, "relay", number_, relay)
        made.add(CPU, "sidecar", number_, sidecar)
    return made


def test_a_figure_is_the_median_of_its_rounds(results: Results) -> None:
    assert dict(results.measured(CPU)) == {
        "relay": Spread(10, 10, 20),
        "sidecar": Spread(13, 11, 24),
    }


def test_a_ratio_is_formed_within_each_round(results: Results) -> None:
    assert results.ratio(CPU, "sidecar", "relay") == Spread(1.2, 1.1, 1.3)


def test_a_round_that_failed_is_left_out_of_the_ratio(results: Results) -> None:
    del results.samples[CPU]["relay"][1]
    assert results.ratio(CPU, "sidecar", "relay") == Spread((1.1 + 1.3) / 2, 1.1, 1.3)


def test_without_a_sound_base_there_is_no_ratio(results: Results) -> None:
    results.samples[CPU]["relay"] = {0: 0.0, 1: -1.0}
    assert results.ratio(CPU, "sidecar", "relay") is None
    assert results.ratio(CPU, "sidecar", "nginx") is None


def test_added_latency_is_over_the_direct_way_of_the_same_round(results: Results) -> None:
    for number_, (direct, sidecar) in enumerate([(50, 80), (90, 95)]):
        results.add("rate.p99_us", "direct", number_, direct)
        results.add("rate.p99_us", "sidecar", number_, sidecar)
        results.add_latencies_over("direct", number_)
    assert results.samples["rate.added_p99_us"] == {"sidecar": {0: 30, 1: 5}}


def test_the_table_has_the_ratios_both_ways(results: Results) -> None:
    table = markdown(results)
    assert "| sidecar | 13.0 | 11.0-24.0 | 1.20 (1.10-1.30) | - |" in table
    assert "| bare <relay> | 10.0 | 10.0-20.0 | - | 1.20 (1.10-1.30) |" in table


def test_the_report_names_what_failed(results: Results) -> None:
    results.failures.append("nginx: does not start")
    assert markdown(results).endswith("- nginx: does not start\n")


def test_the_plot_is_well_formed(results: Results) -> None:
    root = ElementTree.fromstring(svg(results))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "bare <relay>" in texts


def test_all_samples_are_written(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())["figures"][CPU]
    assert written["samples"]["sidecar"] == {"0": 11, "1": 24, "2": 13}
    assert written["ratios"]["sidecar"] == {"relay": 1.2}


@pytest.mark.parametrize(
    ("value", "text"), [(0.671, "0.67"), (12.34, "12.3"), (17900.4, "17,900"), (-3, "-3.00")]
)
def test_numbers_have_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text
