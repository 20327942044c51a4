"""What the parent goes by itself of a policy: the admin listener, the audit log, its figures."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial

import structlog

from sidecar.admin.app import Wiring
from sidecar.admin.listener import AdminListener
from sidecar.observe import logs
from sidecar.observe.audit import AuditLog
from sidecar.observe.metrics import Metrics
from sidecar.policy.compiled import Address, Admin, Policy
from sidecar.proxy.prepared import Prepared
from sidecar.proxy.starting import open_admin

__all__ = ["Own"]

_log = structlog.get_logger()


class Own:
    """The parent's part of the policy in force, from `open` to `close`. `wiring` is what the admin
    listener works with.
    """

    def __init__(
        self,
        policy: Policy,
        environ: Mapping[str, str],
        audit: AuditLog,
        metrics: Metrics,
        wiring: Callable[[], Wiring],
    ) -> None:
        self.policy = policy
        self._environ = environ
        self._audit = audit
        self._metrics = metrics
        self._wiring = wiring
        self._admin: AdminListener | None = None
        self._left: list[AdminListener] = []

    @property
    def admin(self) -> Address | None:
        """Where the admin listener is bound."""
        return self._admin.address if self._admin else None

    async def open(self) -> None:
        """Open the admin listener. Raises OSError."""
        self._admin = await open_admin(self.policy.admin, self._wiring(), self._environ)

    async def prepare(self, policy: Policy) -> Prepared:
        """Do all that can fail of a change to this policy. Raises ConfigError, KeyMaterialError and
        OSError, and leaves nothing.
        """
        async with AsyncExitStack() as opened:
            sink = self._audit.sink_for(policy.logging)
            opened.callback(self._audit.close_unused, sink)
            take_admin = await self._prepare_admin(policy.admin, opened)

            def commit() -> None:
                before, self.policy = self.policy, policy
                self._audit.follow(policy.logging, sink)
                self._metrics.follow(policy)
                take_admin()
                _follow(before, policy)

            kept = opened.pop_all()
        return Prepared(commit, kept)

    async def settle(self) -> None:
        """Close what a change has left behind."""
        while self._left:
            await self._left.pop().close()

    async def close(self) -> None:
        """Close the admin listener and the audit log."""
        await self.settle()
        if self._admin is not None:
            await self._admin.close()
        self._audit.close()

    async def _prepare_admin(
        self, admin: Admin | None, opened: AsyncExitStack
    ) -> Callable[[], None]:
        """What changes over to these settings of the admin listener."""
        current = self._admin
        if admin is not None and current is not None and current.asked_for == admin.listen:
            return partial(current.adopt, current.guard_for(admin))
        fresh = await open_admin(admin, self._wiring(), self._environ)
        if fresh is not None:
            opened.push_async_callback(fresh.close)

        def take() -> None:
            self._admin = fresh
            if current is not None:
                self._left.append(current)

        return take


def _follow(before: Policy, policy: Policy) -> None:
    old, new = before.logging, policy.logging
    if (old.format, old.level) != (new.format, new.level):
        logs.configure(new)
    if before.server.listen != policy.server.listen:
        remedy = "restart: several workers keep the addresses that they were started with"
        _log.warning("restart_needed", key="server.listen", remedy=remedy)
