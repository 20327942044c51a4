"""A policy as positioned nodes: what YAML gave, each value with the place where it stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

__all__ = [
    "MORE",
    "Entry",
    "Gap",
    "Items",
    "Leaf",
    "Loc",
    "Node",
    "Place",
    "Section",
    "doubtful",
    "find",
    "join",
    "locate",
    "plain",
    "with_gap",
]

MORE: Final = "<<"
"""A gap under this name: the mapping may hold more than what is known of it."""

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
    """A list. `seen` are the items that `plain` gives; indexes count these."""

    place: Place
    items: tuple["Node", ...]
    seen: tuple["Node", ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        seen = tuple(item for item in self.items if not _is_left_out(item))
        object.__setattr__(self, "seen", seen)


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


@dataclass(frozen=True, slots=True)
class Gap:
    """What cannot be used, as a problem tells. The rest is checked with `stand_in` in its place,
    or, where that is None, as if it were not there.
    """

    place: Place
    stand_in: Any = None


Node = Leaf | Items | Section | Gap


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
        return [plain(item) for item in node.seen]
    if isinstance(node, Gap):
        return node.stand_in
    entries = node.entries.items()
    return {key: plain(entry.node) for key, entry in entries if not _is_left_out(entry.node)}


def _is_left_out(node: Node) -> bool:
    return isinstance(node, Gap) and node.stand_in is None


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


def find(root: Node, loc: Loc) -> Node | None:
    """The value, or gap, at `loc`."""
    node = root
    for step in loc:
        entry = _child(node, step)
        if entry is None:
            return None
        node = entry.node
    return node


def doubtful(root: Node, loc: Loc) -> bool:
    """Whether it is not known what stands at `loc`: there is a gap there, above it or below it."""
    node: Node = root
    open_ended = False
    for step in loc:
        if isinstance(node, Gap):
            return True
        open_ended = open_ended or (isinstance(node, Section) and _has_more(node))
        entry = _child(node, step)
        if entry is None:
            return open_ended
        node = entry.node
    return _has_gap(node)


def _has_more(node: Section) -> bool:
    return MORE in node.entries and isinstance(node.entries[MORE].node, Gap)


def _has_gap(node: Node) -> bool:
    if isinstance(node, Section):
        return any(_has_gap(entry.node) for entry in node.entries.values())
    if isinstance(node, Items):
        return any(map(_has_gap, node.items))
    return isinstance(node, Gap)


def with_gap(node: Node, loc: Loc, gap: Gap) -> Node:
    """The node with the gap at `loc`, whose last step alone may be new (in a mapping)."""
    if not loc:
        return gap
    step, further = loc[0], loc[1:]
    if isinstance(node, Items):
        old = node.seen[int(step)]
        new = with_gap(old, further, gap)
        return replace(node, items=tuple(new if item is old else item for item in node.items))
    section, name = cast(Section, node), str(step)
    entry = section.entries.get(name) or Entry(gap.place, gap)
    entry = replace(entry, node=with_gap(entry.node, further, gap))
    return replace(section, entries={**section.entries, name: entry})


def _child(node: Node, step: str | int) -> Entry | None:
    if isinstance(node, Section) and isinstance(step, str):
        return node.entries.get(step)
    if isinstance(node, Items) and isinstance(step, int) and step < len(node.seen):
        return Entry(node.seen[step].place, node.seen[step])
    return None


def _beyond(place: Place, steps: Loc) -> Place:
    path = place.path
    for step in steps:
        path = join(path, step)
    return replace(place, path=path)
