"""Socket options and process limits that long-lived connections need."""

import asyncio
import contextlib
import fcntl
import functools
import resource
import select
import socket
import sys
import termios
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Final

from sidecar.policy.session import Heartbeat

__all__ = [
    "files_for",
    "half_close",
    "has_hung_up",
    "keep_alive",
    "probe",
    "raise_file_limit",
    "unsent",
]

_PROBES: Final = 3
_MOST_SECONDS: Final = 32767
_MOST_MILLIS: Final = 2**31 - 1

_SPARE_FILES: Final = 256
"""Descriptors beside the connections': listeners, the sockets that are told of an overload, the
admin listener's, key fetches, logs, the loop's own.
"""


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """Let the kernel notice a peer that is gone."""
    _set(transport, socket.SOL_SOCKET, [(socket.SO_KEEPALIVE, 1)])


def probe(transport: asyncio.BaseTransport, heartbeat: Heartbeat | None) -> None:
    """Let the kernel notice that about as soon as a heartbeat would; without one (any more), as it
    does by itself.

    A peer whose kernel takes nothing more for so long, since it reads nothing, is gone too then.
    """
    options = list(_probing(heartbeat)) if heartbeat else _as_usual()
    _set(transport, socket.IPPROTO_TCP, options)


def _set(transport: asyncio.BaseTransport, level: int, options: Sequence[tuple[int, int]]) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            for option, value in options:
                sock.setsockopt(level, option, value)


def _probing(heartbeat: Heartbeat) -> Iterator[tuple[int, int]]:
    """The kernel's options, where it has them. It counts whole seconds, up to 32,767."""
    together = heartbeat.interval + heartbeat.timeout
    values = {
        "TCP_KEEPIDLE": min(ceil(heartbeat.interval), _MOST_SECONDS),
        "TCP_KEEPINTVL": min(ceil(heartbeat.timeout / _PROBES), _MOST_SECONDS),
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": min(ceil(together * 1000), _MOST_MILLIS),
    }
    for name, value in values.items():
        option = getattr(socket, name, None)
        if option is not None:
            yield option, value


@functools.cache
def _as_usual() -> Sequence[tuple[int, int]]:
    """The same options as the system sets them for a new socket."""
    names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
    options = [getattr(socket, name) for name in names if hasattr(socket, name)]
    with socket.socket() as fresh:
        return [(option, fresh.getsockopt(socket.IPPROTO_TCP, option)) for option in options]


def half_close(transport: asyncio.WriteTransport) -> None:
    """Tell the peer that nothing more will come, where the transport can (TLS cannot)."""
    if transport.can_write_eof():
        with contextlib.suppress(OSError):  # the peer has reset the connection just now
            transport.write_eof()


def has_hung_up(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has reset the connection, which shows only in reading unless one asks."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def unsent(transport: asyncio.WriteTransport) -> int:
    """Bytes that were written and that the peer's kernel has not confirmed, as far as it is known.

    Of a socket that is encrypted these are the encrypted ones.
    """
    size = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        with contextlib.suppress(OSError):
            queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
            size += int.from_bytes(queued, sys.byteorder)
    return size


def files_for(connections: int) -> int:
    """How many open files so many connections need: two for each, and one for each socket that
    waits for its handshake, of which there may be as many.
    """
    return 3 * connections + _SPARE_FILES


def raise_file_limit(connections: int) -> tuple[int, int]:
    """Raise the soft limit of open files as far as `connections` need.

    Returns how many connections the limit then allows, at most `connections`, and how many sockets
    may wait for their handshake beside them. Where there are too few files for as many, at least
    a ninth of them stay for those that wait.
    """
    wanted = files_for(connections)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections, connections
    files = soft - _SPARE_FILES
    allowed = max(1, min(connections, files * 4 // 9))
    return allowed, max(0, files - 2 * allowed)
