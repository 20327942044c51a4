"""`ws-sidecar check`: every mistake of a policy at once, without running it."""

import argparse
import os
import sys

from sidecar.cli.arguments import add_policy, policy_paths
from sidecar.config.source import Loaded, load_policy
from sidecar.errors import ConfigError, Problem
from sidecar.policy.sharing import per_worker
from sidecar.wire import implementation
from sidecar.workers.cpus import worker_count

__all__ = ["add_parser", "run"]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command and its arguments."""
    parser = subparsers.add_parser(
        "check",
        help="check a policy",
        description="Check a policy with its secrets, keys and certificates. Each mistake is "
        "printed as file:line:column: key: what is wrong; what would be right.",
    )
    add_policy(parser, positional=True)


def run(args: argparse.Namespace) -> int:
    """Print what is wrong (stderr) and a summary. 0, or 1 for a policy that cannot be used."""
    try:
        loaded = load_policy(policy_paths(args), os.environ, pipes=True)
    except ConfigError as error:
        print(error, file=sys.stderr)
        print(f"not usable: {_count(len(error.problems), 'problem')}", file=sys.stderr)
        return 1
    for warning in loaded.warnings:
        print(_warning(warning), file=sys.stderr)
    workers = worker_count(loaded.policy)
    print(_summary(loaded, workers))
    for held in per_worker(loaded.policy, workers):
        print(f"{held.key}: {held.how}")
    return 0


def _warning(problem: Problem) -> str:
    """In the form of compilers, which editors understand."""
    where = f"{problem.file}:{problem.line}:{problem.column}"
    return f"{where}: warning: {problem.path}: {problem.wrong}; {problem.remedy}"


def _summary(loaded: Loaded, workers: int) -> str:
    policy = loaded.policy
    parts = (
        _count(len(policy.routes), "route"),
        _count(len(policy.tokens.providers), "provider"),
        _count(len(policy.upstreams), "upstream"),
        _count(workers, "worker"),
        _count(len(loaded.warnings), "warning"),
    )
    return f"OK: {', '.join(parts)}; scanner: {implementation()}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
