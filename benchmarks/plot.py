"""The headline figures as one SVG: a panel of bars each, with the spread of the rounds."""

from collections.abc import Iterator
from xml.sax.saxutils import escape

from benchmarks.figures import HEADLINES, Figure
from benchmarks.report import number
from benchmarks.results import Results, Spread

__all__ = ["svg"]

_COLUMNS = 2
_WIDTH = 520
_LABEL = 190
_VALUE = 70
_BAR = 14
_ROW = 22
_HEAD = 44
_GAP = 24
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-weight: 600; font-size: 13px }
  .note { fill: #57606a; font-size: 11px }
  .bar { fill: #8c959f } .ours { fill: #0969da }
  .spread { stroke: #24292f; stroke-width: 1 }
"""


def svg(results: Results) -> str:
    """The picture, on white, so that it can be read in light and dark pages."""
    measured = {figure.key: figure for figure in results.figures()}
    panels = [measured[key] for key in HEADLINES if key in measured]
    height_of_panel = _HEAD + _ROW * len(results.peers) + _GAP
    rows = -(-len(panels) // _COLUMNS)
    width = _COLUMNS * (_WIDTH + _GAP) + _GAP
    height = rows * height_of_panel + _GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">',
        "<title>The sidecar beside other proxies</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for place, figure in enumerate(panels):
        left = _GAP + place % _COLUMNS * (_WIDTH + _GAP)
        top = _GAP + place // _COLUMNS * height_of_panel
        lines.append(f'<g transform="translate({left} {top})">')
        lines += _panel(results, figure)
        lines.append("</g>")
    return "\n".join([*lines, "</svg>", ""])


def _panel(results: Results, figure: Figure) -> Iterator[str]:
    better = "less" if figure.lower_is_better else "more"
    yield f'<text class="title" y="12">{escape(figure.title)}</text>'
    yield f'<text class="note" y="28">{figure.unit}, {better} is better</text>'
    bars = list(results.measured(figure.key))
    most = max((spread.high for _, spread in bars), default=0)
    scale = (_WIDTH - _LABEL - _VALUE) / most if most > 0 else 0
    for row, (peer, spread) in enumerate(bars):
        yield from _bar(results.peers[peer], peer == "sidecar", spread, _HEAD + row * _ROW, scale)


def _bar(title: str, ours: bool, spread: Spread, top: float, scale: float) -> Iterator[str]:
    middle = top + _BAR / 2
    low, value, high = (
        _LABEL + max(bound, 0) * scale for bound in (spread.low, spread.median, spread.high)
    )
    kind = "bar ours" if ours else "bar"
    yield f'<text x="{_LABEL - 8}" y="{middle + 4}" text-anchor="end">{escape(title)}</text>'
    yield (
        f'<rect class="{kind}" x="{_LABEL}" y="{top}" width="{value - _LABEL:.1f}" '
        f'height="{_BAR}" rx="2"/>'
    )
    yield f'<line class="spread" x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}"/>'
    yield f'<text x="{high + 6:.1f}" y="{middle + 4}">{number(spread.median)}</text>'
