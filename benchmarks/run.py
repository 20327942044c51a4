"""Runs the benchmarks: `python -m benchmarks.run`, or `make bench`.

All peers run side by side and take their turns round by round, so that what the machine does
meanwhile hits them alike. Writes results.json, results.md and results.svg.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks import report
from benchmarks.arguments import extent_of, output_of, parser_of, rounds_of
from benchmarks.machine import machine
from benchmarks.peers import PEERS, Peer, PeerError, Running, Site
from benchmarks.plot import svg
from benchmarks.results import Results
from benchmarks.stage import fail, rotated, sample, say, stage
from benchmarks.tasks import DIRECT, Extent, Task, idle_levels, tasks

__all__ = ["main"]

_FULL: Final = Extent(seconds=3, warmup=1, idle=(1000, 4500, 8000), tokens=50_000)
_QUICK: Final = Extent(seconds=0.4, warmup=0.1, idle=(100, 450, 800), tokens=500)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything that is installed was measured, 1 where something failed."""
    args = _parser().parse_args(argv)
    extent = extent_of(args, full=_FULL, quick=_QUICK)
    extent = replace(extent, idle=idle_levels(extent.idle))
    wanted = [task for task in tasks() if _chosen(task.name, args.only)]
    if not wanted:
        raise SystemExit(f"--only is one of: {', '.join(task.name for task in tasks())}")
    peers = list(_installed(args.peers))
    titles = {DIRECT: "no proxy"} | {peer.name: peer.title for peer in peers}
    results = Results(titles, machine(peers))
    _measure(results, peers, wanted, rounds_of(args), extent)
    _write(results, output_of(args, args.only, args.peers))
    return 1 if results.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("benchmarks.run", __doc__)
    parser.add_argument(
        "--only", default="", metavar="TASKS", help="beginnings of names, with commas: 64,rate"
    )
    parser.add_argument("--peers", default="", metavar="NAMES", help="with commas")
    return parser


def _chosen(name: str, only: str) -> bool:
    return not only or name.startswith(tuple(only.split(",")))


def _installed(names: str) -> Iterator[Peer]:
    wanted = names.split(",") if names else [peer.name for peer in PEERS if not peer.extra]
    if unknown := set(wanted) - {peer.name for peer in PEERS}:
        known = ", ".join(peer.name for peer in PEERS)
        raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}; there are: {known}")
    for peer in PEERS:
        if peer.name in wanted:
            if peer.program() is None:
                say(f"{peer.title}: {peer.missing}, skipped")
            else:
                yield peer


def _measure(
    results: Results,
    peers: list[Peer],
    wanted: list[Task],
    rounds: int,
    extent: Extent,
) -> None:
    with stage() as site, ExitStack() as stack:
        running: dict[str, Running] = {}
        for peer in peers if any(not task.fresh for task in wanted) else ():
            try:
                running[peer.name] = stack.enter_context(Running(peer, site))
            except PeerError as error:
                fail(results, f"{peer.title}: {error}")
        for number in range(rounds):
            results.rounds = number + 1
            for task in wanted:
                say(f"round {number + 1} of {rounds}: {task.name}")
                turn = [peer for peer in rotated(peers, number) if task.suits(peer)]
                _take_turns(results, task, turn, running, site, extent)


def _take_turns(
    results: Results,
    task: Task,
    turn: list[Peer],
    running: dict[str, Running],
    site: Site,
    extent: Extent,
) -> None:
    number = results.rounds - 1
    if task.direct:
        sample(results, task, DIRECT, site, extent, None)
    for peer in turn:
        if not task.fresh:
            if peer.name in running:
                sample(results, task, peer.name, site, extent, running[peer.name])
            continue
        try:
            with Running(peer, site) as alone:
                sample(results, task, peer.name, site, extent, alone)
        except PeerError as error:
            fail(results, f"{peer.title}: {error}")
    if task.direct:
        results.add_latencies_over(DIRECT, number)


def _write(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    results.write(folder / "results.json")
    (folder / "results.md").write_text(report.markdown(results))
    (folder / "results.svg").write_text(svg(results))
    say(f"\n{report.markdown(results)}\nwritten to {folder}/results.json, .md and .svg")


if __name__ == "__main__":
    sys.exit(main())
