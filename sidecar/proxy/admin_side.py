"""The admin side: its listener, which changes with the policy."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial

from sidecar.admin.app import Wiring
from sidecar.admin.listener import AdminListener
from sidecar.policy.compiled import Address, Admin
from sidecar.proxy.starting import open_admin

__all__ = ["AdminSide"]


class AdminSide:
    """The admin listener, where the policy asks for one. `wiring` is what its endpoints call."""

    def __init__(self, wiring: Callable[[], Wiring], environ: Mapping[str, str]) -> None:
        self._wiring = wiring
        self._environ = environ
        self._listener: AdminListener | None = None
        self._left: list[AdminListener] = []

    @property
    def address(self) -> Address | None:
        """Where it is bound."""
        return self._listener.address if self._listener else None

    async def open(self, admin: Admin | None) -> None:
        """Listen where these settings say. Raises OSError, and leaves nothing."""
        self._listener = await open_admin(admin, self._wiring(), self._environ)

    async def prepare(self, admin: Admin | None, opened: AsyncExitStack) -> Callable[[], None]:
        """What changes over to these settings; what is listened on for it is closed with `opened`.
        Raises OSError and KeyMaterialError.
        """
        current = self._listener
        if admin is not None and current is not None and current.asked_for == admin.listen:
            return partial(current.adopt, current.guard_for(admin))
        fresh = await open_admin(admin, self._wiring(), self._environ)
        if fresh is not None:
            opened.push_async_callback(fresh.close)

        def take() -> None:
            self._listener = fresh
            if current is not None:
                self._left.append(current)

        return take

    async def settle(self) -> None:
        """Close what a change has left behind."""
        while self._left:
            await self._left.pop().close()

    async def close(self) -> None:
        """Stop listening."""
        await self.settle()
        if self._listener is not None:
            await self._listener.close()
