"""Tasks that nobody awaits."""

import asyncio

from structlog.testing import capture_logs

from sidecar.proxy.tasks import first_of, repeat, spawn


async def test_a_task_is_kept_until_it_is_over() -> None:
    tasks: set[asyncio.Task[int]] = set()
    release = asyncio.Event()

    async def work() -> int:
        await release.wait()
        return 7

    task = spawn(work(), tasks)
    await asyncio.sleep(0)
    assert tasks == {task}
    release.set()
    assert await task == 7
    await asyncio.sleep(0)
    assert tasks == set()


async def test_the_others_are_given_up_with_the_first_that_is_over() -> None:
    given_up = asyncio.Event()

    async def forever() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            given_up.set()
            raise

    await first_of(forever(), asyncio.sleep(0))
    await asyncio.wait_for(given_up.wait(), 5)


async def test_what_fails_once_is_tried_again() -> None:
    calls: list[int] = []

    async def work() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            raise RuntimeError("a bug")

    with capture_logs() as logs:
        task = asyncio.create_task(repeat(work, 0.001))
        async with asyncio.timeout(5):
            while len(calls) < 3:
                await asyncio.sleep(0.001)
        task.cancel()
    assert [entry["event"] for entry in logs] == ["internal_error"]
