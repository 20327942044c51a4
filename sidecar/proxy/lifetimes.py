"""When a connection's time is over. Asked of each of them now and then; none has a timer."""

from sidecar.model import Reason
from sidecar.policy.session import Expiry
from sidecar.proxy.relay import Link

__all__ = ["overdue"]


def overdue(link: Link, *, time: float, monotonic: float, leeway: float) -> Reason | None:
    """Why a connection has to end at this moment: its token's exp (with `leeway`, in seconds, of
    the time of day) or its longest life (of the steady time); None where it may go on.
    """
    session = link.session
    if session.max_lifetime is not None and monotonic - link.opened >= session.max_lifetime:
        return Reason.SESSION_LIFETIME
    if session.expiry is Expiry.CLOSE and link.expires_at is not None:
        return Reason.TOKEN_EXPIRED if time >= link.expires_at + leeway else None
    return None
