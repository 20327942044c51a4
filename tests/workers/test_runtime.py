"""The event loop of every process."""

import sys

import pytest
import uvloop

from sidecar.workers.runtime import loop_factory


def test_uvloop_runs_it_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = loop_factory()
    assert factory is not None
    loop = factory()
    assert isinstance(loop, uvloop.Loop)
    loop.close()
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop_factory() is None
