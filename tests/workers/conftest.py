"""What the tests of parent and worker need."""

import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from sidecar.config.source import Loaded, load_policy
from sidecar.workers.orders import Orders
from tests.support.sidecars import ENVIRON, policy_of

KEY = "0123456789abcdef0123456789abcdef"

MakeOrders = Callable[..., Orders]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The policy's secret is there; the log and the garbage collector are put back."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    before = logging.getLogger().handlers[:]
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    logging.getLogger().handlers[:] = before
    structlog.reset_defaults()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Loaded]:
    """Loads a small policy with these sections."""

    def load(**sections: Any) -> Loaded:
        path = tmp_path / "policy.yaml"
        path.write_text(policy_of("ws://127.0.0.1:1", **sections))
        return load_policy([path], ENVIRON)

    return load


@pytest.fixture
def orders(load: Callable[..., Loaded]) -> MakeOrders:
    """Makes the orders of one of two workers that listen nowhere."""
    return lambda **sections: Orders(load(**sections).documents, 2, (), KEY)
