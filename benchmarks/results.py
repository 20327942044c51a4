"""The samples of a run, and what follows from them: medians, spreads and ratios."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import FIGURES, Figure

__all__ = ["Results", "Spread"]


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """None where there is no value."""
        return cls(median(values), min(values), max(values)) if values else None


@dataclass
class Results:
    """Samples by figure, peer and round (from 0), the peers' titles in order, and the machine.

    `known` are the figures that may be measured. In a list of prices `over` names for each peer the
    one that it adds something to.
    """

    peers: dict[str, str]
    machine: dict[str, str]
    rounds: int = 0
    known: Sequence[Figure] = FIGURES
    over: Mapping[str, str] = field(default_factory=dict)
    samples: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, key: str, peer: str, number: int, value: float) -> None:
        """Note a figure of a round."""
        self.samples.setdefault(key, {}).setdefault(peer, {})[number] = value

    def add_latencies_over(self, direct: str, number: int) -> None:
        """Of the round's latencies at the fixed rate, what each peer adds to the direct way."""
        for share in ("p50", "p99"):
            found = self.samples.get(f"rate.{share}_us", {})
            base = found.get(direct, {}).get(number)
            for peer, rounds in found.items():
                if base is not None and peer != direct and number in rounds:
                    self.add(f"rate.added_{share}_us", peer, number, rounds[number] - base)

    def figures(self) -> Iterator[Figure]:
        """Those that were measured."""
        return (figure for figure in self.known if figure.key in self.samples)

    def measured(self, key: str) -> Iterator[tuple[str, Spread]]:
        """Each peer that has the figure, in order."""
        for peer in self.peers:
            if spread := Spread.of(list(self.samples.get(key, {}).get(peer, {}).values())):
                yield peer, spread

    def ratio(self, key: str, peer: str, base: str) -> Spread | None:
        """The peer's figure divided by the base's, round by round; None without a sound base."""
        over = self.samples[key].get(base, {})
        rounds = self.samples[key].get(peer, {})
        common = [number for number in rounds if over.get(number, 0) > 0]
        return Spread.of([rounds[number] / over[number] for number in common])

    def price(self, key: str, peer: str) -> Spread | None:
        """The peer's figure less that of its `over`, round by round; None without both."""
        samples = self.samples.get(key, {})
        base = samples.get(self.over.get(peer, ""), {})
        rounds = samples.get(peer, {})
        return Spread.of([rounds[number] - base[number] for number in rounds if number in base])

    def write(self, path: Path) -> None:
        """As JSON: all samples, and the medians that follow."""
        document: dict[str, Any] = {
            "machine": self.machine,
            "peers": self.peers,
            "rounds": self.rounds,
            "failures": self.failures,
            "figures": {figure.key: self._document(figure) for figure in self.figures()},
        }
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")

    def _document(self, figure: Figure) -> dict[str, Any]:
        compared = self._prices(figure.key) if self.over else self._ratios(figure.key)
        return {
            "title": figure.title,
            "unit": figure.unit,
            "lower_is_better": figure.lower_is_better,
            "samples": self.samples[figure.key],
            "median": {peer: spread.median for peer, spread in self.measured(figure.key)},
            **compared,
        }

    def _ratios(self, key: str) -> dict[str, Any]:
        ratios = {
            peer: {
                base: spread.median
                for base in self.peers
                if base != peer and (spread := self.ratio(key, peer, base))
            }
            for peer, _ in self.measured(key)
        }
        return {"ratios": ratios}

    def _prices(self, key: str) -> dict[str, Any]:
        prices = {
            peer: {"over": over, "median": spread.median, "low": spread.low, "high": spread.high}
            for peer, over in self.over.items()
            if (spread := self.price(key, peer))
        }
        return {"prices": prices}
