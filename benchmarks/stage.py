"""What every run stands on: programs, keys, an upstream, cores of their own, and turns."""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, TypeVar

from benchmarks import load, report
from benchmarks.build import build
from benchmarks.credentials import Credentials
from benchmarks.peers import Running, Site, cores, free_port
from benchmarks.results import Results
from benchmarks.tasks import Extent, Task

__all__ = ["fail", "rotated", "sample", "say", "stage"]

_ROOT: Final = Path(__file__).resolve().parent.parent


_T = TypeVar("_T")


@contextmanager
def stage() -> Iterator[Site]:
    """A site with a running upstream, during the block; this program runs on the load's cores."""
    folder = _ROOT / "build" / "benchmarks"
    build(folder)
    proxy_cores, load_cores = cores()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        os.chmod(name, 0o755)  # noqa: S103  # a peer may run as another user
        os.sched_setaffinity(0, load_cores)
        site = Site(folder, Path(name), Credentials.make(Path(name)), proxy_cores, free_port())
        stack.enter_context(load.echo(folder, site.upstream))
        yield site


def rotated(those: Sequence[_T], number: int) -> list[_T]:
    """In the order of this round: in each another one is first."""
    first = number % len(those) if those else 0
    return [*those[first:], *those[:first]]


def say(text: str) -> None:
    """Write a line, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def sample(
    results: Results, task: Task, name: str, site: Site, extent: Extent, running: Running | None
) -> None:
    """Measure once and note the figures in the round that is under way, or the failure."""
    try:
        found = task.measure(site=site, extent=extent, running=running)
    except load.LoadError as error:
        fail(results, f"{name}, {task.name}, round {results.rounds}: {error}")
        return
    for key, value in found.items():
        results.add(key, name, results.rounds - 1, value)
    short = ", ".join(f"{key.partition('.')[2]} {report.number(found[key])}" for key in found)
    say(f"  {name:12} {short}")


def fail(results: Results, what: str) -> None:
    """Note and tell a failure; the run goes on."""
    results.failures.append(what)
    say(f"  FAILED {what}")
