"""The demonstration runs, shows what it promises, and leaves nothing behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parent.parent / "examples" / "demo.py"

REFUSED = {
    "no token": "401 token_missing",
    "an expired token": "401 token_expired",
    "another web page": "403 origin_denied",
    "a message of 100 kB": "closed with 1009 message_too_big",
}


def demonstrated(*arguments: str) -> tuple[int, str]:
    """The demonstration in a process group of its own: its exit code and what it showed."""
    process = subprocess.Popen(
        [sys.executable, str(DEMO), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=60)
        with pytest.raises(ProcessLookupError):  # nobody is left in the group
            os.killpg(process.pid, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def test_the_demonstration_lets_one_in_and_refuses_four() -> None:
    code, shown = demonstrated("--once")
    assert code == 0, shown
    assert "(and a forged X-User-Id: root):  let in" in shown
    assert "X-User-Id: alice" in shown
    assert "X-User-Roles: member,editor" in shown
    assert "the room hears: hello from alice" in shown
    for what, outcome in REFUSED.items():
        assert re.search(rf"{what}: +{outcome}", shown), shown
    assert "eyJ" not in shown
