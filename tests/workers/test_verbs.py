"""What a worker does for the parent's admin API, where it is not what a stand-in shows."""

import pytest

from sidecar.errors import WorkerError
from sidecar.state.base import Kind
from sidecar.workers.plain import REVOCATIONS
from tests.support.revocations import revocation
from tests.workers.colleagues import Worker


async def test_a_revocation_for_which_there_is_no_room_is_an_error() -> None:
    worker = Worker(capacity=1)
    body = REVOCATIONS.put((revocation(Kind.JTI, "a"), revocation(Kind.JTI, "b")))
    with pytest.raises(WorkerError, match="no room for more than 1 revocations"):
        await worker.ask("revoke", body, 1.0)


async def test_a_revocation_that_is_over_is_not_kept() -> None:
    worker = Worker()
    worker.clock.move(3600)
    assert await worker.ask("revoke", REVOCATIONS.put((revocation(),)), 1.0) == {"closed": 0}
    assert await worker.memory.count(0.0) == 0


async def test_to_withdraw_what_is_not_there_is_no_error() -> None:
    assert await Worker().ask("withdraw", {"id": "none"}, 1.0) == {"closed": 0}
