"""What only the engine in memory can show: that it frees what it holds."""

import tracemalloc

from sidecar.state.base import Kind, Once
from sidecar.state.memory import CAPACITY, MemoryState
from tests.support.revocations import NOW, revocation


async def test_a_full_engine_takes_no_more_memory_than_it_says() -> None:
    """Ids, values and names are as long as they are in practice."""
    sample = 2000
    tracemalloc.start()
    try:
        state = MemoryState()
        before, _ = tracemalloc.get_traced_memory()
        for n in range(sample):
            each = revocation(Kind.SID, f"0f8fad5b-d9cd-469f-a165-{n:012}", id=f"{n:016x}")
            await state.revoke([each], NOW, once=Once(f"logout:{n:064x}", NOW + 300))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    per_revocation = (after - before) / sample
    assert per_revocation * CAPACITY < 100 * 2**20


async def test_what_is_over_is_freed() -> None:
    state = MemoryState()
    for n in range(100):
        each = revocation(Kind.JTI, f"{n}", expires_at=NOW + n)
        await state.revoke([each], NOW, once=Once(f"{n}", NOW + n))
    assert await state.count(NOW + 98) == 1
    await state.count(NOW + 99)
    assert [len(each) for each in (state._revocations, state._used, state._keys)] == [0, 0, 0]
