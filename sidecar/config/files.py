"""Reading small files, and telling that one has changed."""

import os
from pathlib import Path

from sidecar.errors import KeyMaterialError

__all__ = ["Signature", "read_bounded", "signature"]

Signature = tuple[str, int, int, int, int]


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

    Raises KeyMaterialError where it cannot be read or is larger; the text names the file.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a valid path"
        raise KeyMaterialError(
            f"the file {path} cannot be read ({why})",
            "create it, or let the user that runs the sidecar read it",
        ) from None
    if len(data) > limit:
        raise KeyMaterialError(
            f"the file {path} is over {limit // 1024} KiB", "name the file that is meant"
        )
    return data
