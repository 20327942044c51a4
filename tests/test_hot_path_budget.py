"""What one read costs in the relay stays within its budget, counted and not timed."""

import pytest

from benchmarks import micro
from sidecar.proxy.pipe import Pipe

RECEIVE = Pipe.data_received


def copy_and_receive(pipe: Pipe, data: bytes) -> None:
    RECEIVE(pipe, bytes(bytearray(data)))


def receive_in_two(pipe: Pipe, data: bytes) -> None:
    RECEIVE(pipe, data[:1])
    RECEIVE(pipe, data[1:])


@pytest.mark.parametrize("name", micro.READS)
def test_a_read_stays_within_its_budget(name: str) -> None:
    cost = micro.cost_of(micro.READS[name])
    assert cost.within(micro.BUDGETS[name]), cost


def test_every_read_has_a_budget() -> None:
    assert micro.READS.keys() == micro.BUDGETS.keys()


@pytest.mark.parametrize("name", micro.READS)
def test_a_copy_of_the_data_is_over_the_budget(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipe, "data_received", copy_and_receive)
    cost = micro.cost_of(micro.READS[name])
    assert cost.peak_bytes > micro.BUDGETS[name].peak_bytes


@pytest.mark.parametrize("name", micro.READS)
def test_what_stays_in_memory_is_over_the_budget(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bytearray] = []

    def receive_and_keep(pipe: Pipe, data: bytes) -> None:
        kept.append(bytearray(1))
        RECEIVE(pipe, data)

    monkeypatch.setattr(Pipe, "data_received", receive_and_keep)
    cost = micro.cost_of(micro.READS[name])
    assert cost.kept_blocks > micro.BUDGETS[name].kept_blocks


@pytest.mark.parametrize("name", micro.READS)
def test_a_second_scan_is_over_the_budget(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipe, "data_received", receive_in_two)
    cost = micro.cost_of(micro.READS[name])
    assert cost.calls > micro.BUDGETS[name].calls
