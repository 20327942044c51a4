"""What a start has in common, of one process and of several under a parent."""

from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from sidecar import __version__
from sidecar.admin.app import Wiring
from sidecar.admin.listener import AdminListener
from sidecar.policy.compiled import Address, Admin
from sidecar.proxy.listeners import ADMIN, naming
from sidecar.wire import implementation

__all__ = ["RESTART", "log_start", "open_admin"]

RESTART: Final = "restart to take it; everything else of the policy is in force"
"""What to do about a key that cannot change while the program runs."""

_log = structlog.get_logger()


async def open_admin(
    admin: Admin | None, wiring: Wiring, environ: Mapping[str, str]
) -> AdminListener | None:
    """The admin listener that a policy asks for, listening. Raises OSError, and leaves nothing."""
    if admin is None:
        return None
    listener = AdminListener(admin, wiring, environ)
    try:
        with naming(admin.listen, ADMIN):
            await listener.open()
    except BaseException:
        await listener.close()
        raise
    return listener


def log_start(public: Sequence[Address], admin: Address | None, **more: object) -> None:
    """Say that the program has started, and where it listens."""
    _log.info(
        "started",
        version=__version__,
        scanner=implementation(),
        listen=[str(address) for address in public],
        admin=str(admin) if admin else None,
        **more,
    )
