"""Keys and values checked so that every mistake is told at once: what is wrong becomes a gap, and
the rest is checked without it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from sidecar.config.nodes import Gap, Loc, Node, find, locate, plain, with_gap
from sidecar.config.problems import MAX_PROBLEMS, meant_key, schema_problems
from sidecar.config.schema import PolicyFile
from sidecar.config.schema.jwt import ALGORITHMS
from sidecar.errors import Problem

__all__ = ["Salvaged", "validate"]

_URL: Final = "ws://127.0.0.1:1"

_STAND_INS: Final[tuple[tuple[tuple[str, ...], Any], ...]] = (
    (("upstreams",), {"unknown": {"url": _URL}}),
    (("upstreams", "*"), {"url": _URL}),
    (("upstreams", "*", "url"), _URL),
    (("jwt", "providers", "*", "algorithms"), [*ALGORITHMS]),
    (("routes", "*"), {}),
)
"""What a gap is checked with where the rest could not be checked without anything."""


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What could be made of a policy: its model (None where too little is sound), the nodes that it
    came from, with gaps where they are wrong, and what is wrong.
    """

    model: PolicyFile | None
    root: Node
    problems: tuple[Problem, ...]


def validate(root: Node) -> Salvaged:
    """The policy's model, of what is sound in it, and all mistakes of keys and values."""
    problems: list[Problem] = []
    while True:  # each round leaves something out
        try:
            return Salvaged(PolicyFile.model_validate(plain(root)), root, tuple(problems))
        except ValidationError as error:
            # One more than will be told, so that `bounded` sees that there are more.
            details = error.errors(include_url=False)[: MAX_PROBLEMS + 1]
        root, details = _with_meant_keys(root, details)
        problems += schema_problems(details, root)
        targets = {_target(root, detail): _is_key(detail) for detail in details}
        if len(details) > MAX_PROBLEMS or () in targets:
            return Salvaged(None, root, tuple(problems))
        root = _without(root, targets)


def _with_meant_keys(root: Node, details: Sequence[Any]) -> tuple[Node, list[Any]]:
    """The nodes with a gap for each key that a misspelt one was meant to be, and the mistakes
    without those of keys that are only missing because they are misspelt.
    """
    meant = {_meant(detail) for detail in details} - {None}
    missing = {loc for loc in meant if loc is not None and find(root, loc) is None}
    for loc in missing:
        root = _put(root, loc, _stand_in(loc))
    return root, [
        one for one in details if one["type"] != "missing" or tuple(one["loc"]) not in missing
    ]


def _meant(detail: Any) -> Loc | None:
    name = meant_key(detail)
    return None if name is None else (*detail["loc"][:-1], name)


def _without(root: Node, targets: Mapping[tuple[str | int, ...], bool]) -> Node:
    """The nodes with a gap at each target; true are those whose key cannot be used."""
    for loc in sorted(_outermost(targets), key=_in_order, reverse=True):
        root = _put(root, loc, None if targets[loc] else _stand_in(loc))
    return root


def _is_key(detail: Any) -> bool:
    return tuple(detail["loc"][-1:]) == ("[key]",)


def _target(root: Node, detail: Any) -> tuple[str | int, ...]:
    """Where to put the gap for a mistake: at the last thing on the way to it that is none yet."""
    loc = tuple(detail["loc"])
    if detail["type"] == "missing" and _stand_in(loc) is not None:
        return loc
    while loc and isinstance(find(root, loc), Gap | None):
        loc = loc[:-1]
    return loc


def _stand_in(loc: Loc) -> Any:
    for pattern, value in _STAND_INS:
        if len(pattern) == len(loc) and all(
            one in ("*", step) for one, step in zip(pattern, loc, strict=True)
        ):
            return value
    return None


def _put(root: Node, loc: Loc, stand_in: Any) -> Node:
    return with_gap(root, loc, Gap(locate(root, loc), stand_in))


def _outermost(locs: Iterable[tuple[str | int, ...]]) -> list[tuple[str | int, ...]]:
    known = set(locs)
    return [loc for loc in known if not any(loc[:end] in known for end in range(len(loc)))]


def _in_order(loc: Loc) -> list[tuple[int, str]]:
    """A key to sort by in which the items of a list stand in their order."""
    return [(step, "") if isinstance(step, int) else (-1, step) for step in loc]
