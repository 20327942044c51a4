"""A policy as positioned nodes: what YAML gave, each value with the place where it stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = [
    "Entry",
    "Items",
    "Leaf",
    "Loc",
    "Node",
    "Place",
    "Section",
    "exists",
    "join",
    "locate",
    "plain",
]

Loc = Sequence[str | int]
"""The way to a value: keys and indexes, as pydantic's error locations have it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: the file, line and column (from 1), and the dotted path of keys
    within that file.
    """

    file: str
    line: int
    column: int
    path: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar."""

    place: Place
    value: str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    place: Place
    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping, with the key's own place, and its value."""

    key: Place
    node: "Node"


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping."""

    place: Place
    entries: Mapping[str, Entry]


Node = Leaf | Items | Section


def join(path: str, step: str | int) -> str:
    """The dotted path with one more step: ``routes[0].limits``. Unprintable keys are escaped."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    name = step if step.isprintable() else ascii(step)
    return f"{path}.{name}" if path else name


def plain(node: Node) -> Any:
    """The node as dictionaries, lists and scalars."""
    if isinstance(node, Leaf):
        return node.value
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return {key: plain(entry.node) for key, entry in node.entries.items()}


def locate(root: Node, loc: Loc, *, key: bool = False) -> Place:
    """The place of the value at `loc`, or of its key.

    Where the way ends early, in a mapping without that key, the mapping's place is given with the
    missing steps in the path; at a scalar (a short form of a mapping) the scalar's.
    """
    node, place = root, root.place
    for index, step in enumerate(loc):
        entry = _child(node, step)
        if entry is None:
            return place if isinstance(node, Leaf) else _beyond(node.place, loc[index:])
        node = entry.node
        place = entry.key if key else node.place
    return place


def exists(root: Node, loc: Loc) -> bool:
    """Whether there is a value at `loc`."""
    node = root
    for step in loc:
        entry = _child(node, step)
        if entry is None:
            return False
        node = entry.node
    return True


def _child(node: Node, step: str | int) -> Entry | None:
    if isinstance(node, Section) and isinstance(step, str):
        return node.entries.get(step)
    if isinstance(node, Items) and isinstance(step, int) and step < len(node.items):
        return Entry(node.items[step].place, node.items[step])
    return None


def _beyond(place: Place, steps: Loc) -> Place:
    path = place.path
    for step in steps:
        path = join(path, step)
    return replace(place, path=path)
