"""Telling that a file has changed."""

import os

__all__ = ["Signature", "signature"]

Signature = tuple[str, int, int, int]


def signature(path: str) -> Signature | None:
    """What differs when the file at `path` is another one than before; None where there is none.

    The resolved path, the inode, the size and the time of change: the symlink swap of a mounted
    Secret or ConfigMap is seen, also on file systems that tell of no events.
    """
    try:
        resolved = os.path.realpath(path)
        status = os.stat(resolved)
    except (OSError, ValueError):
        return None
    return resolved, status.st_ino, status.st_size, status.st_mtime_ns
