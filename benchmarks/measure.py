"""What a process costs, from the kernel's own books: CPU time and memory of its whole group."""

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "cpu_seconds", "group", "memory"]

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True)
class Memory:
    """Bytes of a group: resident, and proportional (a shared page counts in parts)."""

    rss: int
    pss: int


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third (the state) on."""
    text = (_PROC / str(pid) / "stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def group(leader: int) -> tuple[int, ...]:
    """The processes of a process group at this moment."""
    found = []
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if int(_stat(int(entry.name))[2]) == leader:
                    found.append(int(entry.name))
    return tuple(found)


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes and their ended children, each to 1/100 s."""
    ticks = 0
    for pid in pids:
        ticks += sum(int(field) for field in _stat(pid)[11:15])
    return ticks * _TICK


def memory(pids: Iterable[int]) -> Memory:
    """Memory of the processes. What the kernel holds for their sockets is not in it."""
    sums = {"Rss": 0, "Pss": 0}
    for pid in pids:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in sums:
                sums[name] += int(value.split()[0]) * 1024
    return Memory(sums["Rss"], sums["Pss"])
