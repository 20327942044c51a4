"""Each thing is called late once its own time is over, with one timer for all."""

import asyncio

from structlog.testing import capture_logs

from sidecar.proxy.timeouts import Timeouts


class Late(list[str]):
    """What was called late, in order."""

    async def until(self, *names: str) -> None:
        async with asyncio.timeout(5):
            while len(self) < len(names):
                await asyncio.sleep(0.002)
        assert self == list(names)


async def test_each_is_late_after_its_own_seconds() -> None:
    late = Late()
    timeouts: Timeouts[str] = Timeouts(late.append)
    timeouts.add("slow", 0.06)
    timeouts.add("one", 0.02)
    timeouts.add("two", 0.02)
    timeouts.add("slower", 0.08)
    await late.until("one", "two", "slow", "slower")


async def test_what_is_done_in_time_is_not_late() -> None:
    late = Late()
    timeouts: Timeouts[str] = Timeouts(late.append)
    timeouts.add("done", 0.01)
    timeouts.add("late", 0.03)
    assert timeouts.discard("done", 0.01)
    assert not timeouts.discard("done", 0.01)
    assert not timeouts.discard("never", 5)
    await late.until("late")
    assert not timeouts.discard("late", 0.03)


async def test_it_may_be_used_again_after_it_was_empty() -> None:
    late = Late()
    timeouts: Timeouts[str] = Timeouts(late.append)
    timeouts.add("one", 0.01)
    await late.until("one")
    timeouts.add("two", 0.01)
    await late.until("one", "two")


async def test_one_that_is_late_may_add_another() -> None:
    late = Late()

    def again(name: str) -> None:
        late.append(name)
        if name == "one":
            timeouts.add("two", 0.01)

    timeouts: Timeouts[str] = Timeouts(again)
    timeouts.add("one", 0.01)
    await late.until("one", "two")


async def test_a_ring_that_comes_early_is_no_reason_to_be_late() -> None:
    late = Late()
    timeouts: Timeouts[str] = Timeouts(late.append)
    timeouts.add("one", 0.05)
    timeouts._ring()
    assert late == []
    await late.until("one")


async def test_after_the_end_nothing_is_late() -> None:
    late = Late()
    timeouts: Timeouts[str] = Timeouts(late.append)
    timeouts.close()
    timeouts.add("one", 0.01)
    timeouts.close()
    await asyncio.sleep(0.03)
    assert late == []


async def test_a_failure_for_one_keeps_no_other_from_being_late() -> None:
    late = Late()

    def fail(name: str) -> None:
        late.append(name)
        if name == "one":
            raise RuntimeError("a bug")

    timeouts: Timeouts[str] = Timeouts(fail)
    timeouts.add("one", 0.01)
    timeouts.add("two", 0.01)
    with capture_logs() as logs:
        await late.until("one", "two")
    assert [entry["event"] for entry in logs] == ["internal_error"]
