"""What a worker is told when it starts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.config.source import Document
from sidecar.workers.channel import Body
from sidecar.workers.ports import Place

__all__ = ["Orders"]


@dataclass(frozen=True, slots=True)
class Orders:
    """The policy as the parent has read it (its files may have changed since), how many workers
    share the work, where they listen, and the key of users' pseudonyms, which are the same in all.
    """

    documents: Sequence[Document]
    workers: int
    places: Sequence[Place]
    hash_key: str = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes. The documents are text: they made a policy."""
        return {
            "documents": [[one.file, one.data.decode()] for one in self.documents],
            "workers": self.workers,
            "places": [place.to_json() for place in self.places],
            "hash_key": self.hash_key,
        }

    @classmethod
    def from_json(cls, body: Body) -> "Orders":
        """The orders that `to_json` was told."""
        return cls(
            [Document(file, text.encode()) for file, text in body["documents"]],
            body["workers"],
            [Place.from_json(place) for place in body["places"]],
            body["hash_key"],
        )
