"""Keeping the policy that is in force the one that its files say, whoever runs by it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Final

import structlog

from sidecar.config.source import Loaded, load_policy
from sidecar.config.watch import PolicyWatcher, named_files
from sidecar.errors import ConfigError, KeyMaterialError, WorkerError

__all__ = ["AGAIN", "POLL", "Reloader"]

POLL: Final = 1.0
"""Seconds between two looks at the files."""

AGAIN: Final = 30.0
"""Seconds after which a policy that could not be taken is tried again: what it names, such as a
mounted secret, may come later than the policy.
"""

_REMEDY: Final = "mend it; the policy of before is in force until then"

_log = structlog.get_logger()


class Reloader:
    """Reads the policy at first, and again when its files change or somebody asks for it.

    `apply` puts a policy in force as a whole; where it raises, the one of before must still be.
    `note` is told of each attempt whether it went well. One attempt is made at a time.
    """

    def __init__(self, paths: Sequence[Path], environ: Mapping[str, str]) -> None:
        self._paths = paths
        self._environ = environ
        self._named: tuple[str, ...] = ()
        self._watcher = PolicyWatcher(paths)
        self._asked = asyncio.Event()

    def load(self) -> Loaded:
        """Read the policy. Raises ConfigError."""
        # What is looked at before anything is read is not missed when it changes meanwhile.
        self._watcher = PolicyWatcher(self._paths)
        self._watcher.follow(self._named)
        loaded = load_policy(self._paths, self._environ)
        self._follow((*self._named, *named_files(loaded.policy)))
        return loaded

    def ask(self) -> None:
        """Have the policy read again, changed or not; once more where that is being done."""
        self._asked.set()

    async def asked(self) -> None:
        """Wait until somebody asks."""
        await self._asked.wait()
        self._asked.clear()

    async def run(
        self, apply: Callable[[Loaded], Awaitable[int]], note: Callable[[bool], None]
    ) -> None:
        """Look at the files each second, for ever. `apply` puts a policy in force, and tells how
        many live connections there are to be judged by it.
        """
        now, again = asyncio.get_running_loop().time, inf
        while True:
            asked = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL):
                    await self.asked()
                asked = True
            changed = await asyncio.to_thread(self._watcher.changed)
            if asked or changed or now() >= again:
                taken = await self._reload(apply)
                note(taken)
                again = inf if taken else now() + AGAIN

    async def _reload(self, apply: Callable[[Loaded], Awaitable[int]]) -> bool:
        """Read the policy and put it in force; whether that went well. Says so in the log."""
        try:
            loaded = await asyncio.to_thread(self.load)
            live = await apply(loaded)
        except ConfigError as error:
            for problem in error.problems:
                _log.error("policy_problem", problem=str(problem))
            _failed("the policy cannot be used")
        except (KeyMaterialError, WorkerError, OSError) as error:
            _failed(str(error))
        except Exception as error:  # whatever it is, the next change must still be seen
            _failed("internal error", exc_info=error)
        else:
            self._follow(named_files(loaded.policy))
            for warning in loaded.warnings:
                _log.warning("policy_warning", problem=str(warning))
            _log.info("policy_reloaded", connections=live, then="they are judged by it")
            return True
        return False

    def _follow(self, named: Sequence[str]) -> None:
        self._named = tuple(dict.fromkeys(named))
        self._watcher.follow(self._named)


def _failed(why: str, **more: Exception) -> None:
    _log.error("policy_reload_failed", error=why, remedy=_REMEDY, **more)
