"""Runs the load generator and the echo upstream, and reads the proxy's clock around the load."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import cpu_seconds

__all__ = ["Load", "LoadError", "echo", "guarded", "helper", "holding", "run"]


class LoadError(Exception):
    """The load generator failed; the message is its own."""


@dataclass(frozen=True)
class Load:
    """What came of a load.

    `count` is messages or handshakes in `seconds`, `cpu` the proxy's CPU seconds meanwhile,
    latencies are in microseconds. `begun` is how many handshakes were sent from start to end.
    """

    count: int
    seconds: float
    cpu: float
    p50: float
    p99: float
    begun: int

    @property
    def cpu_us(self) -> float:
        """Microseconds of the proxy's CPU for each message or handshake."""
        return self.cpu / self.count * 1e6

    @property
    def per_second(self) -> float:
        """Messages or handshakes per second."""
        return self.count / self.seconds


def run(build: Path, mode: str, flags: Sequence[str], pids: Sequence[int]) -> Load:
    """Run one load against a proxy of these processes. Raises LoadError."""
    argv = [str(build / "loadgen"), mode, "--marks", *flags]
    marks: list[float] = []
    complaints = ""
    with subprocess.Popen(  # noqa: S603
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        for line in process.stderr:
            if line.strip() in ("begin", "end"):
                marks.append(cpu_seconds(pids))
            else:
                complaints += line
        output = process.stdout.read()
    if process.returncode != 0 or len(marks) != 2:
        raise LoadError(complaints.strip() or f"exit code {process.returncode}: {output.strip()}")
    result: dict[str, Any] = json.loads(output)
    if result["errors"] or result["overruns"] or not result["count"]:
        raise LoadError(output.strip())
    return Load(
        result["count"],
        result["seconds"],
        marks[1] - marks[0],
        result["p50_us"],
        result["p99_us"],
        result["begun"],
    )


@contextlib.contextmanager
def holding(build: Path, connections: int, flags: Sequence[str]) -> Iterator[None]:
    """So many idle connections are open during the block. Raises LoadError."""
    argv = [str(build / "loadgen"), "idle", "--connections", str(connections), *flags]
    with subprocess.Popen(  # noqa: S603
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        if not process.stdout.readline():
            raise LoadError(process.stderr.read().strip())
        yield


@contextlib.contextmanager
def echo(build: Path, where: int | Path) -> Iterator[None]:
    """The upstream listens during the block, on this port or on a Unix socket at this path."""
    address: object
    if isinstance(where, int):
        family, address, flag = socket.AF_INET, ("127.0.0.1", where), "--port"
    else:
        family, address, flag = socket.AF_UNIX, str(where), "--unix"
    with helper([str(build / "echo"), flag, str(where)]):
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with socket.socket(family) as probe:
                if probe.connect_ex(address) == 0:
                    break
            time.sleep(0.01)
        yield


def guarded(argv: Sequence[str]) -> list[str]:
    """The same program, but one that does not outlive this one, where the system can see to it."""
    guard = shutil.which("setpriv")
    return [guard, "--pdeathsig", "TERM", *argv] if guard else list(argv)


@contextlib.contextmanager
def helper(argv: Sequence[str]) -> Iterator[None]:
    """A program runs during the block."""
    process = subprocess.Popen(guarded(argv))  # noqa: S603
    try:
        yield
    finally:
        process.kill()
        process.wait()
