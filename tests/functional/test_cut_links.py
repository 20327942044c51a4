"""A link that is cut without a word is noticed on either side of a route with a heartbeat."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.audits import events

ALONE = ("unshare", "--map-root-user", "--net")


def can_be_alone() -> bool:
    """Whether this machine lets its users have a network of their own."""
    if shutil.which(ALONE[0]) is None:
        return False
    return subprocess.run([*ALONE, "true"], check=False, capture_output=True).returncode == 0


# The process chooses its own loop; the test's makes no difference.
@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.skipif(not can_be_alone(), reason="no network namespaces for us here (unshare -rn)")
@pytest.mark.parametrize(
    ("which", "code", "reason"),
    [("client", 4408, "heartbeat_timeout"), ("upstream", 1014, "upstream_lost")],
)
async def test_a_cut_link_is_noticed(tmp_path: Path, which: str, code: int, reason: str) -> None:
    child = await asyncio.create_subprocess_exec(
        *(*ALONE, sys.executable, "-m", "tests.support.cut_link", which, str(tmp_path)),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(child.communicate(), 120)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0, output.decode()
    (closure,) = events(tmp_path / "audit.jsonl", "connection_closed")
    assert (closure["code"], closure["reason"]) == (code, reason)
