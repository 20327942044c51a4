"""The section `limits` of a route."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, model_validator

from sidecar.config.schema.base import (
    ByteRate,
    CountRate,
    Model,
    Size,
    setting,
    word,
)

__all__ = ["ByteLimit", "ControlLimit", "Limits", "MessageLimit", "MessageSize"]

_Exceed = Annotated[str, *word("close", "drop", "delay")]
_Per = Annotated[str, *word("connection", later=("user", "ip"))]


class _RateModel(Model):
    short_form: ClassVar[Mapping[str, Any] | None] = {"x-form": "rate", "type": "string"}

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return data if isinstance(data, dict) else {"rate": data}


class MessageSize(Model):
    """The largest reassembled message of each side."""

    client: Size | None = setting("1MiB", description="Of the client; null is no limit.")
    upstream: Size | None = setting(None, description="Of the upstream; null is no limit.")


class MessageLimit(_RateModel):
    """How many messages the client may send; short form: the rate alone."""

    rate: CountRate = setting(description="`100/second`, `60/minute`, `10/hour`.")
    burst: int | None = setting(None, ge=1, description="At once. Default: the rate's count.")
    per: _Per = setting("connection", description="What is counted together.")
    on_exceed: _Exceed = setting("close", description="What happens to a message over it.")


class ByteLimit(_RateModel):
    """How many bytes the client may send; short form: the rate alone."""

    rate: ByteRate = setting(description="`1MiB/second`.")
    burst: Size | None = setting(None, description="At once. Default: the rate's size.")
    per: _Per = setting("connection", description="What is counted together.")
    on_exceed: _Exceed = setting("close", description="What happens to a message over it.")


class ControlLimit(_RateModel):
    """How many pings and pongs the client may send; short form: the rate alone."""

    rate: CountRate = setting(description="`10/second`.")
    burst: int | None = setting(None, ge=1, description="At once. Default: the rate's count.")


def _both_sides(value: Any) -> Any:
    return value if isinstance(value, dict) else {"client": value, "upstream": value}


class Limits(Model):
    """What one connection may send."""

    later: ClassVar[frozenset[str]] = frozenset({"connections", "handshakes", "auth_failures"})

    message_size: Annotated[
        MessageSize,
        BeforeValidator(_both_sides, json_schema_input_type=str | MessageSize | None),
    ] = setting(
        {},
        description="A size for both sides, or {client: …, upstream: …}.",
    )
    frame_size: Size | None = setting(None, description="The largest frame of either side.")
    messages: MessageLimit | None = setting(None, description="The rate of the client's messages.")
    bytes: ByteLimit | None = setting(None, description="The rate of the client's bytes.")
    control_frames: ControlLimit | None = setting(
        "10/second", description="The rate of the client's pings and pongs; null is no limit."
    )
