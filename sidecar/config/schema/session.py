"""The section `session` of a route, and messages that bring a token."""

from typing import Annotated, Any, ClassVar, Final

from pydantic import PlainValidator, WithJsonSchema

from sidecar.config.schema.base import Model, Pointer, PositiveDuration, setting, word
from sidecar.config.values import BadValueError

__all__ = ["Heartbeat", "MaxWaiting", "MessageSource", "Refresh", "Session", "Warn"]


def _constant(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise BadValueError("is not a single value", "give text, a number, true, false or null")
    return value


_SINGLE: Final = {"type": ["string", "number", "boolean", "null"]}
_When = Annotated[
    dict[Pointer, Annotated[Any, PlainValidator(_constant)]],
    WithJsonSchema(
        {"type": "object", "additionalProperties": _SINGLE, "x-form": "values by pointer"}
    ),
]
_Format = Annotated[str, *word("json")]
_Message = Annotated[Any, WithJsonSchema({"x-form": "message"})]


class MaxWaiting(Model):
    """How many sockets of the route may be without a decision; further ones get a 503. Never more
    than half of `server.max_connections`. Several workers count each for itself.
    """

    per_ip: int = setting(
        100, ge=1, le=10_000_000, description="Of one client; of IPv6 addresses, one /64."
    )
    total: int = setting(1000, ge=1, le=10_000_000, description="Of all clients.")


class MessageSource(Model):
    """The first message on an accepted socket. The upstream is dialled after it."""

    format: _Format = setting("json", description="How messages are written.")
    when: _When = setting({}, description="What the message must say.")
    token: Pointer = setting(description="Where the token stands.")
    timeout: PositiveDuration = setting("30s", description="How long it is waited for.")
    reply: _Message = setting(None, description="What a good token is answered; null is nothing.")
    failure: _Message = setting(
        None, description="What is said before the close otherwise; null is nothing."
    )
    max_waiting: MaxWaiting = setting({}, description="Bounds for clients that bring no token.")


class Warn(Model):
    """A message ahead of the token's exp."""

    before: PositiveDuration = setting("60s", description="How long ahead of exp.")
    message: _Message = setting(description="The message, such as `{type: token_expiring}`.")


class Refresh(Model):
    """A new token on the live connection, of the same user and provider. Never forwarded."""

    format: _Format = setting("json", description="How messages are written.")
    when: _When = setting(min_length=1, description="What tells it from other messages.")
    token: Pointer = setting(description="Where the token stands.")
    reply: _Message = setting(None, description="What a good token is answered; null is nothing.")
    failure: _Message = setting(
        {"type": "refresh_failed", "reason": "{reason}"},
        description="What any other is answered; null is nothing.",
    )


class Heartbeat(Model):
    """Pings of the sidecar's own to the client, which its upstream does not see. The kernel
    asks the upstream as often.
    """

    interval: PositiveDuration = setting(
        "30s", description="How long a client may be silent before it is pinged."
    )
    timeout: PositiveDuration | None = setting(
        None,
        description="How long a sign of life may take then, at most the interval. Default: 10s, or "
        "the interval where that is shorter.",
    )


class Session(Model):
    """What holds while the connection lives."""

    later: ClassVar[frozenset[str]] = frozenset({"lookups"})

    expiry: Annotated[str, *word("close", "ignore")] = setting(
        "close", description="What happens at the token's exp."
    )
    warn: Warn | None = setting(None, description="A message ahead of it.")
    refresh: Refresh | None = setting(
        None, description="Which messages bring a new token for the same user."
    )
    idle_timeout: PositiveDuration | None = setting(
        None, description="The longest time without a frame from the client, pongs not counted."
    )
    heartbeat: Heartbeat | None = setting(None, description="Pings of the sidecar's own.")
    max_lifetime: PositiveDuration | None = setting(
        None, description="The longest life of a connection, whatever its token says."
    )
    revocable: bool = setting(
        True,
        description="Whether revoking the user, token or session ends live connections. New "
        "ones are refused in any case.",
    )
