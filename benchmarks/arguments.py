"""What the runners are asked in the same way: how long, how often, and where results go."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.tasks import Extent

__all__ = ["extent_of", "output_of", "parser_of", "rounds_of"]

_ROOT: Final = Path(__file__).resolve().parent.parent
_DOCS: Final = _ROOT / "docs" / "performance"
_SCRATCH: Final = _ROOT / "build" / "benchmarks" / "results"


def parser_of(prog: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that has the arguments which every runner takes."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--quick", action="store_true", help="one short round: does it all run?")
    parser.add_argument("--rounds", type=int, metavar="N", help="default 5, with --quick 1")
    parser.add_argument("--seconds", type=float, metavar="S", help="of each load, default 3")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="default docs/performance for a whole run, build/benchmarks/results for others",
    )
    return parser


def extent_of(args: argparse.Namespace, *, full: Extent, quick: Extent) -> Extent:
    """How long to measure."""
    extent = quick if args.quick else full
    return replace(extent, seconds=args.seconds) if args.seconds else extent


def rounds_of(args: argparse.Namespace) -> int:
    """How often everything takes its turn."""
    rounds: int = args.rounds or (1 if args.quick else 5)
    return rounds


def output_of(args: argparse.Namespace, *choices: str) -> Path:
    """Where results go: into the documents only those of a whole run, from which no `choices`
    left anything out; elsewhere the others.
    """
    whole = not (args.quick or any(choices))
    asked: Path | None = args.output
    return asked or (_DOCS if whole else _SCRATCH)
