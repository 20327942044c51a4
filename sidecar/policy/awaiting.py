"""Handshakes whose token comes in the first message."""

from typing import Final

from sidecar.model import Denial, Reason
from sidecar.policy.compiled import Policy
from sidecar.policy.credentials import SourceKind, from_message
from sidecar.policy.decide import Preflight, Refusal, preflight

__all__ = ["preflight_again", "with_token", "without_cookie"]

_BAD_TOKEN: Final = frozenset({Reason.TOKEN_INVALID, Reason.TOKEN_EXPIRED, Reason.TOKEN_REVOKED})


def with_token(admitted: Preflight, token: str) -> Preflight:
    """The same handshake with the token that its first message brought."""
    credential = from_message(admitted.credential, token)
    return admitted._replace(credential=credential, awaits_message=None)


def without_cookie(admitted: Preflight, denial: Denial) -> Preflight | None:
    """The handshake as one that brought no token, where the token that was denied came from a
    cookie and the route takes one from the first message; else None.

    A browser sends its cookies unasked, a stale one too, and a page could not log in any more.
    """
    return _awaiting(admitted) if denial.reason in _BAD_TOKEN else None


def preflight_again(policy: Policy, waiting: Preflight) -> Preflight | Refusal:
    """A handshake that waits for its first message, judged by another policy than it began with:
    what `preflight` says, and no_route where the route takes no first message any more.
    """
    again = preflight(policy, waiting.handshake, waiting.peer)
    if isinstance(again, Refusal):
        return again
    bare = again if again.awaits_message is not None else _awaiting(again)
    if bare is None:
        return Refusal(Denial(Reason.NO_ROUTE, "it takes no first message any more"), again.route)
    return bare


def _awaiting(admitted: Preflight) -> Preflight | None:
    """The handshake without the token of its cookie; None where it can wait for no other."""
    message, credential = admitted.route.authenticate.message, admitted.credential
    if message is None or credential.source is not SourceKind.COOKIE:
        return None
    bare = credential._replace(token=None, source=None)
    return admitted._replace(credential=bare, awaits_message=message)
