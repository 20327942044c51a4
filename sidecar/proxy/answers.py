"""Messages of the sidecar's own to a client, filled in and ready to be sent."""

from uuid import uuid4

from sidecar.model import Identity
from sidecar.policy.replies import Facts, Reply
from sidecar.wire.frames import text_frame

__all__ = ["answer_frame"]


def answer_frame(
    reply: Reply, identity: Identity | None, now: float, reason: str | None = None
) -> bytes:
    """The reply as one frame. `now` is in seconds since the epoch, `reason` the public name of what
    went wrong.
    """
    return text_frame(reply.render(Facts(identity, now, str(uuid4()), reason)))
