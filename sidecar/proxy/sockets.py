"""Socket options and process limits that long-lived connections need."""

import asyncio
import contextlib
import resource
import socket
from typing import Final

__all__ = ["half_close", "keep_alive", "raise_file_limit"]

_SPARE_FILES: Final = 128
"""Descriptors beside the connections': listeners, key fetches, logs, the loop's own."""


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Let the kernel notice a peer that is gone."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def half_close(transport: asyncio.WriteTransport) -> None:
    """Tell the peer that nothing more will come, where the transport can (TLS cannot)."""
    if transport.can_write_eof():
        with contextlib.suppress(OSError):  # the peer has reset the connection just now
            transport.write_eof()


def raise_file_limit(connections: int) -> int:
    """Raise the soft limit of open files as far as `connections` need, two for each.

    Returns how many connections the limit then allows, at most `connections`.
    """
    wanted = 2 * connections + _SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return connections
    return min(connections, (soft - _SPARE_FILES) // 2)
