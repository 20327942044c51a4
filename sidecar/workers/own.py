"""What the parent goes by itself of a policy: the admin listener, the audit log, its figures."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

import structlog

from sidecar.admin.app import Wiring
from sidecar.observe import logs
from sidecar.observe.audit import AuditLog
from sidecar.observe.metrics import Metrics
from sidecar.policy.compiled import Address, Policy
from sidecar.proxy.admin_side import AdminSide
from sidecar.proxy.prepared import Prepared
from sidecar.proxy.starting import RESTART

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
        self._audit = audit
        self._metrics = metrics
        self._admin = AdminSide(wiring, environ)

    @property
    def admin(self) -> Address | None:
        """Where the admin listener is bound."""
        return self._admin.address

    async def open(self) -> None:
        """Open the admin listener. Raises OSError."""
        await self._admin.open(self.policy.admin)

    async def prepare(self, policy: Policy) -> Prepared:
        """Do all that can fail of a change to this policy. Raises ConfigError, KeyMaterialError and
        OSError, and leaves nothing.
        """
        async with AsyncExitStack() as opened:
            sink = self._audit.sink_for(policy.logging)
            opened.callback(self._audit.close_unused, sink)
            take_admin = await self._admin.prepare(policy.admin, opened)

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
        await self._admin.settle()

    async def close(self) -> None:
        """Close the admin listener and the audit log."""
        await self._admin.close()
        self._audit.close()


def _follow(before: Policy, policy: Policy) -> None:
    logs.follow(before.logging, policy.logging)
    if before.server.workers != policy.server.workers:
        _log.warning("restart_needed", key="server.workers", remedy=RESTART)
    if before.server.listen != policy.server.listen:
        remedy = "restart: several workers keep the addresses that they were started with"
        _log.warning("restart_needed", key="server.listen", remedy=remedy)
