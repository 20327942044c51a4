"""`ws-sidecar serve`: run the sidecar until SIGTERM, SIGINT or POST /drain, then drain; another
signal hurries.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

import structlog

from sidecar.cli.arguments import add_policy, policy_paths
from sidecar.config.source import Loaded
from sidecar.errors import ConfigError, KeyMaterialError, WorkerError
from sidecar.observe import logs
from sidecar.proxy.app import Sidecar
from sidecar.proxy.reloading import Reloader
from sidecar.proxy.tasks import first_of
from sidecar.workers.cpus import worker_count
from sidecar.workers.runtime import loop_factory, settle_memory
from sidecar.workers.supervisor import Supervisor

__all__ = ["add_parser", "run"]

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)

_log = structlog.get_logger()


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser("serve", help="run the sidecar")
    add_policy(parser, positional=True)


def run(args: argparse.Namespace) -> int:
    """Serve. 0 after a drain, 1 where the policy or the machine does not allow it."""
    reloader = Reloader(policy_paths(args), os.environ)
    try:
        loaded = reloader.load()
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    logs.configure(loaded.policy.logging)
    for warning in loaded.warnings:
        _log.warning("policy_warning", problem=str(warning))
    workers = worker_count(loaded.policy)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_serve(lambda: _program(loaded, workers), reloader))


_Program = Sidecar | Supervisor
"""One process, or the parent of several."""


def _program(loaded: Loaded, workers: int) -> _Program:
    if workers > 1:
        return Supervisor(loaded, os.environ, workers)
    return Sidecar(loaded.policy, os.environ)


async def _serve(make: Callable[[], _Program], reloader: Reloader) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _ENDING:
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reloader.ask)
    try:
        program = make()
    except (ConfigError, OSError) as error:
        _log.error("start_failed", error=str(error))
        return 1
    try:
        await program.start()
    except (KeyMaterialError, WorkerError, OSError) as error:
        _log.error("start_failed", error=str(error))
        await program.close()
        return 1
    settle_memory()
    following = asyncio.create_task(_follow_policy(program, reloader))
    await first_of(stop.wait(), program.drain_begun())
    program.drain()
    for number in _ENDING:
        loop.add_signal_handler(number, program.hurry)
    following.cancel()
    await asyncio.wait({following})
    await program.drained()
    await program.close()
    _log.info("stopped")
    return 0


async def _follow_policy(program: _Program, reloader: Reloader) -> None:
    if isinstance(program, Sidecar):
        await reloader.run(
            lambda loaded: program.take(loaded.policy), program.metrics.policy_reload
        )
    else:
        await reloader.run(program.reload, program.note_reload)
