"""The section `authorize` of a route: rules on the claims."""

from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema, model_validator

from sidecar.config.schema.base import (
    Model,
    OwnReason,
    Text,
    exactly_one,
    setting,
)
from sidecar.config.values import BadValueError

__all__ = ["CONDITIONS", "Rule"]

CONDITIONS = ("equals", "in", "contains", "matches", "exists")


def _scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise BadValueError(
            "is not a single value", 'give text, a number, true, false or null; quote "{path.room}"'
        )
    return value


Scalar = Annotated[
    Any,
    PlainValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
]


class Rule(Model):
    """A claim with its conditions, or a CEL expression."""

    claim: Text | None = setting(None, description="A claim's name, or a JSON pointer.")
    equals: Scalar = setting(
        None,
        description="The same type and value; text may be a template over what `cel` reads.",
    )
    in_: list[Scalar] | None = setting(
        None, alias="in", min_length=1, description="Equal to one of these."
    )
    contains: Scalar = setting(
        None, description="The claim is a list with this element, or a text with this word."
    )
    matches: Text | None = setting(
        None, description="A regular expression for the whole text, in linear time."
    )
    exists: bool | None = setting(None, description="Whether the claim is there and not null.")
    cel: Text | None = setting(
        None,
        description="A CEL expression over `claims`, `user` (a text, empty for an anonymous "
        "client), `path` (the route's captures), `request` (`path`, `host`, `origin`, `address`, "
        "`secure`, and `headers` by lower-case name, without credentials) and `session` "
        "(`provider`, `token_id`, `anonymous`, `expires_at` in seconds since 1970).",
    )
    reason: OwnReason | None = setting(None, description="The public reason where it fails.")
    shadow: bool = setting(False, description="true: logged and counted, not enforced.")

    @property
    def conditions(self) -> frozenset[str]:
        """The conditions that are given, null included for `equals` and `contains`."""
        given = {"in" if name == "in_" else name for name in self.model_fields_set}
        return frozenset(given.intersection(CONDITIONS))

    @model_validator(mode="after")
    def _one_kind(self) -> "Rule":
        kind = exactly_one(self, ("claim", "cel"))
        if kind == "claim" and not self.conditions:
            raise BadValueError("has no condition", f"add one of {', '.join(CONDITIONS)}")
        if kind == "cel" and self.conditions:
            raise BadValueError("a CEL rule takes no condition", "write it into the expression")
        return self
