"""The results as text: one Markdown table for each figure."""

from collections.abc import Iterator

from benchmarks.figures import Figure
from benchmarks.results import Results, Spread

__all__ = ["machine_table", "markdown", "number"]

_LIMIT = "relay"
_OURS = "sidecar"


def number(value: float) -> str:
    """With three significant digits, and thousands set apart."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"


def markdown(results: Results) -> str:
    """The whole report."""
    lines = [
        "# Results of `make bench`",
        "",
        *machine_table(results),
        "",
        *_how_to_read(results),
        "",
    ]
    for figure in results.figures():
        lines += [*_table(results, figure), ""]
    if results.failures:
        lines += ["## What failed", "", *(f"- {failure}" for failure in results.failures), ""]
    return "\n".join(lines).rstrip() + "\n"


def machine_table(results: Results) -> Iterator[str]:
    """What the run was made on."""
    yield "| machine | |"
    yield "|---|---|"
    for name, value in results.machine.items():
        yield f"| {name} | {value} |"


def _how_to_read(results: Results) -> Iterator[str]:
    yield (
        f"Median of the rounds, of which there were {results.rounds}, in brackets the least and "
        "the greatest. Ratios are "
        "formed within a round, then the same. × relay: the figure divided by the bare C relay's; "
        "sidecar ÷: the sidecar's figure divided by this one. For more is better the greater "
        "ratio is the better one."
    )


def _table(results: Results, figure: Figure) -> Iterator[str]:
    better = "less" if figure.lower_is_better else "more"
    yield f"## {figure.title} ({figure.unit}, {better} is better)"
    yield ""
    yield f"| | {figure.unit} | spread | × relay | sidecar ÷ |"
    yield "|---|--:|--:|--:|--:|"
    for peer, spread in results.measured(figure.key):
        over_limit = None if peer == _LIMIT else results.ratio(figure.key, peer, _LIMIT)
        ours = None if peer == _OURS else results.ratio(figure.key, _OURS, peer)
        yield (
            f"| {results.peers[peer]} | {number(spread.median)} "
            f"| {number(spread.low)}-{number(spread.high)} "
            f"| {_ratio(over_limit)} | {_ratio(ours)} |"
        )


def _ratio(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    return f"{spread.median:.2f} ({spread.low:.2f}-{spread.high:.2f})"
