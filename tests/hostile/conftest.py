"""These tests run on both event loops: asyncio's own and uvloop."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from tests.support.implementations import implementation

__all__ = ["implementation"]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What pytest-asyncio runs every coroutine test with."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
