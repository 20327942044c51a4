"""Compiles the C programs of this folder when they are older than their sources."""

import shutil
import subprocess
from pathlib import Path
from typing import Final

__all__ = ["PROGRAMS", "build"]

PROGRAMS: Final = ("echo", "relay", "loadgen")
_FLAGS: Final = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")


def build(folder: Path) -> None:
    """Put the programs into `folder`. Raises SystemExit where there is no compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    folder.mkdir(parents=True, exist_ok=True)
    header = Path(__file__).with_name("server.h")
    for name in PROGRAMS:
        source = Path(__file__).with_name(f"{name}.c")
        program = folder / name
        changed = max(source.stat().st_mtime, header.stat().st_mtime)
        if program.exists() and program.stat().st_mtime >= changed:
            continue
        if compiler is None:
            raise SystemExit("a C compiler is needed: cc, gcc or clang")
        subprocess.run([compiler, *_FLAGS, "-o", program, source], check=True)  # noqa: S603
