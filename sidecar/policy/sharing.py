"""What a policy means where several processes share the work: each one's part of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from sidecar.policy.compiled import Policy

__all__ = ["Held", "per_worker", "share"]


@dataclass(frozen=True, slots=True)
class Held:
    """What of a limit holds in each worker: the policy's key, and what is to be known."""

    key: str
    how: str


def share(policy: Policy, workers: int) -> Policy:
    """The policy of one of so many workers: without the admin listener, which is the parent's,
    and with its part of what counts across connections (rounded up).
    """
    connections = -(-policy.server.max_connections // workers)
    return replace(policy, admin=None, server=replace(policy.server, max_connections=connections))


def per_worker(policy: Policy, workers: int) -> tuple[Held, ...]:
    """The limits of the policy that count across connections, and are kept by each of several
    workers for its own connections.
    """
    if workers == 1:
        return ()
    found = ((key, tell(policy, workers)) for key, tell in _ACROSS_CONNECTIONS)
    return tuple(Held(key, how) for key, how in found if how is not None)


def _max_connections(policy: Policy, workers: int) -> str:
    part = share(policy, workers).server.max_connections
    return f"each of {workers} workers takes {part} of {policy.server.max_connections}"


def _max_waiting(policy: Policy, workers: int) -> str | None:
    if not any(route.authenticate.message for route in policy.routes):
        return None
    return f"each of {workers} workers counts its own; in all, {workers} times as many may wait"


_Tell = Callable[[Policy, int], str | None]
"""How a limit holds with so many workers; None where the policy does not ask for it."""

_ACROSS_CONNECTIONS: Final[tuple[tuple[str, _Tell], ...]] = (
    ("server.max_connections", _max_connections),
    ("authenticate.sources.message.max_waiting", _max_waiting),
)
