"""Tasks that nobody awaits."""

import asyncio

from sidecar.proxy.tasks import first_of, spawn


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
