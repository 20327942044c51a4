"""Tests of what touches sockets run on both event loops: asyncio's own and uvloop."""

import asyncio
import gc
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import pytest
import uvloop

from tests.support.implementations import implementation

__all__ = ["implementation"]

ON_SOCKETS: Final = {
    "test_farewell.py",
    "test_first_message.py",
    "test_front.py",
    "test_listeners.py",
    "test_timeouts.py",
    "test_upstream.py",
}


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Only what is in no cycle goes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What pytest-asyncio runs every coroutine test with."""
    if item.path.name not in ON_SOCKETS:
        return {"asyncio": asyncio.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
