"""Every engine of shared state keeps the same contract: a test that asks for `make_state` runs with
each.
"""

from collections.abc import Callable

import pytest

from sidecar.state.base import State
from sidecar.state.memory import MemoryState

MakeState = Callable[..., State]


@pytest.fixture(params=[MemoryState], ids=["memory"])
def make_state(request: pytest.FixtureRequest) -> MakeState:
    """Makes an empty engine, with a `capacity` where one is given."""
    make: MakeState = request.param
    return make


@pytest.fixture
def state(make_state: MakeState) -> State:
    return make_state()
