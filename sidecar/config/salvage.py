"""What can still be checked when some keys are wrong, so that every mistake is told at once."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from pydantic import ValidationError

from sidecar.config.compile import compile_policy
from sidecar.config.nodes import Items, Loc, Node, Section, exists, plain
from sidecar.config.schema import PolicyFile
from sidecar.errors import ConfigError, Problem

__all__ = ["further_problems"]


def further_problems(
    found: Sequence[Problem], error: ValidationError, root: Section, environ: Mapping[str, str]
) -> list[Problem]:
    """The mistakes that show when the policy is compiled without its wrong keys.

    `found` are the problems of `error`. What may only be a consequence of them is left out.
    """
    sound = _sound_rest(error, root)
    if sound is None:
        return []
    rest, model = sound
    try:
        compile_policy(model, rest, environ, defined=root)
    except ConfigError as errors:
        return [
            problem
            for problem in errors.problems
            if not any(_is_consequence(problem, other) for other in found)
        ]
    return []


def _sound_rest(error: ValidationError, root: Section) -> tuple[Node, PolicyFile] | None:
    """The policy without its wrong keys; None where nothing useful is left."""
    rest: Node = root
    while True:  # each round leaves something out
        wrong = {_target(rest, one["loc"]) for one in error.errors(include_url=False)}
        if () in wrong:
            return None
        for loc in sorted(_outermost(wrong), key=_in_order, reverse=True):
            rest = _without(rest, loc)
        try:
            return rest, PolicyFile.model_validate(plain(rest))
        except ValidationError as again:
            error = again


def _target(root: Node, loc: Loc) -> tuple[str | int, ...]:
    """What to leave out for a mistake at `loc`: the last thing on the way that is there.

    A route whose match is wrong is left out as a whole: what it matches is not known.
    """
    if len(loc) > 2 and loc[0] == "routes" and loc[2] == "match":
        loc = loc[:2]
    return tuple(loc[: max(end for end in range(len(loc) + 1) if exists(root, loc[:end]))])


def _outermost(locs: set[tuple[str | int, ...]]) -> list[tuple[str | int, ...]]:
    return [loc for loc in locs if not any(loc[:end] in locs for end in range(len(loc)))]


def _in_order(loc: Loc) -> list[tuple[int, str]]:
    """A key to sort by in which the items of a list stand in their order."""
    return [(step, "") if isinstance(step, int) else (-1, step) for step in loc]


def _without(node: Node, loc: Loc) -> Node:
    """The mapping or list without what stands at `loc`, which is there."""
    step, further = loc[0], loc[1:]
    if isinstance(node, Section):
        entries = dict(node.entries)
        if further:
            entry = entries[str(step)]
            entries[str(step)] = replace(entry, node=_without(entry.node, further))
        else:
            del entries[str(step)]
        return replace(node, entries=entries)
    items, place = cast(Items, node).items, int(step)
    kept = (_without(items[place], further),) if further else ()
    return replace(cast(Items, node), items=(*items[:place], *kept, *items[place + 1 :]))


def _is_consequence(problem: Problem, found: Problem) -> bool:
    """Whether a problem may only be there because what another one concerns was left out: it
    stands at the same key, above it or below it.
    """
    one, other = problem.path, found.path
    if problem.file != found.file:
        return False
    return _is_within(one, other) or _is_within(other, one)


def _is_within(path: str, ancestor: str) -> bool:
    return path.startswith(ancestor) and path[len(ancestor) : len(ancestor) + 1] in ("", ".", "[")
