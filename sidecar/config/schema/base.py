"""What the sections of the schema have in common: the strict base and the types of values."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from sidecar.config import values
from sidecar.config.values import BadValueError, RateValue
from sidecar.policy.compiled import Address
from sidecar.policy.peers import Network
from sidecar.policy.pointers import ClaimPath
from sidecar.policy.providers import SecretRef

__all__ = [
    "AddressText",
    "ByteRate",
    "CloseCodeNumber",
    "CountRate",
    "Duration",
    "HeaderName",
    "Model",
    "Name",
    "NetworkText",
    "OwnReason",
    "Pointer",
    "PositiveDuration",
    "Secret",
    "Size",
    "Text",
    "WorkerCount",
    "exactly_one",
    "setting",
    "word",
]


class Model(BaseModel):
    """A mapping of the policy: exact types, no unknown keys.

    `later` names keys of the reference that this version does not support yet. `short_form` is
    the JSON Schema of what may stand instead of the mapping.
    """

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True
    )
    later: ClassVar[frozenset[str]] = frozenset()
    short_form: ClassVar[Mapping[str, Any] | None] = None

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema with the short form, and with the names that are not supported yet."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        if cls.later:
            schema["x-not-supported-yet"] = sorted(cls.later)
        if cls.short_form is not None:
            mapping = dict(schema)
            schema.clear()
            schema["anyOf"] = [dict(cls.short_form), mapping]
        return reference


def setting(default: Any = ..., **settings: Any) -> Any:
    """A key of the policy with its default, written as one would write it in YAML."""
    return Field(default, **settings)


def _parsed(parse: Callable[[object], Any], form: str, **schema: Any) -> tuple[Any, Any]:
    return PlainValidator(parse), WithJsonSchema({"x-form": form, **schema})


def word(*known: str, later: tuple[str, ...] = ()) -> tuple[Any, Any]:
    """The annotations of a word of a closed set."""
    return _parsed(
        values.choice(*known, later=later), " | ".join(known), type="string", enum=list(known)
    )


Text = Annotated[str, *_parsed(values.text, "text", type="string", minLength=1)]
Name = Annotated[str, *_parsed(values.identifier, "name", type="string")]
OwnReason = Annotated[str, *_parsed(values.own_reason, "reason", type="string")]
HeaderName = Annotated[str, *_parsed(values.header_name, "header name", type="string")]
Duration = Annotated[float, *_parsed(values.duration, "duration", type="string")]
PositiveDuration = Annotated[
    float, *_parsed(values.positive(values.duration), "duration", type="string")
]
Size = Annotated[int, *_parsed(values.size, "size", type="string")]
CountRate = Annotated[RateValue, *_parsed(values.count_rate, "rate", type="string")]
ByteRate = Annotated[RateValue, *_parsed(values.byte_rate, "rate of bytes", type="string")]
AddressText = Annotated[Address, *_parsed(values.address, "address", type="string")]
Pointer = Annotated[ClaimPath, *_parsed(values.pointer, "pointer", type="string")]
NetworkText = Annotated[Network, *_parsed(values.network, "CIDR", type="string")]
WorkerCount = Annotated[
    int | None,
    *_parsed(
        values.workers,
        "whole number or auto",
        anyOf=[
            {"type": "integer", "minimum": 1, "maximum": values.MAX_WORKERS},
            {"const": "auto"},
        ],
    ),
]
CloseCodeNumber = Annotated[int, *_parsed(values.close_code, "close code", type="integer")]


def exactly_one(model: Model, names: tuple[str, ...]) -> str:
    """The one of these keys that is set. Raises BadValueError for none or several."""
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        what = "has none of" if not given else "has more than one of"
        raise BadValueError(f"{what} {', '.join(names)}", "give exactly one of them")
    return given[0]


class Secret(Model):
    """A secret text: where it is read from."""

    env: Text | None = setting(None, description="An environment variable's name.")
    file: Text | None = setting(None, description="A file's path; read again when it changes.")
    value: Text | None = setting(None, description="The text itself; for tests only.")

    @model_validator(mode="before")
    @classmethod
    def _no_bare_text(cls, data: Any) -> Any:
        """A bare text is most likely the secret itself: say what to do, and do not repeat it."""
        if not isinstance(data, dict):
            raise BadValueError(
                "is not a secret", "write {env: NAME} or {file: /path}, not the secret itself"
            )
        return data

    @model_validator(mode="after")
    def _one_place(self) -> "Secret":
        exactly_one(self, ("env", "file", "value"))
        return self

    @property
    def ref(self) -> SecretRef:
        """The secret as the program keeps it."""
        kind = exactly_one(self, ("env", "file", "value"))
        return SecretRef(kind, str(getattr(self, kind)))
