"""The price list as text: one Markdown table for each figure."""

from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.report import machine_table, number
from benchmarks.results import Results, Spread

__all__ = ["markdown"]


def markdown(results: Results) -> str:
    """The whole list."""
    lines = ["# What each feature costs", "", *machine_table(results), "", *_how_to_read(results)]
    for figure in results.figures():
        lines += ["", *_table(results, figure)]
    if results.failures:
        lines += ["", "## What failed", "", *(f"- {failure}" for failure in results.failures)]
    return "\n".join(lines) + "\n"


def _how_to_read(results: Results) -> Iterator[str]:
    yield (
        "Made by `make bench-prices`: the sidecar against itself. The price is what the line has "
        f"more than the line named beside it, formed within a round; median of {results.rounds} "
        "rounds, in brackets the least and the greatest. A price whose brackets hold zero, or that "
        "is no larger than that of the line which adds nothing, is too small to be seen here."
    )


def _table(results: Results, figure: Figure) -> Iterator[str]:
    yield f"## {figure.title} ({figure.unit})"
    yield ""
    yield f"| what is added | to | price, {figure.unit} | in all, {figure.unit} |"
    yield "|---|---|--:|--:|"
    for name, whole in results.measured(figure.key):
        over = results.over.get(name, "")
        price = results.price(figure.key, name)
        yield (
            f"| {results.peers[name]} | {results.peers.get(over, '')} "
            f"| {_price(price)} | {number(whole.median)} |"
        )


def _price(spread: Spread | None) -> str:
    if spread is None:
        return ""
    median, low, high = (_signed(value) for value in (spread.median, spread.low, spread.high))
    return f"{median} ({low} to {high})"


def _signed(value: float) -> str:
    return f"+{number(value)}" if value > 0 else number(value)
