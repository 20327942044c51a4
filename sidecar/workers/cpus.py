"""How many CPUs this process may use: the machine has more than a container is given."""

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path, PurePosixPath

from sidecar.policy.compiled import Policy

__all__ = ["available_cpus", "worker_count"]


def worker_count(policy: Policy) -> int:
    """How many processes the policy asks for, on this machine."""
    workers = policy.server.workers
    return available_cpus() if workers is None else workers


def available_cpus(root: Path = Path("/")) -> int:
    """The smaller of the affinity mask and the CPU quota of the control group (cgroup v2 or v1),
    rounded up, at least 1. `root` is where /proc and /sys stand.
    """
    quotas = list(_quotas(root))
    return max(1, min([_affinity(), *(ceil(quota) for quota in quotas)]))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # not on Linux


def _quotas(root: Path) -> Iterator[float]:
    """The quotas, in CPUs, of this process's control group and of those above it."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            folders, quota = ("sys/fs/cgroup", "sys/fs/cgroup/unified"), _v2
        elif "cpu" in controllers.split(","):
            folders, quota = (f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"), _v1
        else:
            continue
        # In a container the group's own folder may be the mount's root, whatever it is called.
        path = PurePosixPath(group.lstrip("/"))
        for folder in folders:
            for level in (path, *path.parents):
                yield from quota(root / folder / level)


def _v2(folder: Path) -> Iterator[float]:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    if quota.isdigit() and period.isdigit():
        yield int(quota) / int(period)


def _v1(folder: Path) -> Iterator[float]:
    quota = _read(folder / "cpu.cfs_quota_us").strip()  # -1 where there is none
    period = _read(folder / "cpu.cfs_period_us").strip()
    if quota.isdigit() and period.isdigit():
        yield int(quota) / int(period)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
