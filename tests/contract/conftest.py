"""Every engine of shared state keeps the same contract: a test that asks for `make_state` runs with
each.
"""

from collections.abc import Callable

import pytest

from sidecar.state.base import State
from sidecar.state.memory import MemoryState
from sidecar.workers.copies import CopiedState

MakeState = Callable[..., State]


def _copied(*arguments: int) -> State:
    return CopiedState(MemoryState(*arguments))


@pytest.fixture(params=[MemoryState, _copied], ids=["memory", "copied"])
def make_state(request: pytest.FixtureRequest) -> MakeState:
    """Makes an empty engine, with a `capacity` where one is given."""
    make: MakeState = request.param
    return make


@pytest.fixture
def state(make_state: MakeState) -> State:
    return make_state()
