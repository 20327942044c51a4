"""What each feature costs: `python -m benchmarks.prices`, or `make bench-prices`.

The sidecar against itself. All variants run side by side and take their turns round by round; a
price is the difference between two of them in the same round. In each round they are started anew,
so that the luck of one process is not taken for a price. Writes prices.json and prices.md.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import load
from benchmarks.arguments import extent_of, output_of, parser_of, rounds_of
from benchmarks.credentials import write_certificate
from benchmarks.figures import CHATS, PRICED, SHAPES, Handshake, Shape
from benchmarks.machine import machine
from benchmarks.measure import cpu_seconds, memory
from benchmarks.peers import COMPILED, PeerError, Running, Site, free_port
from benchmarks.price_list import markdown
from benchmarks.results import Results
from benchmarks.stage import fail, rotated, sample, say, stage
from benchmarks.tasks import Extent, Measure, Task, handshake, roundtrip
from benchmarks.variants import LOADS, VARIANTS, Variant

__all__ = ["main", "started"]

_FULL: Final = Extent(seconds=3, warmup=1, idle=(1000, 4500, 8000), tokens=20_000)
_QUICK: Final = Extent(seconds=0.3, warmup=0.1, idle=(50, 75, 100), tokens=500)
_PACE: Final = "2000"
_SETTLE: Final = 1.0
_IDLE_TIMES: Final = 3  # as long as another load: what is rare must be seen
_FILES_EACH: Final = 2.25  # both legs, and room for sockets whose handshake is not over
_SPARE_FILES: Final = 500
_FORWARDER: Final = Path(__file__).with_name("forwarder.py")


def main(argv: Sequence[str] | None = None) -> int:
    """0 when everything was measured, 1 where something failed."""
    args = _parser().parse_args(argv)
    extent = extent_of(args, full=_FULL, quick=_QUICK)
    extent = replace(extent, idle=_idle_that_fit(*extent.idle))
    loads = [name for name in LOADS if name in (args.loads or name).split(",")]
    variants = list(_chosen(args.only))
    if not COMPILED.exists():
        raise SystemExit("the compiled scanner is not there: make bench-prices builds it first")
    results = Results(
        {variant.name: variant.title for variant in variants},
        machine([]) | {"idle connections": f"few: {extent.idle[0]}, many: {extent.idle[2]}"},
        known=PRICED,
        over={variant.name: variant.over for variant in variants if variant.over},
    )
    with stage() as site, load.echo(site.build, site.folder / "echo.sock"):
        write_certificate(site.folder)
        for number in range(rounds_of(args)):
            results.rounds = number + 1
            for name in loads:
                say(f"round {results.rounds}: {name}")
                taking = [variant for variant in variants if name in variant.loads]
                _round(results, Task(name, _MEASURES[name]), taking, site, extent)
    _write(results, output_of(args, args.only, args.loads))
    return 1 if results.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("benchmarks.prices", __doc__)
    parser.add_argument("--loads", default="", metavar="LOADS", help=f"of {','.join(LOADS)}")
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="variants, with commas; what they build on too"
    )
    return parser


def _chosen(names: str) -> Iterator[Variant]:
    """The variants of these names, with those that they build on, in order."""
    known = {variant.name: variant for variant in VARIANTS}
    wanted = set(names.split(",")) if names else set(known)
    if unknown := wanted - set(known):
        raise SystemExit(
            f"no such variant: {', '.join(sorted(unknown))}; one of {', '.join(known)}"
        )
    for variant in reversed(VARIANTS):
        if variant.name in wanted and variant.over:
            wanted.add(variant.over)
    return (variant for variant in VARIANTS if variant.name in wanted)


def _idle_that_fit(few: int, half: int, most: int) -> tuple[int, int, int]:
    """The greatest is lowered to what the sidecar takes on with this limit of open files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    most = min(most, int((hard - _SPARE_FILES) / _FILES_EACH))
    if most > few:
        return few, half, most
    raise SystemExit(
        f"more than {few} idle connections are needed, and {_FILES_EACH} open files for each; "
        f"the limit is {hard}: raise it (ulimit -n), or use --quick"
    )


def _round(
    results: Results, task: Task, variants: list[Variant], site: Site, extent: Extent
) -> None:
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        for variant in variants:
            try:
                running[variant.name] = stack.enter_context(started(variant, site))
            except PeerError as error:
                fail(results, f"{variant.name}: {error}")
        for name in rotated(list(running), results.rounds - 1):
            sample(results, task, name, site, extent, running[name])


@contextmanager
def started(variant: Variant, site: Site) -> Iterator[Running]:
    """A variant that runs, with a forwarder before it where it has one. Raises PeerError."""
    with ExitStack() as stack:
        values: dict[str, str] = {}
        port = None
        if variant.forwarded:
            port, back = free_port(), free_port()
            values["PORT_BACK"] = str(back)
            argv = [sys.executable, str(_FORWARDER), "--port", str(port), "--to", str(back)]
            if variant.forwarded == "tls":
                argv += ["--ca", str(site.folder / "server.pem")]
            stack.enter_context(load.helper(argv))
        yield stack.enter_context(Running(variant.peer(values, port), site))


def _messages(
    shapes: Sequence[Shape], site: Site, extent: Extent, running: Running | None
) -> Mapping[str, float]:
    return {
        key: value
        for shape in shapes
        for key, value in roundtrip(shape, site, extent, running).items()
        if key.endswith(".cpu_us")
    }


def _paced(site: Site, extent: Extent, running: Running | None) -> Mapping[str, float]:
    if running is None:
        return {}
    flags = ["--rate", _PACE, *extent.flags, *running.target(running.peer.strictest)]
    return {"paced.cpu_us": load.run(site.build, "rate", flags, running.pids).cpu_us}


def _handshakes(site: Site, extent: Extent, running: Running | None) -> Mapping[str, float]:
    if running is None:
        return {}
    variant = running.peer.strictest
    kind = Handshake("handshake", "", variant, different=variant != "plain")
    found = handshake(kind, site, extent, running)
    return {"handshake.cpu_us": 1e6 / found["handshake.per_cpu"]}


def _idle(site: Site, extent: Extent, running: Running | None) -> Mapping[str, float]:
    if running is None:
        return {}
    few, _, most = extent.idle
    flags = running.target(running.peer.strictest)
    found = {"idle.cpu_rest": _cpu_of_a_second(running, extent)}
    with load.holding(site.build, few, flags):
        found["idle.cpu_few"] = _cpu_of_a_second(running, extent)
        before = memory(running.pids).pss
        with load.holding(site.build, most - few, flags):
            found["idle.cpu_most"] = _cpu_of_a_second(running, extent)
            found["idle.bytes"] = (memory(running.pids).pss - before) / (most - few)
    return found


def _cpu_of_a_second(running: Running, extent: Extent) -> float:
    """Microseconds, while nothing is asked of it."""
    time.sleep(_SETTLE)
    began, before = time.perf_counter(), cpu_seconds(running.pids)
    time.sleep(_IDLE_TIMES * extent.seconds)
    return 1e6 * (cpu_seconds(running.pids) - before) / (time.perf_counter() - began)


_MEASURES: Final[Mapping[str, Measure]] = {
    "messages": partial(_messages, SHAPES[:2]),
    "chats": partial(_messages, CHATS),
    "paced": _paced,
    "handshakes": _handshakes,
    "idle": _idle,
}


def _write(results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    results.write(folder / "prices.json")
    (folder / "prices.md").write_text(markdown(results))
    say(f"\n{markdown(results)}\nwritten to {folder}/prices.json and prices.md")


if __name__ == "__main__":
    sys.exit(main())
