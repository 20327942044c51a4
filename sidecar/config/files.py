"""Reading small files without ever waiting for one, and telling that one has changed."""

import errno
import os
import stat
from typing import BinaryIO, Final

from sidecar.errors import KeyMaterialError

__all__ = [
    "NotRegularError",
    "Signature",
    "check_pem",
    "fault",
    "open_regular",
    "read_bounded",
    "signature",
]

Signature = tuple[str, int, int, int, int]

_AT_ONCE: Final = os.O_NONBLOCK | os.O_NOCTTY
_MAX_PEM: Final = 16 * 1024 * 1024
"""Bytes of a file for OpenSSL: far more than every public authority's certificate."""


class NotRegularError(OSError):
    """The path leads to a pipe, a socket, a device or a folder."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EINVAL, "is not a regular file", path)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file to read it, at the end of its symlinks. Raises OSError and ValueError.

    What is not a regular file is refused (NotRegularError): a pipe that nobody writes to would
    hold its reader up for ever, and a device may have no end.
    """
    return open(path, "rb", opener=_open_regular)


def _open_regular(path: str, flags: int) -> int:
    try:
        descriptor = os.open(path, flags | _AT_ONCE)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise NotRegularError(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(path)
    return descriptor


def check_pem(path: str) -> None:
    """Look whether a library may be given the path of a file of certificates or a key.

    Raises OSError and ValueError where it cannot be read, is no regular file or is over 16 MiB.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > _MAX_PEM:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)


def fault(error: OSError | ValueError, remedy: str) -> tuple[str, str]:
    """What is wrong with a file that could not be read, and what to do: `remedy`, where it is not
    the wrong kind of file.
    """
    if isinstance(error, NotRegularError):
        return "is not a regular file", "name a file; a pipe, a device or a folder is not read"
    why = getattr(error, "strerror", None) or "not a valid path"
    return f"cannot be read ({why})", remedy


def signature(path: str) -> Signature | None:
    """What differs when the file at `path` is another one than before; None where there is none.

    The resolved path, the inode, the size and the times of change, of the content and of the rest:
    the symlink swap of a mounted Secret or ConfigMap is seen, also on file systems that tell of no
    events, and so are new rights on a file that could not be read.
    """
    try:
        resolved = os.path.realpath(path)
        status = os.stat(resolved)
    except (OSError, ValueError):
        return None
    return resolved, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_bounded(path: str, limit: int) -> bytes:
    """The bytes of a file with keys or a secret, of at most `limit` bytes.

    Raises KeyMaterialError where it cannot be read, is no regular file or is larger; the text names
    the file.
    """
    try:
        with open_regular(path) as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        wrong, remedy = fault(error, "create it, or let the user that runs the sidecar read it")
        raise KeyMaterialError(f"the file {path} {wrong}", remedy) from None
    if len(data) > limit:
        raise KeyMaterialError(
            f"the file {path} is over {limit // 1024} KiB", "name the file that is meant"
        )
    return data
