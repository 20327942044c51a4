"""The command line: `ws-sidecar serve|check|token`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from sidecar import __version__
from sidecar.cli import check, serve, token

__all__ = ["main"]


class _Command(Protocol):
    """A module of this package that is a command."""

    def add_parser(
        self, subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]"
    ) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


_COMMANDS: Final[Mapping[str, _Command]] = {"serve": serve, "check": check, "token": token}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` (default: the process's) names; its exit code."""
    parser = argparse.ArgumentParser(
        prog="ws-sidecar", description="Authentication in front of WebSocket servers."
    )
    parser.add_argument("--version", action="version", version=f"ws-sidecar {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS.values():
        command.add_parser(subparsers)
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    return _COMMANDS[args.command].run(args)
