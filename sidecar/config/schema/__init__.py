"""The policy's keys as strict models: every key, its type, its default and its description."""

from typing import Annotated, Any, ClassVar

from pydantic import PlainValidator, WithJsonSchema

from sidecar.config.schema.base import (
    Model,
    Name,
    setting,
)
from sidecar.config.schema.jwt import Jwt
from sidecar.config.schema.routes import Route
from sidecar.config.schema.server import Admin, Logging, Server
from sidecar.config.schema.upstreams import Upstream
from sidecar.config.values import BadValueError, show

__all__ = ["PolicyFile"]


def _version(value: object) -> int:
    if isinstance(value, bool) or value != 1:
        raise BadValueError(f"{show(value)} is not a version of the policy", "write `version: 1`")
    return 1


def _defaults(value: Any) -> Any:
    """The keys are checked where they are merged into the routes."""
    if not isinstance(value, dict):
        raise BadValueError("is not a mapping", "give it keys of a route, or remove it")
    if "name" in value:
        raise BadValueError("has `name`, which cannot be shared", "give each route its own")
    return value


class PolicyFile(Model):
    """The whole policy."""

    later: ClassVar[frozenset[str]] = frozenset({"state", "issue"})

    version: Annotated[int, PlainValidator(_version), WithJsonSchema({"const": 1})] = setting(
        1, description="Always 1."
    )
    server: Server = setting({}, description="The public listener.")
    admin: Admin | None = setting({}, description="The admin listener; null turns it off.")
    upstreams: dict[Name, Upstream] = setting(
        min_length=1, description="The WebSocket servers behind the sidecar, by name."
    )
    jwt: Jwt = setting({}, description="Which tokens are good.")
    routes: list[Route] = setting(
        [{}],
        min_length=1,
        description="Rule sets; the first that matches counts. Default: one route that protects "
        "every path of the only upstream.",
    )
    logging: Logging = setting({}, description="What is logged.")
    defaults: Annotated[
        dict[str, Any], PlainValidator(_defaults), WithJsonSchema({"type": "object"})
    ] = setting({}, description="Keys of a route, merged under each route.")
