"""What a run was made on: the machine and the versions."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Final

from benchmarks.peers import Peer, cores

__all__ = ["machine"]

_VERSION_FLAGS: Final = {"nginx": "-v", "haproxy": "-v", "envoy": "--version"}


def machine(peers: list[Peer]) -> dict[str, str]:
    """Names and values for people."""
    proxy, load = cores()
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "cores": f"proxy on {_list(proxy)}, load and upstream on {_list(load)}",
        **{peer.title: _version(peer) for peer in peers if peer.name in _VERSION_FLAGS},
    }


def _list(numbers: set[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(peer: Peer) -> str:
    argv = [peer.program() or "", _VERSION_FLAGS[peer.name]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)  # noqa: S603
    found = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return found[0] if found else "unknown"
