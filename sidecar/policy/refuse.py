"""How a refused handshake looks to the client."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Refuse", "RefuseWith"]


class RefuseWith(StrEnum):
    """http: a status and a JSON body. close: accept, then close with a code that a browser can
    read. auto: close for browsers (an Origin is present), http otherwise.
    """

    HTTP = "http"
    CLOSE = "close"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Refuse:
    """A route's way to refuse. `hold` is in seconds; `codes` maps a reason's name (a rule's own
    too) to a close code.
    """

    with_: RefuseWith = RefuseWith.HTTP
    hold: float = 0.0
    codes: Mapping[str, int] = field(default_factory=dict)

    def closes(self, *, browser: bool) -> bool:
        """Whether this client gets a close frame instead of an HTTP answer."""
        return self.with_ is RefuseWith.CLOSE or (self.with_ is RefuseWith.AUTO and browser)
