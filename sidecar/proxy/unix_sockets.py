"""The files of Unix sockets: made only where nobody listens, removed only by who has made them."""

import contextlib
import errno
import os
import socket
import stat
from typing import NamedTuple

__all__ = ["SocketFile", "bind_unix"]


class SocketFile(NamedTuple):
    """The file of a bound Unix socket."""

    path: str
    device: int
    inode: int

    @classmethod
    def of(cls, sock: socket.socket) -> "SocketFile":
        """The file that a socket has just been bound to. Raises OSError."""
        path = sock.getsockname()
        found = os.stat(path)
        return cls(path, found.st_dev, found.st_ino)

    def remove(self) -> None:
        """Remove it, unless another program's has taken its place."""
        with contextlib.suppress(OSError):
            found = os.stat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)


def bind_unix(path: str) -> socket.socket:
    """A socket bound to this path, in the place of one that was left behind by a process that was
    killed. Raises OSError, EADDRINUSE where a program listens there.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            _make_sure_that_nobody_listens(path)
            os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(path)
    except OSError:
        sock.close()
        raise
    return sock


def _make_sure_that_nobody_listens(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full backlog is a listener's too
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
