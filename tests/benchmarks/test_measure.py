"""The kernel's books."""

import os
import subprocess
import sys
import threading

import pytest

from benchmarks.measure import cpu_seconds, group


def test_time_on_the_cpu_counts_in_every_thread() -> None:
    def work() -> None:
        for number in range(200_000):
            str(number)

    before = cpu_seconds([os.getpid()])
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mine = sum(os.times()[:2])
    found = cpu_seconds([os.getpid()])
    assert found > before
    assert found == pytest.approx(mine, abs=0.1)


def test_processes_are_summed() -> None:
    one = cpu_seconds([os.getpid()])
    assert cpu_seconds([os.getpid(), os.getpid()]) >= 2 * one


def test_a_process_that_has_ended_is_no_zero() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(OSError, match="Invalid argument"):
        cpu_seconds([process.pid])


def test_a_group_is_found_by_its_leader() -> None:
    code = "import sys; sys.stdin.read()"
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, start_new_session=True) as process:
        assert group(process.pid) == (process.pid,)
