"""Values that parent and worker send each other, made JSON and back."""

from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from sidecar.admin.live import Connection, ConnectionFilter
from sidecar.auth.logout import Logout
from sidecar.errors import WorkerError
from sidecar.model import Denial
from sidecar.state.base import Revocation

__all__ = ["CLOSED", "CONNECTIONS", "FILTER", "KICKED", "REVOCATIONS", "VERDICT", "Plain"]

T = TypeVar("T")


class Plain(Generic[T]):
    """A type of values, under its name in a message's body."""

    def __init__(self, name: str, adapter: TypeAdapter[T]) -> None:
        self._name = name
        self._adapter = adapter

    def put(self, value: T) -> dict[str, Any]:
        """A body with this value."""
        return {self._name: self._adapter.dump_python(value, mode="json")}

    def get(self, body: Any) -> T:
        """The value in a body. Raises WorkerError where there is none of this type."""
        try:
            return self._adapter.validate_python(body[self._name])
        except (KeyError, TypeError, ValidationError):
            raise WorkerError(f"a message has no {self._name}") from None


CLOSED: Final = Plain("closed", TypeAdapter(int))
CONNECTIONS: Final = Plain("connections", TypeAdapter(tuple[Connection, ...]))
FILTER: Final = Plain("which", TypeAdapter(ConnectionFilter))
KICKED: Final = Plain("kicked", TypeAdapter(bool))
REVOCATIONS: Final = Plain("revocations", TypeAdapter(tuple[Revocation, ...]))
VERDICT: Final = Plain("verdict", TypeAdapter(Logout | Denial))
