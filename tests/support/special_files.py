"""What a path may lead to besides a regular file."""

import os
import socket
from pathlib import Path
from typing import Final

__all__ = ["KINDS", "special_file"]

KINDS: Final = ("pipe", "socket", "device", "folder", "link to a pipe")


def special_file(folder: Path, kind: str, name: str = "special") -> Path:
    """The path of such a thing in the folder, in the place of whatever was there."""
    path = folder / name
    path.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as bound:
                bound.bind(str(path))
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case _:
            os.mkfifo(folder / "pipe")
            path.symlink_to("pipe")
    return path
