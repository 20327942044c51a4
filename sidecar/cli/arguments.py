"""The argument that every command has: where the policy is."""

import argparse
from collections.abc import Sequence
from pathlib import Path

__all__ = ["add_policy", "policy_paths"]

_HELP = "a policy file, or a folder with *.yaml files; several make one policy"


def add_policy(parser: argparse.ArgumentParser, *, positional: bool) -> None:
    """Let the command take the policy as `--config PATH` (`-c`), as often as there are paths, or,
    with `positional`, as `PATH…`. One of them must be there; `policy_paths` gives what was.

    A command that requires other options cannot have it both ways: before Python 3.12.7 argparse
    does not find an optional positional behind an option.
    """
    either = parser.add_mutually_exclusive_group(required=True)
    either.add_argument("--config", "-c", action="append", type=Path, metavar="PATH", help=_HELP)
    if positional:
        either.add_argument("paths", nargs="*", default=[], type=Path, metavar="PATH", help=_HELP)


def policy_paths(args: argparse.Namespace) -> Sequence[Path]:
    """The paths that were given."""
    paths: Sequence[Path] = args.config or args.paths
    return paths
