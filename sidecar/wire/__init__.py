"""WebSocket on the wire (RFC 6455): bytes and headers, no policy, no identity, no I/O."""

from inspect import isfunction
from typing import Literal

from sidecar.wire.scanner import FrameScanner

__all__ = ["implementation"]


def implementation() -> Literal["compiled", "python"]:
    """How the scanner runs: compiled, or as Python where it was installed without a C compiler."""
    return "python" if isfunction(FrameScanner.feed) else "compiled"
