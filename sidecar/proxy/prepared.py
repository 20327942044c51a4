"""A policy that is ready to take the place of the one in force."""

from collections.abc import Callable
from contextlib import AsyncExitStack

__all__ = ["Prepared"]


class Prepared:
    """All that can fail has been done, and nothing has changed. Either `commit` or `discard` is to
    be called, once, before another policy is prepared.
    """

    def __init__(self, commit: Callable[[], None], opened: AsyncExitStack) -> None:
        self._commit = commit
        self._opened = opened

    def commit(self) -> None:
        """Put the policy in force at once. Cannot fail."""
        self._opened.pop_all()
        self._commit()

    async def discard(self) -> None:
        """Let go of what was opened for it."""
        await self._opened.aclose()
