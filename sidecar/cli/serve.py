"""`ws-sidecar serve`: run the sidecar until SIGTERM or SIGINT, then drain."""

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

import structlog

from sidecar.cli.arguments import add_policy, policy_paths
from sidecar.config.source import load_policy
from sidecar.errors import ConfigError, KeyMaterialError
from sidecar.observe import logs
from sidecar.policy.compiled import Policy
from sidecar.proxy.app import Sidecar

__all__ = ["add_parser", "run"]

_GC_THRESHOLDS: Final = (10_000, 20, 50)

_log = structlog.get_logger()


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the program's."""
    parser = subparsers.add_parser("serve", help="run the sidecar")
    add_policy(parser, positional=True)


def run(args: argparse.Namespace) -> int:
    """Serve. 0 after a drain, 1 where the policy or the machine does not allow it."""
    try:
        loaded = load_policy(policy_paths(args), os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    logs.configure(loaded.policy.logging)
    for warning in loaded.warnings:
        _log.warning("policy_warning", problem=str(warning))
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(_serve(loaded.policy))


async def _serve(policy: Policy) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _refuse_to_reload)
    try:
        sidecar = Sidecar(policy, os.environ)
    except (ConfigError, OSError) as error:
        _log.error("start_failed", error=str(error))
        return 1
    try:
        await sidecar.start()
    except (KeyMaterialError, OSError) as error:
        _log.error("start_failed", error=str(error))
        await sidecar.close()
        return 1
    _settle_memory()
    await stop.wait()
    sidecar.drain()
    await sidecar.drained()
    await sidecar.close()
    _log.info("stopped")
    return 0


def _settle_memory() -> None:
    """What is there now stays: the garbage collector need not look at it again, nor as often at
    the rest, of which next to nothing is in cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def _refuse_to_reload() -> None:
    """SIGHUP asks many a server to read its files again; unhandled, it would end the process."""
    _log.warning("policy_not_reloaded", remedy="restart to take a changed policy")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on Windows
        return None
    return uvloop.new_event_loop
