"""How many CPUs a process may use, read from a made-up /proc and /sys."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.policy.compiled import Address, Logging, Policy, Server, TokenRules
from sidecar.workers.cpus import available_cpus, worker_count


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """The affinity mask has eight CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def files(root: Path, contents: Mapping[str, str]) -> Path:
    for name, text in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_quota_it_is_the_affinity_mask(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == 8


def test_where_there_is_no_affinity_it_is_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert available_cpus(tmp_path) == 3
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus(tmp_path) == 1


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("6400000 100000", 8),
        ("max 100000", 8),
        ("nonsense", 8),
        ("", 8),
    ],
)
def test_a_quota_of_cgroup_v2_counts_rounded_up(tmp_path: Path, quota: str, cpus: int) -> None:
    root = files(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": quota + "\n"})
    assert available_cpus(root) == cpus


def test_a_quota_of_a_group_above_counts(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        {
            "proc/self/cgroup": "0::/kubepods/pod/container\n",
            "sys/fs/cgroup/kubepods/pod/container/cpu.max": "max 100000\n",
            "sys/fs/cgroup/kubepods/pod/cpu.max": "300000 100000\n",
            "sys/fs/cgroup/kubepods/cpu.max": "500000 100000\n",
        },
    )
    assert available_cpus(root) == 3


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize("group", ["docker/abc", ""])
@pytest.mark.parametrize(("quota", "cpus"), [("250000", 3), ("-1", 8)])
def test_a_quota_of_cgroup_v1_counts(
    tmp_path: Path, folder: str, group: str, quota: str, cpus: int
) -> None:
    root = files(
        tmp_path,
        {
            "proc/self/cgroup": "7:memory:/m\n4:cpu,cpuacct:/docker/abc\n0::/\n",
            f"sys/fs/cgroup/{folder}/{group}/cpu.cfs_quota_us": f"{quota}\n",
            f"sys/fs/cgroup/{folder}/{group}/cpu.cfs_period_us": "100000\n",
        },
    )
    assert available_cpus(root) == cpus


def test_another_controllers_files_are_not_read(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        {
            "proc/self/cgroup": "3:cpuset:/\n",
            "sys/fs/cgroup/cpuset/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpuset/cpu.cfs_period_us": "100000\n",
        },
    )
    assert available_cpus(root) == 8


def test_this_machine_has_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)


def test_the_policy_names_a_number_or_leaves_it_to_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sidecar.workers.cpus.available_cpus", lambda: 5)
    server = Server((Address("127.0.0.1", 0),))
    policy = Policy(server, None, {}, TokenRules(30.0, 8192, ()), (), Logging())
    assert worker_count(policy) == 1
    assert worker_count(replace(policy, server=replace(server, workers=3))) == 3
    assert worker_count(replace(policy, server=replace(server, workers=None))) == 5
